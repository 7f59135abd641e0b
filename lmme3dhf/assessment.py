"""What the metric says about a clip, as records; they need neither torch nor the model."""

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from lmme3dhf.aspects import Scale
from lmme3dhf.errors import UserError

GEN3DHF_SCALE = Scale()
FLAG = "\N{WARNING SIGN}"  # marks a score that is far outside those of training
# The standard deviation of the training scores where a model folder does not say, as a share of the
# scale: about that of Gen3DHF (9 points for quality, 10 for authenticity; 14 in the demo).
_DEVIATION = 0.1


class QuestionError(UserError, ValueError):
    """A question that cannot be asked; the message says what is expected."""


def on_scale(score: ArrayLike, scale: Scale = GEN3DHF_SCALE) -> Any:
    """A score as people read it: a regression may overshoot the ends of its scale, and what lies
    beyond an end is shown at that end. Records, ranks, tests and losses use the raw score.

    Args:
        score: The raw score, or an array of them; NaN stays NaN.
        scale: Its scale.
    """
    return np.clip(score, scale.minimum, scale.maximum)


def digits(scale: Scale, of_hundred: int = 1) -> int:
    """Digits after the point that are as fine on this scale as `of_hundred` are on 0 to 100."""
    return max(0, 2 + of_hundred - round(math.log10(scale.maximum - scale.minimum)))


def score_text(score: float, scale: Scale = GEN3DHF_SCALE) -> str:
    """A score for people: on its scale, and as fine as one digit on 0 to 100."""
    return f"{on_scale(score, scale):.{digits(scale)}f}"


def is_outside_training(
    score: float, scale: Scale = GEN3DHF_SCALE, training: Mapping[str, Any] | None = None
) -> bool:
    """Whether a raw score is far outside those that the model was trained on: farther from all of
    them than their standard deviation, which is the error (root mean square) of always predicting
    their mean. An overshoot this large is no estimate: the clip is unlike the training clips.

    The demo's model: scores from 19 to 74 in training, so from 5 to 88 without a flag; its 200 test
    clips get 26 to 70. Gen3DHF's quality: from 6 to 66, so from -2 to 74.

    Args:
        score: The raw score.
        scale: Its scale.
        training: Distribution of the aspect's training scores, as in `metric.json`
            (`models.card.scales`). Where it is not recorded, the whole scale stands for it.
    """
    training = training or {}
    ends = training.get("percentiles") or (scale.minimum, scale.maximum)
    margin = training.get("deviation") or _DEVIATION * (scale.maximum - scale.minimum)
    return not ends[0] - margin <= score <= ends[-1] + margin


def is_finite(value: object) -> bool:
    """Whether a value of a record is a finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def are_probabilities(given: object, words: Iterable[str] | None = None) -> bool:
    """Whether a value of a record maps texts (out of `words`, where given) to probabilities."""
    known = isinstance(given, dict) and (set(given) <= set(given if words is None else words))
    # A softmax in float32 can exceed 1 by its rounding.
    return known and all(
        isinstance(word, str) and is_finite(p) and 0 <= p <= 1 + 1e-6 for word, p in given.items()
    )


def flag_text(aspects: Iterable[str]) -> str:
    """Why a clip has a flag, for people.

    Args:
        aspects: Those with scores outside (`is_outside_training`), one or more.
    """
    return (
        f"flagged: the raw score of {' and '.join(aspects)} is far outside those that the model "
        "was trained on, so it says little about this clip"
    )


@dataclass(frozen=True)
class Question:
    """A question on a clip, answered by how likely each candidate is as the model's whole reply.

    Attributes:
        prompt: What is asked; `{name}` stands for a slot of the clip.
        candidates: Two or more different replies: ("Yes", "No"), or the letters of choices that
            the prompt lists.

    Raises:
        QuestionError: Another number or kind of candidates, or no prompt.
    """

    prompt: str
    candidates: tuple[str, ...]

    def __post_init__(self) -> None:
        several = isinstance(self.candidates, list | tuple) and len(set(self.candidates)) > 1
        if not several or len(set(self.candidates)) < len(self.candidates):
            raise QuestionError(
                f"candidates {self.candidates!r}: expected a list of two or more different replies"
            )
        for text in (self.prompt, *self.candidates):
            if not isinstance(text, str) or not text.strip():
                raise QuestionError(f"{text!r} in a question: expected a text that is not empty")
        object.__setattr__(self, "candidates", tuple(self.candidates))

    def text(self, slots: Mapping[str, str]) -> str:
        """The question on a clip with these slots.

        Raises:
            QuestionError: A slot is missing, or a brace is not written twice.
        """
        try:
            return self.prompt.format_map(slots)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise QuestionError(
                f"question {self.prompt!r} needs a slot ({error}), and the clip has "
                f"{', '.join(slots) or 'none'}; give it with slots=, or write a brace that is "
                "meant as such twice"
            ) from error


def read_questions(path: Path | None) -> dict[str, Question]:
    """The questions of a YAML file, name -> `prompt` and `candidates`; none without a file.

    Raises:
        QuestionError: With the file: it cannot be read, or is something else.
    """
    try:
        given = {} if path is None else yaml.safe_load(path.read_bytes())
        return {str(name): Question(**fields) for name, fields in given.items()}
    except (OSError, yaml.YAMLError, TypeError, AttributeError, QuestionError) as error:
        raise QuestionError(
            f"{path}: {' '.join(str(error).split())}; expected YAML, for each name of a question "
            "its prompt and a list of candidates"
        ) from error


@dataclass(frozen=True)
class Answer:
    """The answer to a `Question`.

    Attributes:
        probabilities: Candidate -> probability that it is the model's reply, among the candidates;
            they sum to 1.
    """

    probabilities: dict[str, float]

    @property
    def likeliest(self) -> str:
        """The likeliest candidate, of equal ones the first."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {"answer": self.likeliest, "probabilities": self.probabilities}


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One aspect of one clip.

    Attributes:
        score: Predicted opinion score, raw: in the units of its scale, whose ends a regression may
            overshoot (`on_scale`). None from a scorer without scores.
        level: The level word; None on a scale without words.
        level_probabilities: Probability of each level word at the position that predicts it; None
            on a scale without words.
        scale: Where the score lives, and its direction.
        by_head: Head -> its score; the first one's is `score`.
        text: What the model says when it is asked, or None when it was not asked to write.
        outside_training: Whether the score is far outside those that the model was trained on
            (`is_outside_training`).
    """

    score: float | None
    level: str | None
    level_probabilities: dict[str, float] | None
    scale: Scale = GEN3DHF_SCALE
    by_head: dict[str, float] = field(default_factory=dict)
    text: str | None = None
    outside_training: bool = False

    def __str__(self) -> str:
        if self.score is None:
            return str(self.level)
        said = f"{score_text(self.score, self.scale)} of {self.scale.maximum:g}"
        if not self.scale.higher_is_better:
            said += f", {self.scale.direction}"
        return said + f" ({self.level})" * (self.level is not None)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them; those of heads only where there are several."""
        ends = {"minimum": self.scale.minimum, "maximum": self.scale.maximum}
        fields = asdict(self) | {"scale": {**ends, "direction": self.scale.direction}}
        if len(self.by_head) < 2:
            del fields["by_head"]
        return fields


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Assessment:
    """What the metric says about one clip.

    Attributes:
        path: The clip; None for pictures in memory.
        ratings: Aspect -> rating, in the model's order; empty when no ratings were asked for.
        distortions: Categories that the model names, in vocabulary order; empty when a free reply
            names none of the nine, None when no answer was asked for.
        saliency: (H, 3W) float32 in 0..1, the maps of the three views side by side at the clip's
            own size, as predicted; None for a model without a saliency decoder, or when no maps
            were asked for.
        decoder: What decoded the clip; scores belong to a decoder.
        distortion_log_odds: Category -> log P(it is there) - log P(it is not), natural; None for
            free replies, which have none.
        answers: Name of each further question -> its answer.
        notes: What a reader of the scores should know about how the clip was read, see
            `data.video.Clip`.
    """

    path: Path | None
    ratings: dict[str, Rating]
    distortions: tuple[str, ...] | None
    saliency: np.ndarray | None
    decoder: str
    distortion_log_odds: dict[str, float] | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def quality(self) -> Rating | None:
        """Gen3DHF's first aspect; None where it was not rated."""
        return self.ratings.get("quality")

    @property
    def authenticity(self) -> Rating | None:
        """Gen3DHF's second aspect; None where it was not rated."""
        return self.ratings.get("authenticity")

    @property
    def outside_training(self) -> tuple[str, ...]:
        """Aspects whose scores are far outside those that the model was trained on."""
        return tuple(name for name, rating in self.ratings.items() if rating.outside_training)

    @property
    def distortion_probabilities(self) -> dict[str, float] | None:
        """Category -> P(it is there), in 0..1; None where there are no log-odds. More than one
        category may be there, so these do not sum to 1.
        """
        return probabilities(self.distortion_log_odds)

    def to_dict(self, *, saliency: bool = False) -> dict[str, Any]:
        """Everything as JSON takes it, each rating with its scale and direction.

        Args:
            saliency: Whether the map is wanted too, as a list of rows; the field is left out
                otherwise.
        """
        fields = {
            "file": None if self.path is None else str(self.path),
            **{name: rating.to_dict() for name, rating in self.ratings.items()},
            "distortions": None if self.distortions is None else list(self.distortions),
            "distortion_probabilities": self.distortion_probabilities,
            "decoder": self.decoder,
            "notes": list(self.notes),
        }
        if self.answers:
            fields["answers"] = {name: answer.to_dict() for name, answer in self.answers.items()}
        if saliency:
            fields["saliency"] = None if self.saliency is None else self.saliency.tolist()
        return fields

    def __repr__(self) -> str:
        said = [f"{name} {rating}" for name, rating in self.ratings.items()]
        if self.distortions is not None:
            said.append(f"distortions: {'; '.join(self.distortions) or 'none named'}")
        said += [f"{name}: {answer.likeliest}" for name, answer in self.answers.items()]
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
