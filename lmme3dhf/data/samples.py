"""What the readers of data sets share: the record of one question on one clip, and their error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmme3dhf.errors import UserError


class DataError(UserError, ValueError):
    """A list, split or identifier that cannot be used; the message says what, where, what was
    expected and how to go on.
    """


@dataclass(frozen=True)
class Origin:
    """Where a clip comes from.

    Attributes:
        generator: What made it.
        identity: Whom or what it shows; clips of one identity stay in one part of a split.
    """

    generator: str
    identity: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question on one clip, with its answer and what is known of the clip.

    Attributes:
        video: Identifier, the clip's file name without suffix ("seed0001").
        path: The clip: a video or an image.
        task: What is asked: an aspect's name, "distortion", or a question of the reader's own.
        prompt: The user's text, without the media placeholder.
        reply: The assistant's text, or None.
        values: Aspect -> mean opinion score, in the units of its scale.
        stds: Aspect -> standard deviation of the opinions, in the same units.
        levels: Aspect -> level word.
        distortions: Some of `DISTORTIONS` in vocabulary order, or None.
        slots: Texts that the prompt and the answer's prefix have in place of `{name}`.
        candidates: Answers that a question by likelihood chooses among.
        origin: Generator and identity, where the list says them.
        where: Place of its row, for messages.
    """

    video: str
    path: Path
    task: str
    prompt: str
    reply: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    stds: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    distortions: tuple[str, ...] | None = None
    slots: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    origin: Origin | None = None
    where: str = field(default="", compare=False, repr=False)

    @property
    def mos(self) -> float | None:
        """The score of the aspect that is asked; None where it is not known."""
        return self.values.get(self.task)

    @property
    def level(self) -> str | None:
        """The level word of the aspect that is asked; None where it is not known."""
        return self.levels.get(self.task)
