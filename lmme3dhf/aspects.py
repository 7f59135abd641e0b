"""What is rated: aspects of a clip and the scales that their scores live on.

A data set declares its aspects (`aspects.yaml` in its folder), or the settings do; a model folder
stores those that it was trained for. Gen3DHF's two, quality and authenticity (paper, Section 3.2),
are the default.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from lmme3dhf.errors import UserError
from lmme3dhf.vocabulary import LEVELS

ASPECTS_FILE = "aspects.yaml"
DISTORTION = "distortion"  # the question on distortions, beside those on aspects
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Names that columns of records and tables have already, or that heads and questions use.
_TAKEN = frozenset(("score", "level", "text", "file", "video", "map", "notes", DISTORTION))


class AspectError(UserError, ValueError):
    """An aspect or scale that cannot be used; the message names the field and what is expected."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where the scores of an aspect live.

    Attributes:
        minimum: The lower end.
        maximum: The upper end; predicted scores may overshoot both ends a little.
        higher_is_better: The direction.
        levels: Level words from the lowest scores to the highest; none for an aspect that is scored
            and not put in words.
        edges: One more edge than levels, increasing, in the scale's units (Eq. 4); level i lies
            above edge i and up to edge i + 1, that edge included. None until they are fitted on the
            training split.
        tokens: Token of each level word after the answer's prefix; None until a tokenizer has been
            seen.

    Raises:
        AspectError: A value is impossible.
    """

    minimum: float = 0.0
    maximum: float = 100.0
    higher_is_better: bool = True
    levels: tuple[str, ...] = LEVELS
    edges: tuple[float, ...] | None = None
    tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("levels", "edges", "tokens"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        ends = (self.minimum, self.maximum)
        if not all(map(_is_number, ends)) or not self.minimum < self.maximum:
            raise AspectError(
                f"scale: minimum {ends[0]!r} and maximum {ends[1]!r}, expected two "
                "finite numbers, the minimum below the maximum"
            )
        words = self.levels
        if not all(isinstance(word, str) and re.fullmatch(r"\w+", word) for word in words) or (
            len(words) == 1 or len(set(words)) < len(words)
        ):
            raise AspectError(
                f"scale: levels {list(words)}, expected two or more different single words, or none"
            )
        if self.edges is not None and (
            len(self.edges) != len(words) + 1
            or not all(map(_is_number, self.edges))
            or any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False))
        ):
            raise AspectError(
                f"scale: edges {list(self.edges)}, expected {len(words) + 1} finite increasing "
                "numbers"
            )
        if self.tokens is not None and (
            len(set(self.tokens)) != len(words)
            or not all(isinstance(token, int) and token >= 0 for token in self.tokens)
        ):
            raise AspectError(
                f"scale: tokens {list(self.tokens)}, expected {len(words)} different tokens"
            )

    @property
    def direction(self) -> str:
        """For people: "higher is better" or "lower is better"."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    def to_unit(self, score: Any) -> Any:
        """A score, or an array of them, as heads learn it: 0 at the minimum, 1 at the maximum."""
        return (score - self.minimum) / (self.maximum - self.minimum)

    def from_unit(self, value: Any) -> Any:
        """What a head predicts, or an array of it, in the scale's own units."""
        return self.minimum + (self.maximum - self.minimum) * value

    def holds(self, score: float) -> bool:
        """Whether a score lies on the scale, the ends included; NaN does not."""
        return self.minimum <= score <= self.maximum

    def level(self, score: float) -> str:
        """The level word of a score; the lowest edge belongs to the lowest level, and what lies
        beyond the fitted edges to the outer ones.

        Raises:
            AspectError: The score is NaN or infinite, or there are no edges.
        """
        if self.edges is None or not math.isfinite(score):
            raise AspectError(
                f"score {score} has no level: expected a finite number, and a scale "
                "with levels whose edges are fitted"
            )
        # Departure D8: Eq. 4 is open at the minimum, so the worst video of the release has no level
        # ("None"); it has the lowest here.
        index = bisect_left(self.edges, score) - 1
        return self.levels[min(max(index, 0), len(self.levels) - 1)]

    def replace(self, **changes: Any) -> "Scale":
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Round:
    """A question and its reply before an aspect's own question, in the same dialogue.

    Attributes:
        prompt: The question, with fields as an aspect's.
        slot: Name of the sample's slot that holds the reply. The model writes the reply itself
            where it scores a sample without this slot.
        learnt: Whether training learns the reply.
    """

    prompt: str
    slot: str
    learnt: bool = True


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """Something that is rated.

    Attributes:
        name: A lower-case identifier, "quality"; columns of tables begin with it.
        prompt: The question. `{aspect}` stands for the name, other fields for slots of the sample,
            such as the prompt that an image was generated from.
        answer_prefix: The reply up to the level word, with the same fields. The score is read at
            its last token, the one that predicts the level word.
        scale: Where its scores live.
        before: What is asked before in the same dialogue, in order. An earlier reply may stand in a
            later text, as the field of its slot.

    Raises:
        AspectError: A value is impossible.
    """

    name: str
    prompt: str
    answer_prefix: str
    scale: Scale = field(default_factory=Scale)
    before: tuple[Round, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "before", tuple(self.before))
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise AspectError(
                f"aspect {self.name!r}: expected a name of lower-case letters, digits and _ that "
                f"is none of {', '.join(sorted(_TAKEN))}"
            )
        texts = {"prompt": self.prompt, "answer_prefix": self.answer_prefix}
        for number, asked in enumerate(self.before):
            texts[f"before {number} prompt"] = asked.prompt
            if not isinstance(asked.slot, str) or not _NAME.fullmatch(asked.slot):
                raise AspectError(
                    f"aspect {self.name}: before {number} has the slot {asked.slot!r}, expected a "
                    "name of lower-case letters, digits and _"
                )
        for where, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise AspectError(f"aspect {self.name}: {where} is {text!r}, expected a text")
            try:
                parts = list(Formatter().parse(text))
            except ValueError as error:
                raise AspectError(
                    f"aspect {self.name}: {where} {text!r}: {error}; write a brace "
                    "that is meant as such twice"
                ) from error
            for _, slot, form, conversion in parts:
                # Other fields would read attributes of the value.
                if slot is not None and (not slot.isidentifier() or form or conversion):
                    raise AspectError(
                        f"aspect {self.name}: {where} has the field {slot!r}, "
                        "expected plain names such as {aspect}"
                    )

    def question(self, slots: Mapping[str, str] | None = None) -> str:
        """The question on a sample with these slots.

        Raises:
            AspectError: A slot is missing.
        """
        return self._filled("prompt", self.prompt, slots)

    def rounds(self, slots: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """The questions before it that can be asked already, and the slots of their replies: up to
        the first whose reply is not known.
        """
        asked = []
        for one in self.before:
            asked.append((self._filled("prompt of a round", one.prompt, slots), one.slot))
            if one.slot not in (slots or {}):
                break
        return asked

    def prefix(self, slots: Mapping[str, str] | None = None) -> str:
        """The reply up to the level word; raises as `question`."""
        return self._filled("answer_prefix", self.answer_prefix, slots)

    def _filled(self, where: str, text: str, slots: Mapping[str, str] | None) -> str:
        try:
            return text.format_map({**(slots or {}), "aspect": self.name})
        except KeyError as error:
            raise AspectError(
                f"aspect {self.name}: its {where} needs the slot {error.args[0]!r}, and the sample "
                f"has {', '.join(slots or ()) or 'none'}; give it with the sample"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """What JSON and YAML hold; `aspects_from` reads it back."""
        values = asdict(self)
        del values["name"]
        if before := list(values.pop("before")):
            values["before"] = before
        values["scale"] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values["scale"].items()
        }
        return values


Aspects = Mapping[str, Aspect]  # name -> aspect, in the order of columns and tables


def aspects_from(content: object) -> dict[str, Aspect]:
    """Aspects from what YAML or JSON hold: name -> `prompt`, `answer_prefix`, `scale`, `before`.

    Raises:
        AspectError: There are none, a key is unknown, or a value is impossible.
    """
    if not isinstance(content, dict) or not content:
        raise AspectError("aspects: expected a mapping of names to prompt, answer_prefix and scale")
    found = {}
    for name, given in content.items():
        values = _known(given, ("prompt", "answer_prefix", "scale", "before"), f"aspect {name}")
        keys = tuple(item.name for item in fields(Scale))
        scale = _known(values.pop("scale", {}), keys, f"aspect {name}, scale")
        if missing := {"prompt", "answer_prefix"} - set(values):
            raise AspectError(f"aspect {name}: {' and '.join(sorted(missing))} missing")
        try:
            rounds = [Round(**one) for one in values.pop("before", ())]
            found[name] = Aspect(name=name, scale=Scale(**scale), before=rounds, **values)
        except TypeError as error:
            raise AspectError(f"aspect {name}: a value of another kind ({error})") from error
    return found


def read_aspects(path: Path) -> dict[str, Aspect]:
    """Reads a YAML file of aspects, see `aspects_from`.

    Raises:
        AspectError: With the file: it is missing, no YAML, or as `aspects_from`.
    """
    try:
        return aspects_from(yaml.safe_load(path.read_bytes()))
    except (OSError, yaml.YAMLError) as error:
        raise AspectError(f"{path}: cannot be read ({error})") from error
    except AspectError as error:
        raise AspectError(f"{path}: {error}") from error


def aspects_of(root: Path, given: Aspects | None = None) -> dict[str, Aspect]:
    """The aspects of a data set: those given by the settings, else those that the data set
    declares (`aspects.yaml`), else Gen3DHF's.
    """
    if given:
        return dict(given)
    path = root / ASPECTS_FILE
    return read_aspects(path) if path.is_file() else dict(GEN3DHF)


def _known(content: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not set(content) <= set(keys):
        found = sorted(map(str, content)) if isinstance(content, dict) else repr(content)
        raise AspectError(f"{where}: {found}, expected a mapping with {', '.join(keys)}")
    return dict(content)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_PREFIX = "The {aspect} of the human face in this video is"
# The prompts are those of the released lists.
GEN3DHF: dict[str, Aspect] = {
    aspect.name: aspect
    for aspect in (
        Aspect(
            name="quality",
            prompt=(
                "Please rate the quality of the human face in this video, considering factors such "
                "as resolution, clarity, smoothness, and overall visual quality."
            ),
            answer_prefix=_PREFIX,
        ),
        Aspect(
            name="authenticity",
            prompt=(
                "Please rate the authenticity of the human face in this video, considering factors "
                "such as natural facial movements, consistency, texture realism, and any signs of "
                "digital manipulation or artificial generation."
            ),
            answer_prefix=_PREFIX,
        ),
    )
}
