"""Tables of raw ratings (paper, Section 3.2) and their z-scores (Section 3.3, Eq. 1-2).

For each aspect a subject moves a slider, or gives a mark, for every video; Gen3DHF's sliders go
from 0 to 5. Array legend: S subjects, V videos.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmme3dhf.annotations import AnnotationError, header_advice, other_scale
from lmme3dhf.aspects import GEN3DHF, Aspect, AspectError, Aspects, Scale
from lmme3dhf.sheets import Sheet, read_sheet

# The third column, and the second one, may be called "aspect" as well.
LONG_COLUMNS = ("subject", "video", "dimension", "rating")
WIDE_COLUMNS = ("video", "dimension")  # then one column for each subject
BY_ASPECT = ("subject", "video")  # then one column for each aspect
ORIGIN_COLUMNS = ("generator", "identity")  # of the video, may stand in any table beside the others
SLIDER = Scale(minimum=0, maximum=5, levels=())  # paper, Section 3.2: sliders from 0 to 5
SLIPS = 0.2  # a larger share of ratings beyond a scale is another scale

Cell = tuple[int, str, str, str, str]  # line, subject, video, aspect, rating as written


@dataclass(frozen=True)
class Ratings:
    """The raw ratings of one aspect.

    Attributes:
        aspect: Its name.
        subjects: Names of the S subjects, at least one.
        videos: Names of the V videos, at least one.
        rating_SV: Ratings, NaN where a subject did not rate a video.
        slider: What the subjects could give.
        scale: Where the scores that are made of the ratings live.
    """

    aspect: str
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    rating_SV: np.ndarray
    slider: Scale = SLIDER
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        expected = (len(self.subjects), len(self.videos))
        if self.rating_SV.shape != expected or 0 in expected:
            raise AnnotationError(
                f"{self.aspect} ratings: the table is {self.rating_SV.shape}, expected "
                f"{expected}, subjects by videos, at least one of each"
            )


def read_ratings(path: Path, aspects: Aspects = GEN3DHF) -> dict[str, Ratings]:
    """Reads a table of ratings into one `Ratings` per aspect that occurs in it.

    The header says which of three forms it has:

    - long, `subject,video,dimension,rating`: a row for every rating, with the aspect's name;
    - by aspect, `subject,video,<aspect>,<aspect>,...`: a column for every aspect;
    - wide, `video,dimension,<subject>,<subject>,...`: a row for every video and aspect, a column
      for every subject.

    The columns `generator` and `identity` are passed over, see `read_origins`. Separators, decimal
    commas and encodings are those of `sheets.read_sheet`. A missing rating is
    an empty cell, or a missing row. Subjects and videos are sorted by name, so the order of rows
    and columns does not matter.

    What the subjects could give is 0 to 5 for the aspects of Gen3DHF on its own scale. For others
    it is the aspect's scale where the ratings lie on it, else from the lowest to the highest rating
    of the aspect in the file.

    Raises:
        AnnotationError: With path and line: a header of another form, two columns of one subject,
            an empty name, unknown aspect, rating that is no number or not on the slider, a second
            rating of the same subject, video and aspect, ratings on another scale as a whole, or
            none that differ.
        FileNotFoundError: No such file.
    """
    sheet = read_sheet(
        path, AnnotationError, fits=lambda header: is_ratings(header, aspects), advice=_advice
    )
    cells = list(_cells(path, sheet))
    sliders = _sliders(path, cells, aspects)
    ratings: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    lines: dict[tuple[str, str, str], int] = {}
    for line, subject, video, aspect, text in cells:
        if not subject or not video:
            raise AnnotationError(f"{path}:{line}: subject or video is empty; name both")
        if aspect not in aspects:
            raise AnnotationError(
                f"{path}:{line}: aspect {aspect!r} is not one of {', '.join(aspects)}; correct it, "
                "or declare it (--aspects FILE)"
            )
        first = lines.setdefault((subject, video, aspect), line)
        if first != line:
            raise AnnotationError(
                f"{path}:{line}: subject {subject!r} has already rated the {aspect} of "
                f"{video!r} in line {first}; keep one of the two rows"
            )
        ratings[aspect][subject, video] = _rating(f"{path}:{line}", text, sliders[aspect])
    if not any(not math.isnan(r) for table in ratings.values() for r in table.values()):
        raise AnnotationError(
            f"{path}: no ratings below the header; expected rows of {','.join(sheet.header)}"
        )
    return {
        name: _table(aspect, ratings[name], sliders[name])
        for name, aspect in aspects.items()
        if name in ratings
    }


def read_origins(path: Path) -> dict[str, tuple[str, str]]:
    """Video -> generator and identity, from the columns that a table of ratings may have; an empty
    text for a column that it has not, and no video where it has neither.

    Raises:
        AnnotationError: With path and line: a video with two generators or identities, or as
            `read_ratings` for what is no table.
        FileNotFoundError: No such file.
    """
    sheet = read_sheet(path, AnnotationError, fits=lambda header: "video" in header)
    found: dict[str, tuple[str, str]] = {}
    if not {*ORIGIN_COLUMNS} & {*sheet.header}:
        return found
    for line, cells in sheet.rows:
        row = dict(zip(sheet.header, cells, strict=True))
        origin = tuple(row.get(name, "") for name in ORIGIN_COLUMNS)
        if found.setdefault(row["video"], origin) != origin:
            raise AnnotationError(
                f"{path}:{line}: {row['video']!r} has {' and '.join(origin)} here, and "
                f"{' and '.join(found[row['video']])} in a row before; correct one of them"
            )
    return found


def is_ratings(header: tuple[str, ...], aspects: Aspects) -> bool:
    """Whether a table with this header holds ratings of these aspects."""
    header = tuple(name for name in header if name not in ORIGIN_COLUMNS)
    begin, rest = _begin(header), {*header[2:]}
    if begin == LONG_COLUMNS or not rest or rest & {*LONG_COLUMNS}:
        return begin == LONG_COLUMNS
    return begin[:2] == WIDE_COLUMNS or (begin[:2] == BY_ASPECT and rest <= {*aspects})


def _begin(header: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("dimension" if name == "aspect" else name for name in header)


def _advice(header: tuple[str, ...]) -> str:
    if {*LONG_COLUMNS} < {*header}:
        return header_advice(header, LONG_COLUMNS)
    return (
        f"expected {','.join(LONG_COLUMNS)!r} (one rating a row), "
        f"{','.join(BY_ASPECT) + ',<aspect>,<aspect>,...'!r} (one subject and video a row) or "
        f"{','.join(WIDE_COLUMNS) + ',<subject>,<subject>,...'!r} (one video a row); correct the "
        "first line"
    )


def _cells(path: Path, sheet: Sheet) -> Iterator[Cell]:
    kept = [i for i, name in enumerate(sheet.header) if name not in ORIGIN_COLUMNS]
    rows = [(line, tuple(cells[i] for i in kept)) for line, cells in sheet.rows]
    sheet = Sheet(tuple(sheet.header[i] for i in kept), rows)
    if _begin(sheet.header) == LONG_COLUMNS:
        yield from ((line, *cells) for line, cells in sheet.rows)
        return
    names, by_subject = sheet.header[2:], sheet.header[0] == WIDE_COLUMNS[0]
    for index, name in enumerate(names):
        what = "subject" if by_subject else "aspect"
        if not name:
            raise AnnotationError(f"{path}:1: column {index + 3} has no name; name its {what}")
        if name in names[:index]:
            raise AnnotationError(
                f"{path}:1: column {index + 3} is {what} {name!r} a second time; rename or remove "
                "one of the two"
            )
    for line, (first, second, *texts) in sheet.rows:
        for name, text in zip(names, texts, strict=True):
            if by_subject:
                yield line, name, first, second, text
            else:
                yield line, first, second, name, text


def _sliders(path: Path, cells: list[Cell], aspects: Aspects) -> dict[str, Scale]:
    """Aspect -> what its subjects could give. Refuses an aspect of Gen3DHF that was rated on
    another scale as a whole; single values outside are refused with their line.
    """
    found: dict[str, list[float]] = {name: [] for name in aspects}
    for *_, name, text in cells:
        with suppress(ValueError, KeyError):
            found[name].append(float(text))
    sliders = {}
    for name, values in found.items():
        known, scale = GEN3DHF.get(name), aspects[name].scale
        if known and (known.scale.minimum, known.scale.maximum) == (scale.minimum, scale.maximum):
            sliders[name] = SLIDER
            if other := other_scale(values, SLIDER):
                raise AnnotationError(f"{path}: the {name} ratings {other}")
            continue
        sliders[name] = scale
        beyond = sum(not scale.holds(value) for value in values)
        if other_scale(values, scale) or beyond > SLIPS * len(values):
            ends = {"minimum": min(values), "maximum": max(values)}
            try:
                sliders[name] = Scale(**ends, levels=())
            except AspectError as error:
                raise AnnotationError(
                    f"{path}: the {name} ratings are from {ends['minimum']:g} to "
                    f"{ends['maximum']:g}; scores need finite numbers that differ"
                ) from error
    return sliders


def _rating(place: str, text: str, slider: Scale) -> float:
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
    if not slider.holds(rating):
        raise AnnotationError(
            f"{place}: rating {text} is outside the slider's {slider.minimum:g}.."
            f"{slider.maximum:g}; correct it, or leave the cell empty"
        )
    return rating


def _table(aspect: Aspect, ratings: dict[tuple[str, str], float], slider: Scale) -> Ratings:
    subjects = tuple(sorted({subject for subject, _ in ratings}))
    videos = tuple(sorted({video for _, video in ratings}))
    row = {subject: index for index, subject in enumerate(subjects)}
    column = {video: index for index, video in enumerate(videos)}
    rating_SV = np.full((len(subjects), len(videos)), np.nan)
    for (subject, video), rating in ratings.items():
        rating_SV[row[subject], column[video]] = rating
    return Ratings(aspect.name, subjects, videos, rating_SV, slider, aspect.scale)


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
