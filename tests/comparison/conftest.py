"""A small data set and a run on it, written by formulas: 24 videos of three generators and eight
faces, tested on four of the faces.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.annotations.fixations import (
    Fixations,
    saliency_map,
    write_fixations,
    write_saliency,
    write_saliency_png,
)
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.predictions import Prediction, write_predictions
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS, NO_DISTORTION
from tests.conftest import DIMENSIONS

VIDEOS = [f"seed{200 * generator + face:04d}" for generator in range(3) for face in range(8)]
PARTS = {
    "eval": [video for video in VIDEOS if int(video[4:]) % 200 < 4],
    "train": [video for video in VIDEOS if int(video[4:]) % 200 >= 4],
}
HEIGHT, WIDTH = 16, 48
CLEAN = "seed0002"  # the only test video without marks


def mos(video: str, dimension: str) -> float:
    """30 to 70, different for every video; the generator moves it most."""
    number = int(video[4:])
    generator, face = divmod(number, 200)
    shift = 0 if dimension == "quality" else 3
    return 30 + 12 * generator + (5 * face + shift) % 8 + 0.1 * face


def level(video: str, dimension: str) -> str:
    """Steps of ten from 20 on."""
    return LEVELS[min(4, int((mos(video, dimension) - 20) // 10))]


def categories(video: str) -> tuple[str, ...]:
    """One or two of the first three categories; none for the clean video."""
    if video == CLEAN:
        return (NO_DISTORTION,)
    number = int(video[4:])
    return tuple(DISTORTIONS[i] for i in sorted({number % 3, number // 200}))


def points(video: str) -> tuple[tuple[float, float], ...]:
    """Two points of the first marker, side by side, and one of the second: the released rule for
    fixations loses the lone one.
    """
    if video == CLEAN:
        return ()
    number = int(video[4:])
    x = 5.0 + number % 7
    return ((x, 8.0), (x + 1, 8.0), (40.0, 4.0 + number % 5))


def write_part(data: Path, part: str, videos: list[str]) -> None:
    """The lists of one part."""

    def sample(video: str, task: str, reply: str) -> Sample:
        path = Path(f"{video}.mp4")
        return Sample(video=video, path=path, task=task, prompt=PROMPTS[task], reply=reply)

    for name, aspect in GEN3DHF.items():
        write_list(
            data / "numerical" / f"{part}_{name}.json",
            [
                sample(
                    v, aspect.name, level_reply(aspect, level(v, aspect.name), mos(v, aspect.name))
                )
                for v in videos
            ],
        )
    answers = [sample(v, "distortion", distortion_reply(categories(v))) for v in videos]
    write_list(data / "distortion" / f"{part}.json", answers)


def write_data(data: Path, *, synthetic: bool) -> None:
    """Lists, maps and marked points."""
    for part, videos in PARTS.items():
        write_part(data, part, videos)
    for video in VIDEOS:
        drawn = saliency_map(points(video), HEIGHT, WIDTH, sigma_px=2)
        write_saliency(data / "saliency_map", video, drawn)
    write_fixations(
        data / "fixations.json",
        {
            v: Fixations(points(v), {"a": 2, "b": 1} if points(v) else {}, (WIDTH, HEIGHT))
            for v in VIDEOS
        },
    )
    if synthetic:
        truth = {v: {"opinion": [mos(v, d) + 0.01 for d in DIMENSIONS]} for v in VIDEOS}
        (data / "truth.json").write_text(json.dumps(truth))


def predicted(video: str, dimension: str, noise: float = 1.0) -> float:
    """A score that is off by up to 4."""
    return mos(video, dimension) + noise * 4 * np.sin(1.7 * int(video[4:]))


def write_records(
    path: Path, videos: list[str], noise: float = 1.0, method: str = "LMME3DHF"
) -> None:
    """Predictions with scores, level probabilities, answers and maps."""
    maps = path.with_name(f"{path.stem}_maps")
    maps.mkdir(parents=True, exist_ok=True)
    for video in videos:
        moved = [(x, min(y + 1, HEIGHT - 1)) for x, y in points(video)] or [(0.0, 0.0)]
        write_saliency_png(maps / f"{video}.png", saliency_map(moved, HEIGHT, WIDTH, sigma_px=3))
    write_predictions(
        path,
        [
            Prediction(
                video=video,
                dimension=dimension,
                method=method,
                score=predicted(video, dimension, noise),
                level=level(video, dimension),
                level_probabilities={level(video, dimension): 1.0},
                distortions=(DISTORTIONS[int(video[4:]) % 3],),
                map=f"{maps.name}/{video}.png",
            )
            for video in videos
            for dimension in DIMENSIONS
        ],
    )


def write_run(run: Path, *, smoke: bool) -> Path:
    """A run with its data set; a smoke one is synthetic and has a narrow model."""
    write_data(run / "data", synthetic=smoke)
    (run / "model").mkdir()
    width = 128 if smoke else 3584
    (run / "model" / "config.json").write_text(json.dumps({"text_config": {"hidden_size": width}}))
    write_records(run / "predictions.jsonl", PARTS["eval"])
    return run


def leave_unmarked(data: Path, video: str) -> None:
    """As `data labels` leaves a video that no marker looked at."""
    for suffix in (".png", ".npz"):
        (data / "saliency_map" / f"{video}{suffix}").unlink(missing_ok=True)
    known = json.loads((data / "fixations.json").read_text())
    del known[video]
    (data / "fixations.json").write_text(json.dumps(known))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run below the test's folder."""
    return lambda *, smoke: write_run(tmp_path / ("smoke" if smoke else "real"), smoke=smoke)
