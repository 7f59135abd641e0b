"""What a user points at: files, folders, patterns and pictures in memory -> single clips, in order;
and where their views are.

Nothing but the header of an image is opened here, so neither FFmpeg nor torch is needed; what a
file holds shows on reading.
"""

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmme3dhf.data.samples import DataError
from lmme3dhf.vocabulary import VIEWS

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
EXPECTED = (
    "expected a file, a folder, a pattern, pictures (T, H, W, 3) or a strip (H, 3W, 3) as an array "
    "or tensor, or a list of those"
)


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture by its name, as a strip of three views is.

    An animated PNG has such a name too; what decides is the content, on reading.
    """
    return Path(path).suffix.lower() in _PICTURES


def in_memory(clip: Any) -> bool:
    """Whether it is pictures, as an array or tensor or an open Pillow picture, and no list of
    clips, as an array of paths is.
    """
    if isinstance(clip, str | os.PathLike):
        return False
    dimensions = getattr(clip, "ndim", None)
    return dimensions > 1 if dimensions is not None else hasattr(clip, "__array_interface__")


def is_one(clips: Any) -> bool:
    """Whether it is one clip: pictures in memory, or a path that is neither a folder nor a pattern.

    Raises:
        TypeError: It is nothing that clips come from.
    """
    if isinstance(clips, str | os.PathLike):
        return not (Path(clips).is_dir() or _is_pattern(clips))
    if in_memory(clips):
        return True
    if isinstance(clips, bytes | Mapping) or not isinstance(clips, Iterable):
        raise TypeError(f"{type(clips).__name__} is no clip; {EXPECTED}")
    return False


def single_clips(clips: Any) -> Iterator[Any]:
    """The clips one by one, in order: paths and pictures in memory.

    Folders and patterns, alone or in a list, are replaced by their files. An iterable is taken
    piece by piece, so that it may be endless.

    Raises:
        DataError: A folder or pattern without files, or a folder that holds the frames of a clip.
        TypeError: A piece that is no clip.
    """
    if in_memory(clips):
        yield clips
    elif isinstance(clips, str | os.PathLike):
        yield from _files(clips)
    else:
        for clip in clips:
            if not (in_memory(clip) or isinstance(clip, str | os.PathLike)):
                raise TypeError(f"{type(clip).__name__} in a list of clips; {EXPECTED}")
            yield from single_clips(clip)


def files_below(paths: Iterable[Path | str]) -> list[Path]:
    """Files, all files below folders, and those that patterns stand for; each once, in this order,
    sorted within each folder and pattern.

    Args:
        paths: A path that exists is never taken for a pattern. Patterns are those of a shell, and
            ** stands for any folders.

    Raises:
        DataError: A path does not exist, a folder or pattern has no files, or a folder holds the
            frames of a clip.
        OSError: A folder that cannot be read.
    """
    found: dict[Path, None] = {}
    for path in paths:
        for file in _files(path):
            if not os.path.lexists(file):
                raise DataError(f"{file}: no such file or folder; check the path")
            found[file] = None
    if not found:
        raise DataError("no files to score; give clips, or folders with clips")
    return list(found)


def three_views(fractions: Sequence[float] | None) -> tuple[float, ...]:
    """Where a clip shows the face at -45, 0 and +45 degrees, as fractions of its duration.

    Args:
        fractions: Three numbers in 0..1, in any order: a clip that turns evenly from A to B degrees
            shows the angle a at (a - A) / (B - A). None for the usual places, of a clip from -90 to
            +90 degrees (`vocabulary.VIEWS`).

    Raises:
        DataError: Not three, or not in 0..1.
    """
    if fractions is None:
        return tuple(view.clip_fraction for view in VIEWS)
    given = tuple(map(float, fractions))
    if len(given) != len(VIEWS) or not all(0 <= fraction <= 1 for fraction in given):
        yaws = ", ".join(f"{view.yaw_deg:+d}" if view.yaw_deg else "0" for view in VIEWS)
        usual = " ".join(f"{view.clip_fraction:g}" for view in VIEWS)
        raise DataError(
            f"views at {' '.join(f'{fraction:g}' for fraction in given)}; expected three fractions "
            f"of the clip in 0..1, where it shows the face at {yaws} degrees, such as {usual}"
        )
    return given


def _files(path: Path | str) -> list[Path]:
    """The path itself where it is neither a folder nor a pattern, whether or not it exists."""
    folder = Path(path)
    if folder.is_dir():
        found = _below(folder)
        _refuse_frames(folder, found)
    elif _is_pattern(path):
        found = []
        for match in _matches(Path(path)):
            found += _below(match) if match.is_dir() else [match]
    else:
        return [folder]
    if not found:
        what = "no files below it" if folder.is_dir() else "no file has such a name"
        raise DataError(f"{path}: {what}; give clips, or folders with clips")
    return list(dict.fromkeys(found))


def _matches(pattern: Path) -> list[Path]:
    """What a pattern stands for, sorted. The folders of ** are searched here: the standard library
    follows links in circles.
    """
    if "**" not in pattern.parts:
        return sorted(map(Path, glob.iglob(str(pattern))))
    at = pattern.parts.index("**")
    tops = _matches(Path(*pattern.parts[:at])) if at else [Path()]
    return [
        file
        for top in tops
        if top.is_dir()
        for file in _below(top)
        if _fits(file.relative_to(top).parts, pattern.parts[at:])
    ]


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path, or a folder that it lies in, fits a pattern."""
    if not pattern:
        return True
    if pattern[0] == "**" and _fits(parts, pattern[1:]):
        return True
    if not parts or not (pattern[0] == "**" or fnmatch.fnmatch(parts[0], pattern[0])):
        return False
    return _fits(parts[1:], pattern if pattern[0] == "**" else pattern[1:])


def _below(folder: Path) -> list[Path]:
    """All files below a folder, but for hidden ones, sorted. Linked folders are searched too, each
    folder once, and none that this one lies in, so that loops of links end. Links that lead nowhere
    are among the files, so that nothing is left out silently.
    """
    above = {str(path) for path in Path(os.path.realpath(folder)).parents}
    found, searched, links = [], set(above), [str(folder)]
    while links:
        for name, subfolders, files in os.walk(links.pop(0), onerror=_raise):
            real = os.path.realpath(name)
            shown = [] if real in searched else sorted(n for n in subfolders if n[0] != ".")
            links += [path for n in shown if os.path.islink(path := os.path.join(name, n))]
            if real not in searched:
                found += [Path(name, n) for n in files if n[0] != "."]
            searched.add(real)
            subfolders[:] = shown  # os.walk itself follows no links
    return sorted(path for path in found if path.is_file() or not path.exists())


def _raise(error: OSError) -> None:
    raise error


def _refuse_frames(folder: Path, files: list[Path]) -> None:
    """Refuses a folder that holds the frames of clips as numbered images.

    Raises:
        DataError: It does, and the first is no strip of three views.
    """
    numbered = [re.fullmatch(r"(.*?)(\d+)", path.stem) for path in files]
    if len(files) < 2 or not all(map(is_picture, files)) or not all(numbered):
        return
    first = files[0]
    same = [
        p
        for p, n in zip(files, numbered, strict=True)
        if p.parent == first.parent and n[1] == numbered[0][1]
    ]
    try:
        from PIL import Image

        with Image.open(first) as image:
            width, height = image.size
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return
    if len(same) < 2 or 2 * height < width < 4 * height:
        return
    digits = numbered[0][2]
    pattern = first.with_name(
        f"{numbered[0][1]}%{f'0{len(digits)}' if digits[0] == '0' else ''}d{first.suffix}"
    )
    raise DataError(
        f"{folder}: images numbered like the frames of a clip, first {first}; encode them (ffmpeg "
        f"-framerate 30 -start_number {int(digits)} -i '{pattern}' -pix_fmt yuv420p clip.mp4), or "
        "give a pattern for the files that you mean"
    )


def _is_pattern(path: Path | str) -> bool:
    return glob.has_magic(str(path)) and not os.path.lexists(path)
