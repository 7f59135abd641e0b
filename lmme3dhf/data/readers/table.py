"""A table of clips: one row a clip, CSV or TSV as `sheets.read_sheet` reads them.

| column | content |
|---|---|
| `path` (or `video`, `image`, `file`) | the clip, below the folder of the clips or the table's |
| an aspect's name | its score, in the units of its scale; may be empty |
| `NAME_std`, `NAME_level` | standard deviation of its opinions; its level word |
| `generator`, `identity` | where the clip comes from |
| any other | a slot, such as `prompt`, for the aspects' prompts and prefixes |
"""

import math
from collections.abc import Iterator
from pathlib import Path

from lmme3dhf.aspects import Aspect, AspectError, Aspects
from lmme3dhf.data.gen3dhf import level_reply
from lmme3dhf.data.samples import DataError, Origin, Sample
from lmme3dhf.files import is_inside
from lmme3dhf.sheets import read_sheet

_PATHS = ("path", "video", "image", "file")
_OF_ASPECTS = ("", "_std", "_level")


def read_table(
    path: Path, *, root: Path | None, aspects: Aspects, labels: str, allow_outside: bool
) -> Iterator[Sample | DataError]:
    """The samples of a table: for each row a question on each aspect that it has a score or level
    of; where labels are ignored, on each aspect with a column, or on all if none has one. See
    `readers.READERS`. A level that is not given follows from the score where the scale has edges.

    Raises:
        DataError: With the line: no table, or no column of clips or aspects.
        FileNotFoundError: No such file.
    """
    path = Path(path)
    sheet = read_sheet(
        path,
        DataError,
        fits=lambda header: not _fault(header, aspects, labels),
        advice=lambda header: f"{_fault(header, aspects, labels)}; correct the first line",
    )
    asked = _asked(sheet.header, aspects) or list(aspects.values())
    folder, seen = path.parent if root is None else Path(root), set()
    for line, cells in sheet.rows:
        where, row = f"{path}:{line}", dict(zip(sheet.header, cells, strict=True))
        try:
            entry = row[next(name for name in _PATHS if name in row)]
            clip = folder / entry.replace("\\", "/")
            if not entry:
                raise DataError(f"{where}: no path; name the clip")
            if clip.stem in seen:
                raise DataError(f"{where}: {clip.stem} has a row already; keep one of the two")
            if not (allow_outside or is_inside(clip, folder)):
                raise DataError(
                    f"{where}: {entry} leads out of {folder}; name the folder of the clips "
                    "(--video_root DIR), or let predict and data check take clips from anywhere "
                    "(--allow_outside)"
                )
            seen.add(clip.stem)
            yield from _samples(row, clip, where, asked, labels)
        except DataError as error:
            yield error
        except AspectError as error:
            yield DataError(f"{where}: {error}")


def _asked(header: tuple[str, ...], aspects: Aspects) -> list[Aspect]:
    """The aspects that have a column of scores or levels."""
    return [aspect for name, aspect in aspects.items() if {name, f"{name}_level"} & {*header}]


def _fault(header: tuple[str, ...], aspects: Aspects, labels: str) -> str | None:
    """What is wrong with a header; None where nothing is."""
    paths = [name for name in _PATHS if name in header]
    if len(paths) != 1 or len(set(header)) < len(header):
        return f"expected one column of clips ({' or '.join(_PATHS)}), and none twice"
    endings = [name for name in header if name.endswith(_OF_ASPECTS[1:])]
    of_none = [name for name in endings if name.rpartition("_")[0] not in aspects]
    if of_none or (labels == "require" and not _asked(header, aspects)):
        return f"{', '.join(of_none) or 'no column'} of an aspect; there are {', '.join(aspects)}"
    return None


def is_table_of_clips(header: tuple[str, ...], aspects: Aspects) -> bool:
    """Whether a header has a column of clips and one of an aspect."""
    return not _fault(header, aspects, "require")


def _samples(
    row: dict[str, str], clip: Path, where: str, asked: list[Aspect], labels: str
) -> Iterator[Sample]:
    own = {*_PATHS, "generator", "identity"}
    own |= {aspect.name + of_aspect for aspect in asked for of_aspect in _OF_ASPECTS}
    slots = {name: text for name, text in row.items() if name not in own}
    known = {"video": clip.stem, "path": clip, "slots": slots, "where": where}
    if "generator" in row or "identity" in row:
        known["origin"] = Origin(row.get("generator", ""), row.get("identity") or clip.stem)
    values, stds, levels = {}, {}, {}
    for aspect in asked if labels == "require" else ():
        name = aspect.name
        if (value := _number(row, name, where)) is not None:
            if not aspect.scale.holds(value):
                raise DataError(
                    f"{where}: {name} is {value:g}, expected {aspect.scale.minimum:g} to "
                    f"{aspect.scale.maximum:g}"
                )
            values[name] = value
            if aspect.scale.edges:
                levels[name] = aspect.scale.level(value)
        if (std := _number(row, f"{name}_std", where)) is not None:
            stds[name] = std
        if word := row.get(f"{name}_level"):
            if word not in aspect.scale.levels:
                words = ", ".join(aspect.scale.levels) or "no level"
                raise DataError(f"{where}: {name}_level is {word!r}, expected {words}")
            levels[name] = word
    if labels == "require" and not (values or levels):
        raise DataError(f"{where}: neither a score nor a level; fill one in, or remove the row")
    for aspect in asked:
        level = levels.get(aspect.name)
        if labels == "ignore" or level or aspect.name in values:
            yield Sample(
                **known,
                task=aspect.name,
                prompt=aspect.question(slots),
                reply=level_reply(aspect, level, slots=slots) if level else None,
                values=values,
                stds=stds,
                levels=levels,
            )


def _number(row: dict[str, str], column: str, where: str) -> float | None:
    """The number in a cell; None where it is empty or there is no such column."""
    text = row.get(column)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {column} is {text!r}, expected a number or an empty cell")
    return number
