"""Quality levels from opinion scores (paper, Section 4.2, Eq. 4): five equal intervals between the
worst and the best score, or, as an option, five levels with equally many videos.

The edges are fitted on the training split and stored with the data (`levels.json`). Scores live on
the 0..100 scale of the opinion scores; higher is better.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from lmme3dhf.annotations import AnnotationError, json_content, require_known
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS


@dataclass(frozen=True)
class LevelScale:
    """The level edges of one dimension.

    Attributes:
        dimension: One of `DIMENSIONS`.
        edges: Six increasing scores; level i lies above edge i and up to edge i + 1, that edge
            included.
    """

    dimension: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.dimension not in DIMENSIONS:
            raise AnnotationError(
                f"level scale: dimension {self.dimension!r} is not one of {', '.join(DIMENSIONS)}"
            )
        increasing = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        if (
            len(self.edges) != len(LEVELS) + 1
            or not all(math.isfinite(edge) for edge in self.edges)
            or not increasing
        ):
            raise AnnotationError(
                f"{self.dimension} levels: edges {list(self.edges)}, expected {len(LEVELS) + 1} "
                "finite increasing numbers"
            )

    def level(self, mos: float) -> str:
        """The level word of a score; the lowest edge itself is bad, scores beyond the fitted range
        are bad or excellent.

        Raises:
            AnnotationError: The score is NaN or infinite.
        """
        if not math.isfinite(mos):
            raise AnnotationError(
                f"{self.dimension} levels: score {mos} has no level; expected a finite number on "
                "the 0..100 scale"
            )
        # Departure D8: Eq. 4 is open at the minimum, so the worst video of the release has no level
        # ("None"); it is bad here.
        index = bisect_left(self.edges, mos) - 1
        return LEVELS[min(max(index, 0), len(LEVELS) - 1)]

    def soft_label(self, mos: float, std: float) -> tuple[float, ...]:
        """How probable each level is where opinions are normal around the score: the mass of
        N(mos, std^2) between the level's edges, tails counted to bad and excellent.

        Args:
            mos: Mean opinion score.
            std: Standard deviation of the opinions over the subjects, on the same scale; 0 or NaN
                (a single rating) puts all mass on `level(mos)`.

        Returns:
            Five probabilities in the order of `LEVELS`, which sum to 1.

        Raises:
            AnnotationError: The score is not finite, or the deviation is negative or infinite.
        """
        word = self.level(mos)
        if std < 0 or math.isinf(std):
            raise AnnotationError(
                f"{self.dimension} levels: standard deviation {std} of score {mos:g}, expected a "
                "finite number of at least 0"
            )
        if std == 0 or math.isnan(std):
            return tuple(float(level == word) for level in LEVELS)
        below = ndtr((np.array(self.edges[1:-1]) - mos) / std)
        return tuple(np.diff(below, prepend=0.0, append=1.0).tolist())


def _equal_width(mos_V: np.ndarray) -> np.ndarray:
    return np.linspace(mos_V.min(), mos_V.max(), len(LEVELS) + 1)


def _equal_count(mos_V: np.ndarray) -> np.ndarray:
    return np.quantile(mos_V, np.linspace(0, 1, len(LEVELS) + 1))


EDGES = {"equal_width": _equal_width, "equal_count": _equal_count}


def fit_level_scale(mos_V: np.ndarray, dimension: str, edges: str = "equal_width") -> LevelScale:
    """Fits the edges on the given scores, which should be the training split's.

    Args:
        mos_V: Scores, 0..100.
        dimension: One of `DIMENSIONS`.
        edges: "equal_width" is Eq. 4, five equal intervals between minimum and maximum;
            "equal_count" puts a fifth of the scores into each level (the released scores have 85 %
            of quality in the two best levels of Eq. 4).

    Raises:
        AnnotationError: Unknown `edges`, no scores, scores that are not finite, scores that are all
            alike, or for equal counts so many alike that two edges fall together.
    """
    require_known("edges", edges, EDGES)
    mos_V = np.asarray(mos_V, dtype=float)
    if mos_V.size == 0 or not np.isfinite(mos_V).all():
        raise AnnotationError(
            f"{dimension} levels: expected at least two finite scores, got {mos_V.size} with "
            f"{np.count_nonzero(~np.isfinite(mos_V))} that are not finite"
        )
    low, high = float(mos_V.min()), float(mos_V.max())
    if math.isclose(low, high, abs_tol=1e-9):  # means of the same opinions differ by rounding
        alike = f"all {mos_V.size} scores are" if mos_V.size > 1 else "the only score is"
        raise AnnotationError(
            f"{dimension} levels: {alike} {low:g}; five levels need scores that differ, add videos"
        )
    # Departure D8: Eq. 4 prints the upper bound of every level as 1/5 of the range; i/5 is meant,
    # as in the released labels.
    fitted = EDGES[edges](mos_V)
    if (np.diff(fitted) <= 0).any():
        raise AnnotationError(
            f"{dimension} levels: edges {fitted.tolist()}, expected {len(LEVELS) + 1} finite "
            f"increasing numbers; too many of the {mos_V.size} scores are alike for {edges}, use "
            "equal_width or add videos"
        )
    return LevelScale(dimension, tuple(fitted.tolist()))


def to_json(scales: Mapping[str, LevelScale]) -> dict[str, list[float]]:
    """The content of `levels.json`: dimension -> its six edges."""
    return {dimension: list(scale.edges) for dimension, scale in scales.items()}


def from_json(content: object) -> dict[str, LevelScale]:
    """The level scales in the decoded content of `levels.json`.

    Raises:
        AnnotationError: Not an object of known dimensions with six increasing numbers each, or
            without any dimension.
    """
    if not isinstance(content, dict) or not content:
        raise AnnotationError(
            'level edges: expected an object {"quality": [six numbers], ...}, not an empty one'
        )
    scales = {}
    for dimension, edges in content.items():
        is_number = isinstance(edges, list) and all(
            isinstance(edge, int | float) and not isinstance(edge, bool) for edge in edges
        )
        if not is_number:
            raise AnnotationError(
                f"{dimension} levels: expected a list of {len(LEVELS) + 1} numbers, got {edges!r}"
            )
        scales[dimension] = LevelScale(dimension, tuple(float(edge) for edge in edges))
    return scales


def read_levels(path: Path) -> dict[str, LevelScale]:
    """The level scales stored with a data set.

    Raises:
        AnnotationError: Not JSON, or as `from_json`; with the path.
        FileNotFoundError: No such file.
    """
    content = json_content(path)
    try:
        return from_json(content)
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}; correct it or make the labels again") from error
