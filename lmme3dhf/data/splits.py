"""Who trains and who is tested: splits grouped by face, folds, and the official split (paper,
Section 5.1).

A clip's identifier seedNNNN holds its origin: id = generator * 200 + latent. Different generators
drew the same latents, so a face may come back under another generator; our splits and folds keep
all videos of a latent on one side. The released split, 1,600 against 400 videos, does not.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from lmme3dhf.data.samples import DataError
from lmme3dhf.files import replace_file

LATENTS = 200
# From the root of the repository.
OFFICIAL_SPLIT = Path("datasets", "splits", "official.json")
OFFICIAL_SIZES = {"train": 1600, "eval": 400}

Split = dict[str, list[str]]


def latent(video: str) -> int:
    """The face of a clip, 0..199: its number modulo 200.

    Raises:
        DataError: The name is not seedNNNN.
    """
    return _number(video) % LATENTS


def generator(video: str) -> int:
    """The generator of a clip, from 0: its number divided by 200.

    Raises:
        DataError: The name is not seedNNNN.
    """
    return _number(video) // LATENTS


def _number(video: str) -> int:
    match = re.fullmatch(r"seed([0-9]+)", video)
    if not match:
        raise DataError(
            f"video {video!r}: expected a name like seed0042, which holds generator and latent"
        )
    return int(match[1])


def grouped_split(
    videos: Iterable[str], fractions: Mapping[str, float], rng: np.random.Generator
) -> Split:
    """Deals the videos to named parts, all videos of a latent to one part.

    Args:
        videos: Identifiers, in any order: the result does not depend on it.
        fractions: Part -> its share of the latents; the shares sum to 1, each gets at least one
            latent.
        rng: Draws the order of the latents.

    Returns:
        Part -> its identifiers, sorted.

    Raises:
        DataError: A video twice, a name that is not seedNNNN, shares that do not sum to 1, or a
            part that stays empty.
    """
    if not math.isclose(sum(fractions.values()), 1) or min(fractions.values()) <= 0:
        raise DataError(f"shares {dict(fractions)}: expected positive numbers that sum to 1")
    groups = _grouped(videos, latent)
    order = [sorted(groups)[index] for index in rng.permutation(len(groups))]
    bounds = [round(share * len(order)) for share in np.cumsum(list(fractions.values()))]
    split = {}
    for part, start, end in zip(fractions, [0, *bounds], bounds, strict=False):
        split[part] = sorted(video for group in order[start:end] for video in groups[group])
    check_split(split)
    return split


def grouped_folds(videos: Iterable[str], *, k: int = 5, seed: int) -> list[Split]:
    """k splits into train and eval; every video is in eval once, and all videos of a latent at the
    same time.

    Raises:
        DataError: k below 2 or above the number of latents, a video twice, or a name that is not
            seedNNNN.
    """
    groups = _grouped(videos, latent)
    if not 2 <= k <= len(groups):
        raise DataError(
            f"{k} folds of {len(groups)} latents: expected at least two folds and a latent for each"
        )
    order = [
        sorted(groups)[index] for index in np.random.default_rng(seed).permutation(len(groups))
    ]
    folds = [_held_out(groups, order[fold::k]) for fold in range(k)]
    for split in folds:
        check_split(split)
    return folds


def leave_one_generator_out(videos: Iterable[str]) -> list[Split]:
    """One split per generator, in their order, with that generator's videos in eval. Latents are
    shared, unavoidably.

    Raises:
        DataError: Fewer than two generators, a video twice, or a name that is not seedNNNN.
    """
    groups = _grouped(videos, generator)
    splits = [_held_out(groups, [group]) for group in sorted(groups)]
    for split in splits:
        check_split(split, latents_may_be_shared=True)
    return splits


def _grouped(videos: Iterable[str], key: Callable[[str], int]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for video in videos:
        group = groups.setdefault(key(video), [])
        if video in group:
            raise DataError(f"video {video} is listed twice; name it once")
        group.append(video)
    return groups


def _held_out(groups: Mapping[int, list[str]], held_out: Iterable[int]) -> Split:
    held_out = set(held_out)
    return {
        "train": sorted(
            video for group, videos in groups.items() if group not in held_out for video in videos
        ),
        "eval": sorted(video for group in held_out for video in groups[group]),
    }


def check_split(split: Mapping[str, list[str]], *, latents_may_be_shared: bool = False) -> None:
    """Refuses a split in which the parts have something in common.

    Args:
        split: Part -> identifiers.
        latents_may_be_shared: Check for common videos only. The official split and
            leave-one-generator-out need it.

    Raises:
        DataError: An empty part, a video twice, or, unless allowed, a latent in two parts.
    """
    part_of_video: dict[str, str] = {}
    part_of_latent: dict[int, str] = {}
    for part, videos in split.items():
        if not videos:
            raise DataError(f"split: part {part!r} is empty; give it a larger share or more videos")
        for video in videos:
            if video in part_of_video:
                raise DataError(
                    f"split: video {video} is in {part_of_video[video]!r} and again in {part!r}; "
                    "keep it in one"
                )
            part_of_video[video] = part
            if latents_may_be_shared:
                continue
            other = part_of_latent.setdefault(latent(video), part)
            if other != part:
                raise DataError(
                    f"split: latent {latent(video)} (video {video}) is in {other!r} and in "
                    f"{part!r}; one face must not be on both sides, group the videos by latent"
                )


def split_hash(split: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 (hex) of the split as JSON with sorted keys, sorted identifiers and no blanks: order
    does not matter.
    """
    canonical = {part: sorted(videos) for part, videos in split.items()}
    return hashlib.sha256(
        json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def read_split(path: Path) -> Split:
    """Reads part -> identifiers from JSON; what the parts may share is for the caller to check.

    Raises:
        DataError: Not JSON, or not an object of lists of seedNNNN names.
        FileNotFoundError: No such file.
    """
    try:
        split = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise DataError(
            f"{path}: not JSON ({error}); correct the file or make the split again"
        ) from error
    parts = split.values() if isinstance(split, dict) and split else [None]
    if not all(
        isinstance(part, list) and all(isinstance(video, str) for video in part) for part in parts
    ):
        raise DataError(
            f'{path}: expected an object like {{"train": ["seed0000", ...], "eval": [...]}}'
        )
    for videos in split.values():
        for video in videos:
            _number(video)
    return split


def write_split(path: Path, split: Mapping[str, list[str]]) -> None:
    """Writes part -> identifiers as JSON, one line per part, replacing the file as a whole."""
    lines = ",\n".join(
        f"{json.dumps(part)}: {json.dumps(videos)}" for part, videos in split.items()
    )
    replace_file(Path(path), f"{{\n{lines}\n}}\n")


def official_split(path: Path = OFFICIAL_SPLIT) -> Split:
    """The released split, fold 0 of the published protocol: 1,600 videos in train, 400 in eval.

    It is data of the repository, not of the installed package: the default path holds at the
    repository's root. Latents are shared between the two parts (all 200 of them are in train).

    Raises:
        DataError: The file holds something else.
        FileNotFoundError: No such file.
    """
    split = read_split(path)
    sizes = {part: len(videos) for part, videos in split.items()}
    if sizes != OFFICIAL_SIZES:
        raise DataError(
            f"{path}: parts of {sizes}, expected {OFFICIAL_SIZES}; restore the file from the "
            "repository"
        )
    check_split(split, latents_may_be_shared=True)
    return split
