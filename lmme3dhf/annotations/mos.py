"""Opinion scores from raw ratings (paper, Section 3.3, Eq. 1-3).

Each subject's slider ratings of one dimension are standardised over the videos that this subject
judged, mapped linearly to 0..100, and averaged per video over the subjects. Array legend: S
subjects, V videos.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmme3dhf.annotations import AnnotationError, csv_rows
from lmme3dhf.vocabulary import DIMENSIONS

RATING_COLUMNS = ("subject", "video", "dimension", "rating")
SLIDER_MAXIMUM = 5.0  # paper, Section 3.2: sliders from 0 to 5


@dataclass(frozen=True)
class Ratings:
    """The raw ratings of one dimension.

    Attributes:
        dimension: One of `DIMENSIONS`.
        subjects: Names of the S subjects.
        videos: Names of the V videos.
        rating_SV: Ratings in 0..5, NaN where a subject did not rate a video.
    """

    dimension: str
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    rating_SV: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.subjects), len(self.videos))
        if self.rating_SV.shape != expected:
            raise AnnotationError(
                f"{self.dimension} ratings: the table is {self.rating_SV.shape}, expected "
                f"{expected}, subjects by videos"
            )


@dataclass(frozen=True)
class OpinionScores:
    """The scores of one dimension.

    Attributes:
        videos: Names of the V videos, in the order of the ratings.
        mos_V: Mean opinion scores on the 0..100 scale; an extreme video of a generous scale can lie
            a little outside.
        std_V: Standard deviation (ddof 1) over subjects on the same scale; NaN where a single
            subject counts.
        count_V: Number of subjects behind each score.
        left_out: Subject that could not be standardised -> the reason.
    """

    videos: tuple[str, ...]
    mos_V: np.ndarray
    std_V: np.ndarray
    count_V: np.ndarray
    left_out: dict[str, str]


def read_ratings(path: Path) -> dict[str, Ratings]:
    """Reads the long table `subject,video,dimension,rating` into one `Ratings` per dimension that
    occurs in it.

    Subjects and videos are sorted by name, so the order of the rows does not matter. A missing
    rating is a missing row.

    Raises:
        AnnotationError: With path and line: wrong header, empty name, unknown dimension, rating
            that is no number or outside 0..5, a second rating of the same subject, video and
            dimension, or a table without any row.
    """
    ratings: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for line, (subject, video, dimension, text) in csv_rows(path, RATING_COLUMNS):
        if not subject or not video:
            raise AnnotationError(f"{path}:{line}: subject or video is empty; name both")
        if dimension not in DIMENSIONS:
            raise AnnotationError(
                f"{path}:{line}: dimension {dimension!r} is not one of {', '.join(DIMENSIONS)}"
            )
        try:
            rating = float(text)
        except ValueError:
            rating = math.nan
        if not math.isfinite(rating):
            raise AnnotationError(
                f"{path}:{line}: rating {text!r} is not a number; remove the row where the "
                "subject did not rate the video"
            )
        if not 0 <= rating <= SLIDER_MAXIMUM:
            raise AnnotationError(
                f"{path}:{line}: rating {text} is outside the slider's 0..{SLIDER_MAXIMUM:g}"
            )
        if (subject, video) in ratings[dimension]:
            raise AnnotationError(
                f"{path}:{line}: subject {subject!r} has already rated the {dimension} of "
                f"{video!r}; keep one of the two rows"
            )
        ratings[dimension][subject, video] = rating
    if not ratings:
        raise AnnotationError(
            f"{path}: no ratings below the header; expected rows of {','.join(RATING_COLUMNS)}"
        )
    return {
        dimension: _table(dimension, ratings[dimension])
        for dimension in DIMENSIONS
        if dimension in ratings
    }


def _table(dimension: str, ratings: dict[tuple[str, str], float]) -> Ratings:
    subjects = tuple(sorted({subject for subject, _ in ratings}))
    videos = tuple(sorted({video for _, video in ratings}))
    row = {subject: index for index, subject in enumerate(subjects)}
    column = {video: index for index, video in enumerate(videos)}
    rating_SV = np.full((len(subjects), len(videos)), np.nan)
    for (subject, video), rating in ratings.items():
        rating_SV[row[subject], column[video]] = rating
    return Ratings(dimension, subjects, videos, rating_SV)


def mean_opinion_scores(ratings: Ratings) -> OpinionScores:
    """Mean opinion scores by Eq. 1-3: z per subject, 100 * (z + 3) / 6, mean over the subjects who
    rated the video.

    A subject who rated fewer than two videos, or all of them alike, has no standard deviation and
    is left out, by name and with the reason. Nobody is left out for disagreeing with the others.

    Raises:
        AnnotationError: A video has no rating by any subject that counts.
    """
    rating_SV = ratings.rating_SV
    left_out = {}
    for subject, rating_V in zip(ratings.subjects, rating_SV, strict=True):
        given = rating_V[~np.isnan(rating_V)]
        if len(given) < 2:
            left_out[subject] = (
                f"rated {len(given)} of {len(ratings.videos)} videos; two are needed for a "
                "standard deviation"
            )
        elif given.min() == given.max():
            left_out[subject] = f"gave all {len(given)} videos the same rating, {given[0]:g}"
    counts_S = np.array([subject not in left_out for subject in ratings.subjects], dtype=bool)
    rating_SV = rating_SV[counts_S]

    count_V = np.count_nonzero(~np.isnan(rating_SV), axis=0)
    unrated = [video for video, count in zip(ratings.videos, count_V, strict=True) if count == 0]
    if unrated:
        raise AnnotationError(
            f"{ratings.dimension} ratings: {len(unrated)} of {len(ratings.videos)} videos have no "
            f"rating that counts, first {', '.join(unrated[:3])} ({len(left_out)} of "
            f"{len(ratings.subjects)} subjects could not be standardised); collect ratings for "
            "these videos or remove them"
        )

    # Departure D6: the paper prints sigma_I and mu_ij in Eq. 1 and 1/N in Eq. 2; mean and deviation
    # here are the subject's own, over the N_i videos that this subject rated.
    # Departure D7: Eq. 3 prints 1/N and no sum; here it is the mean over the subjects who rated.
    mean_S1 = np.nanmean(rating_SV, axis=1, keepdims=True)
    deviation_S1 = np.nanstd(rating_SV, axis=1, keepdims=True, ddof=1)
    scaled_SV = 100 * ((rating_SV - mean_S1) / deviation_S1 + 3) / 6
    mos_V = np.nanmean(scaled_SV, axis=0)
    squares_V = np.nansum((scaled_SV - mos_V) ** 2, axis=0)
    std_V = np.sqrt(
        np.divide(squares_V, count_V - 1, out=np.full(len(mos_V), np.nan), where=count_V > 1)
    )
    return OpinionScores(ratings.videos, mos_V, std_V, count_V, left_out)
