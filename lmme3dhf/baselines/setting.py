"""What a baseline may look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmme3dhf.aspects import Aspects
from lmme3dhf.reports.evaluation import Labels, Method


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A test without its labels.

    Attributes:
        data: Folder of the data set.
        maps: Folder of the ground-truth maps; those of the training videos may be read.
        train: Labels of the training videos.
        media: Test video -> its clip; need not exist where a baseline does not open it.
        aspects: What is scored, in the order of tables.
    """

    data: Path
    maps: Path
    train: Labels
    media: dict[str, Path]
    aspects: Aspects

    def method(self, name: str, note: str, **predictions: Any) -> Method:
        """Predictions of a baseline, with what a reader has to know of it."""
        return Method(name=name, path=self.data, notes=(note,), **predictions)
