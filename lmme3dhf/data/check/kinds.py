"""What a file of a data set holds, recognised by its content, not by its name."""

import re
from collections import Counter
from pathlib import Path

from PIL import Image

from lmme3dhf.annotations.descriptions import REMARK_COLUMNS
from lmme3dhf.annotations.ratings import is_ratings
from lmme3dhf.aspects import Aspects
from lmme3dhf.data.readers.table import is_table_of_clips
from lmme3dhf.data.release import read_json, video_id
from lmme3dhf.data.samples import DataError
from lmme3dhf.sheets import sheet_header

# The kinds, as they stand in sentences.
LIST, TABLE, SPLIT, SCALES = "a list", "a table of clips", "a split", "level edges"
SCORES, CATEGORIES, FIXATIONS = "opinion scores", "distortion categories", "fixations"
RATINGS, REMARKS, POINTS = "ratings", "remarks", "marked points"
MAP, STRIP, CLIP = "a saliency map", "a strip", "a clip"

PARTS = ("train", "val", "eval", "test")
SEED = re.compile(r"seed[0-9]+")
PICTURE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")


def kind_of(path: Path, aspects: Aspects) -> str | None:
    """What a file of a data set of these aspects holds; None where it is nothing of one.

    Raises:
        DataError: An empty file, or JSON that cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise DataError(f"{path}: has 0 bytes; copy or download it again")
    if start.startswith(b"PK\x03\x04"):
        return MAP  # NumPy's npz is a zip file
    if start.startswith(b"\xff\xd8\xff"):
        return STRIP  # JPEG
    if start.startswith(b"\x89PNG"):
        return _png_kind(path)
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return CLIP
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"{", b"[")):
        return _json_kind(path, aspects)
    # A Git LFS pointer or a web page in place of a clip: the clip's reader says so.
    if text.lower().startswith((b"version https://git-lfs", b"<")):
        return CLIP
    header = sheet_header(path, DataError, lambda cells: _table_kind(cells, aspects) is not None)
    if not "".join(header).isprintable():
        return CLIP
    return _table_kind(header, aspects)


def _png_kind(path: Path) -> str:
    """Grey is a map, coloured is a strip, moving is a clip."""
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                return CLIP
            return MAP if picture.mode in _GREY_MODES else STRIP
    except PICTURE_ERRORS:
        return STRIP  # its reader says what is wrong


def _table_kind(header: tuple[str, ...], aspects: Aspects) -> str | None:
    cells = [cell.casefold() for cell in header]
    # Not the tables that are made from them, which have more columns, and scores.
    if "remark" in cells and len(cells) == len(REMARK_COLUMNS):
        return REMARKS
    wide = cells[:2] == ["video", "dimension"] or is_ratings(tuple(cells), aspects)
    if "rating" in cells or (wide and "mos" not in cells):
        return RATINGS
    if {"x", "y"} <= set(cells):
        return POINTS
    return TABLE if is_table_of_clips(header, aspects) else None


def _json_kind(path: Path, aspects: Aspects) -> str | None:
    # Lists may be JSON lines, or broken in one line only.
    if b'"messages"' in path.read_bytes():
        return LIST
    content, _ = read_json(path)
    if isinstance(content, list):
        votes = Counter(_entry_kind("", entry, aspects) for entry in content)
    elif not isinstance(content, dict):
        return None
    elif content and set(content) <= set(aspects):
        by_video = any(isinstance(value, dict) for value in content.values())
        return SCORES if by_video else SCALES
    elif "parts" in content or set(content) <= set(PARTS):
        return SPLIT
    else:
        votes = Counter(_entry_kind(key, entry, aspects) for key, entry in content.items())
    del votes[None]
    return votes.most_common(1)[0][0] if votes else None


def _entry_kind(key: str, entry: object, aspects: Aspects) -> str | None:
    """What one entry of an object of videos, one record, or one part of a split looks like."""
    is_video = bool(SEED.fullmatch(video_id(key) or ""))
    if isinstance(entry, dict):
        words = " ".join(entry).casefold()
        if any(name in words for name in aspects):
            return SCORES
        if {"points", "no_distortion"} & set(entry):
            return FIXATIONS
        if re.search(r"label|distort|categor", words):
            return CATEGORIES
        by_marker = all(
            isinstance(points, list) and all(isinstance(point, list) for point in points)
            for points in entry.values()
        )
        return POINTS if is_video and by_marker else None
    if isinstance(entry, list) and entry:
        if all(isinstance(item, str) for item in entry):
            return SPLIT if any(map(SEED.fullmatch, entry)) else CATEGORIES
        return FIXATIONS if any(isinstance(item, list | dict) for item in entry) else SCORES
    if isinstance(entry, list):
        return FIXATIONS if is_video else None
    if isinstance(entry, str):
        return CATEGORIES if is_video else None
    return SCORES if is_video and not isinstance(entry, bool) else None
