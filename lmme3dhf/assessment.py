"""What the metric says about a clip, as records; they need neither torch nor the model."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lmme3dhf.vocabulary import DIMENSIONS

# Of the opinion scores, and so of the predicted ones.
SCALE = {"minimum": 0, "maximum": 100, "direction": "higher is better"}
FLAG = "\N{WARNING SIGN}"  # beside a score that is far outside those of training
# The standard deviation of the training scores where a model folder does not say, as a share of the
# scale: about that of Gen3DHF (9 points for quality, 10 for authenticity; 14 in the demo).
_DEVIATION = 0.1


def on_scale(score: ArrayLike, scale: Mapping[str, Any] = SCALE) -> Any:
    """A score as people read it: a regression may overshoot the ends of its scale, and what lies
    beyond an end is shown at that end. Records, ranks, tests and losses use the raw score.

    Args:
        score: The raw score, or an array of them; NaN stays NaN.
        scale: Its `minimum` and `maximum`.
    """
    return np.clip(score, scale["minimum"], scale["maximum"])


def score_text(score: float, scale: Mapping[str, Any] = SCALE) -> str:
    """A score for people: on its scale, with one digit."""
    return f"{on_scale(score, scale):.1f}"


def is_outside_training(score: float, scale: Mapping[str, Any] = SCALE) -> bool:
    """Whether a raw score is far outside those that the model was trained on: farther from all of
    them than their standard deviation, which is the error (root mean square) of always predicting
    their mean. An overshoot this large is no estimate: the clip is unlike the training clips.

    The demo's model: scores from 19 to 74 in training, so from 5 to 88 without a flag; its 200 test
    clips get 26 to 70. Gen3DHF's quality: from 6 to 66, so from -2 to 74.

    Args:
        score: The raw score.
        scale: One dimension of `metric.json` (`models.card.scales`). Where `training` is not
            recorded, the whole scale stands for the scores.
    """
    training = scale.get("training") or {}
    ends = training.get("percentiles") or (scale["minimum"], scale["maximum"])
    margin = training.get("deviation") or _DEVIATION * (scale["maximum"] - scale["minimum"])
    return not ends[0] - margin <= score <= ends[-1] + margin


def flag_text(dimensions: Iterable[str]) -> str:
    """Why a clip has a flag, for people.

    Args:
        dimensions: Those with scores outside (`is_outside_training`), one or more.
    """
    return (
        f"flagged: the raw score of {' and '.join(dimensions)} is far outside those that the model "
        "was trained on, so it says little about this clip"
    )


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One dimension of one clip.

    Attributes:
        score: Predicted opinion score, raw: on the scale 0 to 100, higher is better, but a
            regression may overshoot the ends (`on_scale`). None from a scorer without scores.
        level: The level word, bad to excellent.
        level_probabilities: Probability of each level word at the position that predicts it.
        text: What the model says when it is asked, or None when it was not asked to write.
        outside_training: Whether the score is far outside those that the model was trained on
            (`is_outside_training`).
    """

    score: float | None
    level: str
    level_probabilities: dict[str, float]
    text: str | None = None
    outside_training: bool = False

    def __str__(self) -> str:
        if self.score is None:
            return self.level
        return f"{score_text(self.score)} of {SCALE['maximum']} ({self.level})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Assessment:
    """What the metric says about one clip.

    Attributes:
        path: The clip; None for pictures in memory.
        quality: Perceptual quality; None when no ratings were asked for.
        authenticity: How much it looks like a real face; None as above.
        distortions: Categories that the model names, in vocabulary order; empty when a free reply
            names none of the nine, None when no answer was asked for.
        saliency: (H, 3W) float32 in 0..1, the maps of the three views side by side at the clip's
            own size, as predicted; None for a model without a saliency decoder, or when no maps
            were asked for.
        decoder: What decoded the clip; scores belong to a decoder.
        distortion_log_odds: Category -> log P(it is there) - log P(it is not), natural; None for
            free replies, which have none.
        notes: What a reader of the scores should know about how the clip was read, see
            `data.video.Clip`.
    """

    path: Path | None
    quality: Rating | None
    authenticity: Rating | None
    distortions: tuple[str, ...] | None
    saliency: np.ndarray | None
    decoder: str
    distortion_log_odds: dict[str, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def outside_training(self) -> tuple[str, ...]:
        """Dimensions whose scores are far outside those that the model was trained on."""
        rated = {d: getattr(self, d) for d in DIMENSIONS}
        return tuple(d for d, rating in rated.items() if rating and rating.outside_training)

    @property
    def distortion_probabilities(self) -> dict[str, float] | None:
        """Category -> P(it is there), in 0..1; None where there are no log-odds. More than one
        category may be there, so these do not sum to 1.
        """
        return probabilities(self.distortion_log_odds)

    def to_dict(self, *, saliency: bool = False) -> dict[str, Any]:
        """Everything as JSON takes it, the scale and its direction included.

        Args:
            saliency: Whether the map is wanted too, as a list of rows; the field is left out
                otherwise.
        """
        fields = {
            "file": None if self.path is None else str(self.path),
            "scale": dict(SCALE),
            **{d: getattr(self, d) and asdict(getattr(self, d)) for d in DIMENSIONS},
            "distortions": None if self.distortions is None else list(self.distortions),
            "distortion_probabilities": self.distortion_probabilities,
            "decoder": self.decoder,
            "notes": list(self.notes),
        }
        if saliency:
            fields["saliency"] = None if self.saliency is None else self.saliency.tolist()
        return fields

    def __repr__(self) -> str:
        said = [f"{d} {getattr(self, d)}" for d in DIMENSIONS if getattr(self, d) is not None]
        if self.distortions is not None:
            said.append(f"distortions: {'; '.join(self.distortions) or 'none named'}")
        if self.saliency is not None:
            height, width = self.saliency.shape
            said.append(f"map {width}x{height}")
        if self.outside_training:
            said.append(flag_text(self.outside_training))
        said += self.notes
        name = "pictures in memory" if self.path is None else ascii(self.path.name)
        return f"Assessment({name}: {', '.join(said)})"


@dataclass(frozen=True)
class Failure:
    """A clip that could not be assessed.

    Attributes:
        path: The file; None for pictures in memory.
        reason: One of `data.container.REASONS`.
        message: What, where, and how to go on.
    """

    path: Path | None
    reason: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        file = None if self.path is None else str(self.path)
        return {"file": file, "reason": self.reason, "message": self.message}


def probabilities(log_odds: Mapping[str, float] | None) -> dict[str, float] | None:
    """Natural log-odds as probabilities; what is beyond a float's range is 0 or 1."""
    if log_odds is None:
        return None
    # Each sign by the exponential that cannot overflow.
    return {
        name: 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
        for name, odds in log_odds.items()
    }
