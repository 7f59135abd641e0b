"""Levels from opinion scores (paper, Section 4.2, Eq. 4): equal intervals between the lowest and
the highest score, or, as an option, levels with equally many videos.

The edges are fitted on the training split and stored with the data (`levels.json`, aspect ->
edges). Scores and edges are in the units of the aspect's scale.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from lmme3dhf.annotations import AnnotationError, json_content, require_known
from lmme3dhf.aspects import Aspect, AspectError, Aspects, Scale


def _equal_width(score_V: np.ndarray, levels: int) -> np.ndarray:
    return np.linspace(score_V.min(), score_V.max(), levels + 1)


def _equal_count(score_V: np.ndarray, levels: int) -> np.ndarray:
    return np.quantile(score_V, np.linspace(0, 1, levels + 1))


EDGES = {"equal_width": _equal_width, "equal_count": _equal_count}


def fit_level_scale(score_V: np.ndarray, aspect: Aspect, edges: str = "equal_width") -> Scale:
    """The aspect's scale with edges fitted on the given scores, which should be the training
    split's. A scale without level words has no edges and comes back as it is.

    Args:
        score_V: Scores in the scale's units.
        aspect: The aspect, with its scale.
        edges: "equal_width" is Eq. 4, equal intervals between minimum and maximum; "equal_count"
            puts equally many scores into each level (the released scores have 85 % of quality in
            the two best levels of Eq. 4).

    Raises:
        AnnotationError: Unknown `edges`, no scores, scores that are not finite, scores that are all
            alike, or for equal counts so many alike that two edges fall together.
    """
    require_known("edges", edges, EDGES)
    if not aspect.scale.levels:
        return aspect.scale
    name, count = aspect.name, len(aspect.scale.levels)
    score_V = np.asarray(score_V, dtype=float)
    if score_V.size == 0 or not np.isfinite(score_V).all():
        raise AnnotationError(
            f"{name} levels: expected at least two finite scores, got {score_V.size} with "
            f"{np.count_nonzero(~np.isfinite(score_V))} that are not finite"
        )
    low, high = float(score_V.min()), float(score_V.max())
    if math.isclose(low, high, abs_tol=1e-9):  # means of the same opinions differ by rounding
        alike = f"all {score_V.size} scores are" if score_V.size > 1 else "the only score is"
        raise AnnotationError(
            f"{name} levels: {alike} {low:g}; {count} levels need scores that differ, add videos"
        )
    # Departure D8: Eq. 4 prints the upper bound of every level as 1/5 of the range; i/5 is meant,
    # as in the released labels.
    fitted = EDGES[edges](score_V, count)
    if (np.diff(fitted) <= 0).any():
        raise AnnotationError(
            f"{name} levels: edges {fitted.tolist()}, expected {count + 1} finite increasing "
            f"numbers; too many of the {score_V.size} scores are alike for {edges}, use "
            "equal_width or add videos"
        )
    return aspect.scale.replace(edges=fitted.tolist())


def soft_label(scale: Scale, score: float, std: float) -> tuple[float, ...]:
    """How probable each level is where opinions are normal around the score: the mass of
    N(score, std^2) between the level's edges, tails counted to the outer levels.

    Args:
        scale: A scale with fitted edges.
        score: Mean opinion score.
        std: Standard deviation of the opinions over the subjects, on the same scale; 0 or NaN (a
            single rating) puts all mass on the score's level.

    Returns:
        A probability for each level of the scale, in its order; they sum to 1.

    Raises:
        AspectError: The score is not finite, or the scale has no edges.
        AnnotationError: The deviation is negative or infinite.
    """
    word = scale.level(score)
    if std < 0 or math.isinf(std):
        raise AnnotationError(
            f"standard deviation {std} of score {score:g}, expected a finite number of at least 0"
        )
    if std == 0 or math.isnan(std):
        return tuple(float(level == word) for level in scale.levels)
    below = ndtr((np.array(scale.edges[1:-1]) - score) / std)
    return tuple(np.diff(below, prepend=0.0, append=1.0).tolist())


def to_json(scales: Mapping[str, Scale]) -> dict[str, list[float]]:
    """The content of `levels.json`: aspect -> its edges; without aspects that have no levels."""
    return {name: list(scale.edges) for name, scale in scales.items() if scale.edges}


def read_levels(path: Path, aspects: Aspects) -> dict[str, Scale]:
    """The scales of a data set's aspects with the edges that it stores.

    Raises:
        AnnotationError: With the path: not JSON, no aspect at all, one that is not among `aspects`,
            or edges that are not one increasing number more than the aspect has levels.
        FileNotFoundError: No such file.
    """
    content = json_content(path)
    try:
        if not isinstance(content, dict) or not content:
            raise AnnotationError(f'expected an object {{"{next(iter(aspects))}": [edges], ...}}')
        scales = {}
        for name, edges in content.items():
            require_known("aspect", name, aspects)
            listed = edges if isinstance(edges, list) else ()
            try:
                scales[name] = aspects[name].scale.replace(edges=listed)
            except AspectError as error:
                raise AnnotationError(f"{name} levels: {error}") from error
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}; correct it or make the labels again") from error
    return scales
