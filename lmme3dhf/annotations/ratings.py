"""Tables of raw ratings (paper, Section 3.2) and their z-scores (Section 3.3, Eq. 1-2).

In each dimension a subject moves a slider from 0 to 5 for every video. Array legend: S subjects, V
videos.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmme3dhf.annotations import AnnotationError, header_advice, other_scale
from lmme3dhf.sheets import Sheet, read_sheet
from lmme3dhf.vocabulary import DIMENSIONS

LONG_COLUMNS = ("subject", "video", "dimension", "rating")
WIDE_COLUMNS = ("video", "dimension")  # then one column for each subject
SLIDER_MAXIMUM = 5.0  # paper, Section 3.2: sliders from 0 to 5


@dataclass(frozen=True)
class Ratings:
    """The raw ratings of one dimension.

    Attributes:
        dimension: One of `DIMENSIONS`.
        subjects: Names of the S subjects, at least one.
        videos: Names of the V videos, at least one.
        rating_SV: Ratings in 0..5, NaN where a subject did not rate a video.
    """

    dimension: str
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    rating_SV: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.subjects), len(self.videos))
        if self.rating_SV.shape != expected or 0 in expected:
            raise AnnotationError(
                f"{self.dimension} ratings: the table is {self.rating_SV.shape}, expected "
                f"{expected}, subjects by videos, at least one of each"
            )


def read_ratings(path: Path) -> dict[str, Ratings]:
    """Reads a table of ratings into one `Ratings` per dimension that occurs in it.

    The header tells which of two forms it has:

    - long, `subject,video,dimension,rating`: a row for every rating;
    - wide, `video,dimension,<subject>,<subject>,...`: a row for every video and dimension, a column
      for every subject.

    Separators, decimal commas and encodings are those of `sheets.read_sheet`.

    A missing rating is an empty cell, or in the long form also a missing row. Subjects and videos
    are sorted by name, so the order of rows and columns does not matter.

    Raises:
        AnnotationError: With path and line: a header of neither form, two columns of one subject,
            an empty name, unknown dimension, rating that is no number or outside 0..5, a second
            rating of the same subject, video and dimension, ratings on another scale than 0..5, or
            a table without any rating.
        FileNotFoundError: No such file.
    """
    sheet = read_sheet(path, AnnotationError, fits=_fits, advice=_advice)
    header = sheet.header
    cells = list(_long_cells(sheet) if header == LONG_COLUMNS else _wide_cells(path, sheet))
    _check_scales(path, cells)
    ratings: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    lines: dict[tuple[str, str, str], int] = {}
    for line, subject, video, dimension, text in cells:
        if not subject or not video:
            raise AnnotationError(f"{path}:{line}: subject or video is empty; name both")
        if dimension not in DIMENSIONS:
            raise AnnotationError(
                f"{path}:{line}: dimension {dimension!r} is not one of {', '.join(DIMENSIONS)}; "
                "correct it"
            )
        first = lines.setdefault((subject, video, dimension), line)
        if (subject, video) in ratings[dimension]:
            raise AnnotationError(
                f"{path}:{line}: subject {subject!r} has already rated the {dimension} of "
                f"{video!r} in line {first}; keep one of the two rows"
            )
        ratings[dimension][subject, video] = _rating(f"{path}:{line}", text)
    if not any(not math.isnan(r) for table in ratings.values() for r in table.values()):
        raise AnnotationError(
            f"{path}: no ratings below the header; expected rows of {','.join(header)}"
        )
    return {
        dimension: _table(dimension, ratings[dimension])
        for dimension in DIMENSIONS
        if dimension in ratings
    }


def _fits(header: tuple[str, ...]) -> bool:
    names = header[len(WIDE_COLUMNS) :]
    wide = header[: len(WIDE_COLUMNS)] == WIDE_COLUMNS and names and not {*names} & {*LONG_COLUMNS}
    return header == LONG_COLUMNS or bool(wide)


def _advice(header: tuple[str, ...]) -> str:
    if {*LONG_COLUMNS} < {*header}:
        return header_advice(header, LONG_COLUMNS)
    return (
        f"expected {','.join(LONG_COLUMNS)!r} (one rating a row) or "
        f"{','.join(WIDE_COLUMNS) + ',<subject>,<subject>,...'!r} (one video a row); correct the "
        "first line"
    )


Cell = tuple[int, str, str, str, str]  # line, subject, video, dimension, rating as written


def _long_cells(sheet: Sheet) -> Iterator[Cell]:
    for line, (subject, video, dimension, text) in sheet.rows:
        yield line, subject, video, dimension, text


def _wide_cells(path: Path, sheet: Sheet) -> Iterator[Cell]:
    subjects = sheet.header[len(WIDE_COLUMNS) :]
    for index, subject in enumerate(subjects):
        column = len(WIDE_COLUMNS) + index + 1
        if not subject:
            raise AnnotationError(f"{path}:1: column {column} has no name; name its subject")
        if subject in subjects[:index]:
            raise AnnotationError(
                f"{path}:1: column {column} is subject {subject!r} a second time; rename or remove "
                "one of the two"
            )
    for line, (video, dimension, *texts) in sheet.rows:
        for subject, text in zip(subjects, texts, strict=True):
            yield line, subject, video, dimension, text


def _check_scales(path: Path, cells: Iterable[Cell]) -> None:
    """Refuses a dimension that was rated on another scale as a whole; single values outside are
    refused with their line.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for *_, dimension, text in cells:
        with suppress(ValueError):
            found[dimension].append(float(text))
    for dimension, values in found.items():
        other = other_scale(values, SLIDER_MAXIMUM)
        if other:
            raise AnnotationError(f"{path}: the {dimension} ratings {other}")


def _rating(place: str, text: str) -> float:
    if not text:
        return math.nan
    try:
        rating = float(text)
    except ValueError:
        rating = math.nan
    if not math.isfinite(rating):
        raise AnnotationError(
            f"{place}: rating {text!r} is not a number; write 3.5 (3,5 only where ; parts the "
            "columns), or leave the cell empty where the subject did not rate the video"
        )
    if not 0 <= rating <= SLIDER_MAXIMUM:
        raise AnnotationError(
            f"{place}: rating {text} is outside the slider's 0..{SLIDER_MAXIMUM:g}; correct it, or "
            "leave the cell empty"
        )
    return rating


def _table(dimension: str, ratings: dict[tuple[str, str], float]) -> Ratings:
    subjects = tuple(sorted({subject for subject, _ in ratings}))
    videos = tuple(sorted({video for _, video in ratings}))
    row = {subject: index for index, subject in enumerate(subjects)}
    column = {video: index for index, video in enumerate(videos)}
    rating_SV = np.full((len(subjects), len(videos)), np.nan)
    for (subject, video), rating in ratings.items():
        rating_SV[row[subject], column[video]] = rating
    return Ratings(dimension, subjects, videos, rating_SV)


def z_scores(rating_SV: np.ndarray) -> np.ndarray:
    """Each subject's ratings with mean 0 and sample deviation 1 (Eq. 1-2), NaN where missing.

    The whole row is NaN where the subject has no deviation: fewer than two ratings, or all alike.
    """
    # Departure D6: the paper prints sigma_I and mu_ij in Eq. 1 and 1/N in Eq. 2; mean and deviation
    # here are the subject's own, over the N_i videos that this subject rated.
    z_SV = np.full(rating_SV.shape, np.nan)
    # Counted by values: 3.3 three times has a computed deviation of 4e-16, not 0.
    varied_S = [len(np.unique(row[~np.isnan(row)])) > 1 for row in rating_SV]
    varied_SV = rating_SV[varied_S]
    if varied_SV.size:
        mean_S1 = np.nanmean(varied_SV, axis=1, keepdims=True)
        deviation_S1 = np.nanstd(varied_SV, axis=1, keepdims=True, ddof=1)
        z_SV[varied_S] = (varied_SV - mean_S1) / deviation_S1
    return z_SV
