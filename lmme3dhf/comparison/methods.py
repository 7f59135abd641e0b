"""What any method says about the videos: our records, a CSV or JSONL made by hand, or a folder of
maps.

Nothing is left out silently: a labelled video without a prediction is an error, or counted in a
note where that is allowed, and so is every prediction for a video that is not in the test set.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmme3dhf.annotations.descriptions import parse_distortions
from lmme3dhf.aspects import GEN3DHF, Aspects
from lmme3dhf.errors import UserError
from lmme3dhf.predictions import FIELDS, Prediction, map_path, predicted, read_predictions
from lmme3dhf.reports.evaluation import Method
from lmme3dhf.sheets import read_sheet

STATUSES = ("retrained", "external")  # what somebody else's predictions can be
MAP_SUFFIXES = (".png", ".jpg", ".jpeg", ".npy")
VIDEO_KEYS = ("video", "file")
ANSWER_KEYS = ("distortions", "reply", "text")
# Columns of our own CSV of `lmme3dhf score` that hold no prediction of the tables.
OTHER_KEYS = ("status", "reason", "message", "map", "decoder")


class ComparisonError(UserError, ValueError):
    """A run, a data set or predictions that cannot be compared; the message says where, what was
    expected and how to go on.
    """


def of_records(
    records: Iterable[Prediction],
    path: Path,
    *,
    name: str | None = None,
    status: str,
    aspects: Aspects = GEN3DHF,
) -> Method:
    """The method behind prediction records.

    Args:
        records: The records of a single method. Videos that it could not predict have no
            prediction here; a note names them.
        path: Their file, from which the maps' paths count.
        name: As in the tables; None for the name in the records.
        status: See `Method`.
        aspects: What was rated, whose level words count where there is no score.

    Raises:
        ComparisonError: No records, or those of several methods.
    """
    records = list(records)
    methods = sorted({record.method for record in records})
    if len(methods) != 1:
        raise ComparisonError(
            f"{path}: records of {len(methods)} methods ({', '.join(methods)}); expected one a file"
        )
    method = Method(name=name or methods[0], path=path, status=status)
    records, failed = predicted(records)
    notes = []
    if failed:
        video, first = next(iter(failed.items()))
        notes.append(
            f"{len(failed)} videos could not be predicted, the first is {video} ({first.reason})"
        )
    if any(r.score is None and r.level is not None for r in records):
        notes.append(f"records without a score count by their level word, {_counted(aspects)}")
    for record in records:
        score = record.score
        if score is None and record.level is not None:
            score = _number_of(record.level, record.dimension, aspects)
        if score is not None:
            method.scores.setdefault(record.dimension, {})[record.video] = score
        if record.distortions is not None:
            method.answers[record.video] = _most_likely_first(record)
        if record.map is not None:
            method.maps[record.video] = map_path(record, path)
    return replace(method, notes=tuple(notes))


def _most_likely_first(record: Prediction) -> tuple[str, ...]:
    odds = record.distortion_log_odds or {}
    if not set(record.distortions) <= set(odds):
        return record.distortions
    return tuple(sorted(record.distortions, key=lambda name: -odds[name]))


def level_expectations(path: Path, aspects: Aspects = GEN3DHF) -> Method | None:
    """The mean level, the lowest 1, under the level probabilities of our records: what the
    words alone say. None where a record has none.

    Args:
        path: Predictions file of a run of ours.
        aspects: What was rated.
    """
    records, _ = predicted(read_predictions(path))
    if not records or any(r.level_probabilities is None for r in records):
        return None
    method = Method(name=f"{records[0].method}, level probabilities", path=path, status="real")
    for record in records:
        mean = sum(
            _number_of(word, record.dimension, aspects) * p
            for word, p in record.level_probabilities.items()
        )
        method.scores.setdefault(record.dimension, {})[record.video] = mean
    scales = [aspects[name].scale for name in method.scores]
    five = "five " if all(len(scale.levels) == 5 for scale in scales) else ""
    note = f"score: the mean level under the probabilities of the {five}words"
    return replace(method, notes=(note,))


def read_method(
    name: str,
    path: Path,
    known: Collection[str],
    *,
    status: str = "external",
    lower_is_better: bool = False,
    aspects: Aspects = GEN3DHF,
) -> Method:
    """Reads anybody's predictions.

    Args:
        name: As in the tables.
        path: A folder of maps (`VIDEO.png`, `.jpg` or `.npy`); a CSV with a column `video` and
            an aspect's name (`quality`), `distortions` or `reply`, or with `video,dimension,score`;
            the CSV of `lmme3dhf score`; JSONL with our records, or with objects of the same keys as
            the CSV. `video` may have a folder and a suffix. Scores may be level words. Further
            columns are named in a note.
        known: The test videos; names are matched with them.
        status: One of `STATUSES`.
        lower_is_better: Whether its scores run against the aspects' scales.
        aspects: What was rated.

    Raises:
        ComparisonError: With path and line: not readable, no column that could be used, a score
            that is no finite number, or a second prediction for a video.
    """
    if status not in STATUSES:
        raise ComparisonError(f"status {status!r} of {name} is not one of {', '.join(STATUSES)}")
    if path.is_dir():
        method = _map_folder(name, path, known)
    elif not path.is_file():
        raise ComparisonError(f"{path}: no such file or folder with predictions of {name}")
    elif path.suffix.lower() == ".csv":
        method = _of_rows(name, path, _csv_rows(path), known, aspects)
    elif path.suffix.lower() in (".jsonl", ".json"):
        objects = list(_json_rows(path))
        if objects and "method" in objects[0][1]:
            records = read_predictions(path)
            method = of_records(records, path, name=name, status=status, aspects=aspects)
        else:
            method = _of_rows(name, path, objects, known, aspects)
    else:
        raise ComparisonError(
            f"{path}: {path.suffix or 'no suffix'}; expected .csv, .jsonl or a folder of maps"
        )
    outside = sorted(method.videos - set(known))
    notes = list(method.notes)
    if outside:
        notes.append(
            f"{len(outside)} videos of its file are not in the test set and left out, the first is "
            f"{outside[0]}"
        )
    return replace(method, status=status, lower_is_better=lower_is_better, notes=tuple(notes))


def _csv_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    sheet = read_sheet(
        path,
        ComparisonError,
        fits=lambda header: any(name.casefold() in VIDEO_KEYS for name in header),
    )
    header = [name.casefold() for name in sheet.header]
    twice = sorted({key for key in header if header.count(key) > 1})
    if twice:
        raise ComparisonError(f"{path}:1: column {twice[0]!r} is there twice; keep one")
    if not sheet.rows:
        raise ComparisonError(f"{path}: no rows below the header")
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in sheet.rows]


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            content = json.loads(text.decode("utf-8-sig"))
        except ValueError as error:
            raise ComparisonError(
                f"{path}:{line}: not a JSON object in UTF-8 ({error}); each line holds one"
            ) from error
        if not isinstance(content, dict):
            raise ComparisonError(
                f"{path}:{line}: {type(content).__name__}, expected a JSON object a line"
            )
        yield line, {str(key).casefold(): value for key, value in content.items()}


def _of_rows(
    name: str,
    path: Path,
    rows: Iterable[tuple[int, dict[str, Any]]],
    known: Collection[str],
    aspects: Aspects,
) -> Method:
    rows = list(rows)
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    video_key = next((key for key in VIDEO_KEYS if key in keys), None)
    long_form = "dimension" in keys and "score" in keys
    used = [key for key in (*aspects, *ANSWER_KEYS) if key in keys]
    if video_key is None or not (used or long_form):
        raise ComparisonError(
            f"{path}:1: keys {', '.join(keys) or 'none'}; expected video, and "
            f"{', '.join(aspects)}, distortions or reply, or video, dimension and score"
        )
    our_table = {"status", "reason"} <= set(keys)
    method, seen, words, failed = Method(name=name, path=path), {}, 0, 0
    for line, row in rows:
        where = f"{path}:{line}"
        video = video_name(row.get(video_key), known)
        if not video:
            raise ComparisonError(f"{where}: no video is named; name it in {video_key!r}")
        if our_table and row.get("status") == "failed":
            failed += 1
            continue
        cells = {name: row.get(name) for name in aspects}
        dimension = ""
        if long_form:
            dimension = str(row.get("dimension") or "").casefold()
            if dimension not in aspects:
                raise ComparisonError(
                    f"{where}: dimension {dimension!r} is not one of {', '.join(aspects)}"
                )
            cells[dimension] = row.get("score")
        if (video, dimension) in seen:
            raise ComparisonError(
                f"{where}: {video} is there a second time, first in line "
                f"{seen[video, dimension]}; keep one"
            )
        seen[video, dimension] = line
        for which, cell in cells.items():
            if cell is None or cell == "":
                continue
            score, is_word = _score(
                cell, aspects[which].scale.levels, f"{where}: {which} of {video}"
            )
            words += is_word
            method.scores.setdefault(which, {})[video] = score
        answer = _answer(row)
        if answer is not None:
            method.answers[video] = answer
    notes = []
    if words:
        notes.append(f"level words count {_counted(aspects)}")
    if failed:
        notes.append(f"{failed} files of its table could not be scored")
    ours = (*OTHER_KEYS, *(f"{aspect}_level" for aspect in aspects))
    used = (*VIDEO_KEYS, *aspects, "score", "dimension", *ANSWER_KEYS, *ours)
    ignored = [k for k in keys if not (k in used or (k in FIELDS and "method" in keys))]
    if ignored:
        notes.append(f"columns not used: {', '.join(ignored)}")
    return replace(method, notes=tuple(notes))


def video_name(text: object, known: Collection[str]) -> str:
    """The name of a video, without folder and suffix; as it stands where a known video has just
    this name. Empty where there is none.
    """
    last = re.split(r"[/\\]", str(text or "").strip())[-1]
    return last if last in known else Path(last).stem


def _number_of(word: str, aspect: str, aspects: Aspects) -> float:
    """The place of a level word, the lowest 1."""
    levels = aspects[aspect].scale.levels if aspect in aspects else ()
    if word not in levels:
        raise ComparisonError(
            f"level word {word!r} of {aspect}: expected one of {', '.join(levels) or 'none'}; give "
            "the aspects that the predictions were made for (aspects.yaml of the data set)"
        )
    return levels.index(word) + 1.0


def _counted(aspects: Aspects) -> str:
    """What level words count as, "bad 1 to excellent 5"."""
    scales = dict.fromkeys(a.scale.levels for a in aspects.values() if a.scale.levels)
    return ", or ".join(f"{words[0]} 1 to {words[-1]} {len(words)}" for words in scales)


def _score(cell: object, levels: Sequence[str], where: str) -> tuple[float, bool]:
    """The number in a cell, and whether it was a level word."""
    word = str(cell).strip().casefold()
    if word in levels:
        return levels.index(word) + 1.0, True
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ComparisonError(
            f"{where} is {str(cell)[:40]!r}, expected a finite number or a level word; leave the "
            "cell empty where there is no score"
        )
    return value, False


def _answer(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    given = [row[key] for key in ANSWER_KEYS if row.get(key) is not None]
    if not given:
        return None
    text = given[0]
    return parse_distortions("\n".join(text) if isinstance(text, list) else str(text)).named


def _map_folder(name: str, folder: Path, known: Collection[str]) -> Method:
    maps: dict[str, Path] = {}
    other = 0
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix.lower() not in MAP_SUFFIXES:
            other += 1
            continue
        video = video_name(path.stem, known)
        if video in maps:
            raise ComparisonError(
                f"{folder}: two maps of {video}, {maps[video].name} and {path.name}; keep one"
            )
        maps[video] = path
    if not maps:
        raise ComparisonError(
            f"{folder}: no maps; expected VIDEO with one of {', '.join(MAP_SUFFIXES)}"
        )
    notes = (f"{other} files of its folder are no maps",) if other else ()
    return Method(name=name, path=folder, maps=maps, notes=notes)


def read_map(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """A map of any method at the ground truth's size, and whether it had another size.

    Pictures of 8 or 16 bits count 0..1, colour by its grey value; arrays count as they are. Other
    sizes are resized with Pillow's bilinear filter.

    Args:
        path: `.png`, `.jpg` or `.npy`.
        shape: Height and width of the ground truth, px.

    Raises:
        ComparisonError: Cannot be read, is no map, or holds negative or non-finite values.
    """
    try:
        if path.suffix.lower() == ".npy":
            map_HW = np.load(path, allow_pickle=False)
        else:
            map_HW = _picture(path)
    except FileNotFoundError as error:
        raise ComparisonError(f"{path}: no such map; predict it, or correct the path") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ComparisonError(
            f"{path}: cannot be read as a map ({error}); write it again"
        ) from error
    if map_HW.ndim != 2 or map_HW.size == 0 or map_HW.dtype.kind not in "fiub":
        raise ComparisonError(
            f"{path}: {map_HW.dtype} array of shape {map_HW.shape}, expected one (height, width)"
        )
    map_HW = map_HW.astype(np.float32)
    if not np.isfinite(map_HW).all() or map_HW.min() < 0:
        raise ComparisonError(
            f"{path}: values that are negative or not finite; a map holds densities of at least 0"
        )
    if map_HW.shape == tuple(shape):
        return map_HW, False
    resized = Image.fromarray(map_HW).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32), True


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        if picture.mode.startswith("I"):  # 16 bits; Pillow also opens them as 32
            return np.asarray(picture, dtype=np.float32) / 65535
        return np.asarray(picture.convert("L"), dtype=np.float32) / 255


def covered(
    videos: Iterable[str],
    have: Collection[str],
    method: Method,
    what: str,
    *,
    allow_missing: bool = False,
) -> tuple[list[str], tuple[str, ...]]:
    """The videos that a method can be tested on, and a note on those that it lacks.

    Args:
        videos: The labelled videos.
        have: Those with a prediction.
        method: Whose.
        what: Of what kind, "quality score".
        allow_missing: Leave videos without a prediction out, and say how many.

    Raises:
        ComparisonError: Some are missing and must not be, or all are.
    """
    videos = list(videos)
    missing = [video for video in videos if video not in have]
    if not missing:
        return videos, ()
    named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    if not allow_missing or len(missing) == len(videos):
        onward = "" if len(missing) == len(videos) else "; --allow_missing leaves them out"
        raise ComparisonError(
            f"{method.path}: {len(missing)} of {len(videos)} labelled videos have no {what} by "
            f"{method.name} ({named}); predict them{onward}"
        )
    note = f"without {len(missing)} of {len(videos)} test videos that have no {what} ({named})"
    return [video for video in videos if video in have], (note,)
