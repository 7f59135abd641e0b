"""What a user points at: files, folders, patterns and pictures in memory -> single clips, in order.

Nothing is opened here, so neither FFmpeg nor torch is needed; what a file holds shows on reading.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmme3dhf.data.samples import DataError

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
        DataError: A folder or pattern without files.
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
        DataError: A path does not exist, or a folder or pattern has no files.
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


def _files(path: Path | str) -> list[Path]:
    """The path itself where it is neither a folder nor a pattern, whether or not it exists."""
    folder = Path(path)
    if folder.is_dir():
        found = _below(folder)
    elif _is_pattern(path):
        found = []
        for match in sorted(map(Path, glob.iglob(str(path), recursive=True))):
            found += _below(match) if match.is_dir() else [match]
    else:
        return [folder]
    if not found:
        what = "no files below it" if folder.is_dir() else "no file has such a name"
        raise DataError(f"{path}: {what}; give clips, or folders with clips")
    return list(dict.fromkeys(found))


def _below(folder: Path) -> list[Path]:
    """All files below a folder, but for hidden ones; links that lead nowhere are among them, so
    that nothing is left out without a word.
    """
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and (path.is_file() or (path.is_symlink() and not path.exists())):
            found.append(path)
    return sorted(found)


def _is_pattern(path: Path | str) -> bool:
    return glob.has_magic(str(path)) and not os.path.lexists(path)
