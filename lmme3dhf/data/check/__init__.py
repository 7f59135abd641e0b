"""What is wrong with a data set, or with one file of it, before anybody trains on it.

All faults are found in one go, each with its place. Files are recognised by what they hold, not by
their names; in a data set's folder the layout of `datasets/README.md` says what is expected where.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lmme3dhf.aspects import ASPECTS_FILE, Aspects, aspects_of
from lmme3dhf.data.check.consistency import (
    check_labels,
    check_levels,
    check_lists,
    check_split_file,
)
from lmme3dhf.data.check.kinds import (
    CATEGORIES,
    CLIP,
    FIXATIONS,
    LIST,
    MAP,
    RATINGS,
    REMARKS,
    SCALES,
    SCORES,
    SPLIT,
    STRIP,
    TABLE,
)
from lmme3dhf.data.check.media import (
    MEDIA_FOLDERS,
    check_clips,
    check_map,
    check_media,
    check_strip,
    report_not_sought,
)
from lmme3dhf.data.check.reading import Found, read_file, scales_beside
from lmme3dhf.data.check.report import Report
from lmme3dhf.data.samples import DataError

DECODES = ("views", "headers", "none")

# What the layout of a data set has where (`datasets/README.md`).
LIST_FOLDERS = ("text", "numerical", "distortion")
LAYOUT = {
    "MOS.json": SCORES,
    "distortion_label.json": CATEGORIES,
    "levels.json": SCALES,
    "splits.json": SPLIT,
    "fixations.json": FIXATIONS,
    "raw/ratings.csv": RATINGS,
    "raw/remarks.csv": REMARKS,
}


def check(
    path: Path,
    *,
    video_root: Path | None = None,
    decode: str = "views",
    allow_outside: bool = False,
    aspects: Aspects | None = None,
) -> Report:
    """Checks a data set's folder or one file of it, and goes on after every fault.

    The tables of annotators, splits, level edges and fixations are read by readers that stop at
    the first fault of a file.

    Args:
        path: A folder in the layout of a data set, or one list, label file, split, table of
            annotations, saliency map, strip or clip.
        video_root: Folder of the clips that lists name; needed where they hold the absolute paths
            of another machine.
        decode: "views" decodes every clip to its end, and every strip and map; "headers" reads
            containers and packets of clips with one picture, and sizes of strips; "none" looks
            whether media are there and opens none.
        allow_outside: Whether clips of a list may lie outside the folder of the clips; else each
            that does is an error.
        aspects: What is rated; None for what the data set declares, else Gen3DHF's two.

    Raises:
        AspectError: The data set's `aspects.yaml` cannot be used.
        DataError: Nothing is there, or a folder holds nothing of a data set.
        ValueError: Unknown `decode`.
    """
    if decode not in DECODES:
        raise ValueError(f"decode={decode!r}, expected one of {', '.join(DECODES)}")
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a data set or one of its files")
    video_root = None if video_root is None else Path(video_root)
    report = Report(path)
    # A file lies in the data set's folder or in one below.
    roots = [path] if path.is_dir() else [path.parent, path.parent.parent]
    root = next((root for root in roots if (root / ASPECTS_FILE).is_file()), roots[0])
    found = Found(aspects=aspects_of(root, aspects))
    read = partial(read_file, video_root=video_root, allow_outside=allow_outside)
    if path.is_dir():
        _check_folder(path, video_root, decode, report, read, found)
    else:
        _check_file(path, decode, report, read, found)
    return report


def _check_folder(
    root: Path,
    video_root: Path | None,
    decode: str,
    report: Report,
    read: Callable[..., str | None],
    found: Found,
) -> None:
    lists = [path for name in LIST_FOLDERS for path in _tables(root / name)]
    for path in lists:
        read(path, LIST, report=report, found=found)
    for name, kind in LAYOUT.items():
        if (root / name).is_file() or (root / name).is_symlink():
            read(root / name, kind, report=report, found=found)
    if found.split is not None:
        check_split_file(root / "splits.json", found.split, report)
    # Other files, a second split for instance, are not compared with the rest.
    others = [path for path in _tables(root) if path.name not in LAYOUT]
    known = {*lists, root / ASPECTS_FILE, *(root / name for name in LAYOUT)}
    for path in others:
        alone = Found(aspects=found.aspects)
        if _check_file(path, decode, report, read, alone, must_be_known=False):
            known.add(path)
    check_lists(report, found)
    check_labels(report, found)
    check_media(root, video_root, decode, report, found)
    report.passed_over = [
        path.relative_to(root).as_posix()
        for folder in (root, root / "raw", *(root / name for name in LIST_FOLDERS))
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path not in known and path.name not in (*LIST_FOLDERS, *MEDIA_FOLDERS, "raw")
    ]
    if not report.looked_at and not report.findings:
        raise DataError(
            f"{root}: nothing of a data set in it; expected lists in {', '.join(LIST_FOLDERS)}, or "
            f"{', '.join(LAYOUT)}"
        )


def _tables(folder: Path) -> list[Path]:
    """The files of a folder that may hold lists, labels or tables."""
    return sorted(
        path
        for path in folder.glob("*")
        if path.suffix in (".json", ".jsonl", ".csv") and not path.name.startswith(".")
    )


def _check_file(
    path: Path,
    decode: str,
    report: Report,
    read: Callable[..., str | None],
    found: Found,
    *,
    must_be_known: bool = True,
) -> bool:
    """Checks one file by itself; gives whether it holds anything that is known."""
    before = len(report.findings)
    kind = read(path, None, report=report, found=found)
    if kind in (LIST, TABLE):
        check_levels(found, scales_beside(path, found.aspects), report)
        check_clips(found.clips, decode, report)
        report_not_sought(report, found)
    elif kind == SPLIT:
        check_split_file(path, found.split, report)
    elif kind == CLIP:
        check_clips({path: str(path)}, decode, report)
    elif kind in (STRIP, MAP) and decode != "none":
        report.looked_at["strips" if kind == STRIP else "maps"] += 1
        if kind == STRIP:
            check_strip(path, decode, report)
        else:
            check_map(path, report)
    elif kind is None and must_be_known and len(report.findings) == before:
        report.add_error(
            "file", path, f"holds none of {LIST}, {', '.join(LAYOUT.values())}, {MAP}, {CLIP}"
        )
    return kind is not None or len(report.findings) > before
