"""What the readers of the data set share: the record of one question on one video, their error, and
how they write files.
"""

from dataclasses import dataclass
from pathlib import Path

from lmme3dhf.errors import UserError
from lmme3dhf.vocabulary import DIMENSIONS

TASKS = (*DIMENSIONS, "distortion")


class DataError(UserError, ValueError):
    """A list, split or identifier that cannot be used; the message says what, where, what was
    expected and how to go on.
    """


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question on one video, with its answer and labels where they are known.

    Attributes:
        video: Identifier, the clip's file name without suffix ("seed0001").
        path: The clip.
        task: One of `TASKS`.
        prompt: The user's text, without the media placeholder.
        reply: The assistant's text, or None.
        mos: Mean opinion score, 0..100, higher is better, or None.
        level: One of `LEVELS`, or None.
        distortions: Some of `DISTORTIONS` in vocabulary order, or None.
    """

    video: str
    path: Path
    task: str
    prompt: str
    reply: str | None = None
    mos: float | None = None
    level: str | None = None
    distortions: tuple[str, ...] | None = None
