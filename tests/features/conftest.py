"""Clips that are just files, and a stand-in for the model: the store itself decodes nothing."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lmme3dhf.features.store import FeatureStore


def features(content: bytes) -> dict[str, torch.Tensor]:
    """What the stand-in makes of a clip's bytes."""
    values = torch.tensor(list(content), dtype=torch.float32)
    return {"tokens": torch.outer(values, values) / 7, "size": torch.tensor(len(content))}


class Counting:
    """Fills a store; counts the clips that are computed and how often the model is asked for."""

    def __init__(self) -> None:
        self.clips: list[bytes] = []
        self.loaded = 0

    def __call__(self, store: FeatureStore, clips: list[Path], **how) -> None:
        store.fill(clips, how.pop("load", loaded), self.model, workers=0, name="test", **how)

    def model(self) -> Callable[[bytes], dict[str, torch.Tensor]]:
        self.loaded += 1

        def compute(content: bytes) -> dict[str, torch.Tensor]:
            self.clips.append(content)
            return features(content)

        return compute


def loaded(clips: list[Path]) -> Iterator[bytes]:
    """Reads clips one by one."""
    return (clip.read_bytes() for clip in clips)


def agrees(store: FeatureStore, clips: list[Path]) -> bool:
    """Whether the store gives for each clip what the stand-in makes of its bytes."""
    return all(
        torch.equal(store.read(clip)[name], tensor)
        for clip in clips
        for name, tensor in features(clip.read_bytes()).items()
    )


@pytest.fixture
def clips(tmp_path) -> list[Path]:
    """Seven files of different bytes, old enough for their hashes to be kept."""
    folder = tmp_path / "clips"
    folder.mkdir()
    paths = [folder / f"seed{n:04d}.mp4" for n in range(7)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(range(n + 1, n + 21)))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return paths


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def opened(tmp_path) -> Callable[..., FeatureStore]:
    """Opens the store anew, as another run would."""
    return lambda recipe=None: FeatureStore(tmp_path / "store", "test", recipe or {"dtype": "x"})
