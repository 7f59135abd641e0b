"""Quality levels from opinion scores (paper, Section 4.2, Eq. 4): five equal intervals between the
worst and the best score.

The edges are fitted on the training split and stored with the data (`levels.json`). Scores live on
the 0..100 scale of the opinion scores; higher is better.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmme3dhf.annotations import AnnotationError
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


def fit_level_scale(mos_V: np.ndarray, dimension: str) -> LevelScale:
    """Five equal intervals between the minimum and the maximum of the given scores, which should be
    the training split's.

    Raises:
        AnnotationError: No scores, scores that are not finite, or scores that are all alike.
    """
    mos_V = np.asarray(mos_V, dtype=float)
    if mos_V.size == 0 or not np.isfinite(mos_V).all():
        raise AnnotationError(
            f"{dimension} levels: expected at least two finite scores, got {mos_V.size} with "
            f"{np.count_nonzero(~np.isfinite(mos_V))} that are not finite"
        )
    low, high = float(mos_V.min()), float(mos_V.max())
    if low == high:
        raise AnnotationError(
            f"{dimension} levels: all {mos_V.size} scores are {low:g}; five levels need scores "
            "that differ"
        )
    # Departure D8: Eq. 4 prints the upper bound of every level as 1/5 of the range; i/5 is meant,
    # as in the released labels.
    return LevelScale(dimension, tuple(np.linspace(low, high, len(LEVELS) + 1).tolist()))


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
