"""What the metric says about a clip, as records; they need neither torch nor the model."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.vocabulary import DIMENSIONS

# Of the opinion scores, and so of the predicted ones.
SCALE = {"minimum": 0, "maximum": 100, "direction": "higher is better"}


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One dimension of one clip.

    Attributes:
        score: Predicted opinion score on the scale 0 to 100, higher is better; a regression may
            overshoot the ends a little. None from a scorer without scores.
        level: The level word, bad to excellent.
        level_probabilities: Probability of each level word at the position that predicts it.
        text: What the model says when it is asked, or None when it was not asked to write.
    """

    score: float | None
    level: str
    level_probabilities: dict[str, float]
    text: str | None = None

    def __str__(self) -> str:
        return self.level if self.score is None else f"{self.score:.1f} of 100 ({self.level})"


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
    """

    path: Path | None
    quality: Rating | None
    authenticity: Rating | None
    distortions: tuple[str, ...] | None
    saliency: np.ndarray | None
    decoder: str
    distortion_log_odds: dict[str, float] | None = None

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
