"""Who trains and who is tested: splits grouped by face, folds, and the official split (paper,
Section 5.1).

A clip's identifier seedNNNN holds its origin: id = generator * 200 + latent. Different generators
drew the same latents, so a face may come back under another generator; our splits and folds keep
all videos of a latent on one side. The released split, 1,600 against 400 videos, does not.

A split's file tells which protocol it belongs to, whether its parts may share faces, and its own
hash: {"protocol": ..., "latents_shared": ..., "sha256": ..., "parts": {"train": [...], ...}}. Older
files hold the parts alone.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmme3dhf.data.release import read_json
from lmme3dhf.data.samples import DataError
from lmme3dhf.files import replace_file

LATENTS = 200
# From the root of the repository.
OFFICIAL_SPLIT = Path("datasets", "splits", "official.json")
OFFICIAL_SIZES = {"train": 1600, "eval": 400}

FOLDS, FOLD_SEED = 5, 0  # paper, Section 5.1: five folds; the seed is ours

Split = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class SplitFile:
    """What a split's file says.

    Attributes:
        parts: Part -> identifiers.
        protocol: Name of the protocol that the split is one round of ("latent_fold_0"), or None.
        latents_shared: Whether a face may be in several parts; None where the file does not say.
    """

    parts: Split
    protocol: str | None = None
    latents_shared: bool | None = None


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

    The numbers of videos are as near to the shares as whole latents allow: the sum of the absolute
    differences over the parts is the smallest possible.

    Args:
        videos: Identifiers, in any order: the result does not depend on it.
        fractions: Part -> its share of the videos; the shares sum to 1, each gets at least one
            latent.
        rng: Draws the order of the latents.

    Returns:
        Part -> its identifiers, sorted.

    Raises:
        DataError: A video twice, a name that is not seedNNNN, shares that do not sum to 1, or
            fewer latents than parts.
    """
    if not math.isclose(sum(fractions.values()), 1) or min(fractions.values()) <= 0:
        raise DataError(f"shares {dict(fractions)}: expected positive numbers that sum to 1")
    groups = _grouped(videos, latent)
    order = [sorted(groups)[index] for index in rng.permutation(len(groups))]
    if len(order) < len(fractions):
        raise DataError(
            f"split: {len(order)} latents for {len(fractions)} parts ({', '.join(fractions)}); all "
            "videos of a latent stay together, so give more latents or fewer parts"
        )
    split, start = {}, 0
    for later, part, share in zip(
        reversed(range(len(fractions))), fractions, np.cumsum(list(fractions.values())), strict=True
    ):
        end = min(max(round(share * len(order)), start + 1), len(order) - later)
        split[part] = sorted(video for group in order[start:end] for video in groups[group])
        start = end
    # The draw of earlier releases stands where none is nearer.
    nearest = _nearest(groups, order, fractions, rng)
    if _distance(split, fractions) > _distance(nearest, fractions):
        split = nearest
    check_split(split)
    return split


def _distance(split: Split, fractions: Mapping[str, float]) -> float:
    """Videos by which the parts are off their shares, in all."""
    total = sum(map(len, split.values()))
    return round(sum(abs(len(split[part]) - fractions[part] * total) for part in fractions), 9)


def _nearest(
    groups: Mapping[int, list[str]],
    order: list[int],
    fractions: Mapping[str, float],
    rng: np.random.Generator,
) -> Split:
    """Groups of unequal sizes, dealt to the parts so that their sizes are as near to the shares as
    they can be; which groups, of all that give the same sizes, is drawn.
    """
    sizes = [len(groups[group]) for group in order]
    total, largest = sum(sizes), max(sizes)
    rest = max(fractions, key=lambda part: fractions[part])  # gets what the others leave
    parts = [part for part in fractions if part != rest]
    targets = [fractions[part] * total for part in parts]
    # More than a group above its share, a part would better give one away.
    shape = [min(total, math.floor(target) + largest) + 1 for target in targets]
    # after[i]: the sizes that the parts other than `rest` can get from the groups from i on.
    after = [np.zeros(shape, dtype=bool) for _ in range(len(order) + 1)]
    after[-1][(0,) * len(parts)] = True
    for index in reversed(range(len(order))):
        after[index] = after[index + 1].copy()
        for axis in range(len(parts)):
            after[index] |= _shifted(after[index + 1], sizes[index], axis)
    reached = [
        wanted
        for wanted in np.argwhere(after[0]).tolist()
        if min(wanted) > 0 and sum(wanted) < total
    ]

    def distance(wanted: list[int]) -> float:
        apart = [size - target for size, target in zip(wanted, targets, strict=True)]
        return round(sum(map(abs, apart)) + abs(sum(apart)), 9)

    left = min(reached, key=distance)
    split: Split = {part: [] for part in fractions}
    for index, group in enumerate(order):
        choices = [(rest, left)]
        for axis, part in enumerate(parts):
            if left[axis] >= sizes[index]:
                choices.append((part, [n - sizes[index] * (k == axis) for k, n in enumerate(left)]))
        choices = [(part, then) for part, then in choices if after[index + 1][tuple(then)]]
        weights = np.array([fractions[part] for part, _ in choices])
        part, left = choices[rng.choice(len(choices), p=weights / weights.sum())]
        split[part] += groups[group]
    return {part: sorted(videos) for part, videos in split.items()}


def _shifted(reached: np.ndarray, by: int, axis: int) -> np.ndarray:
    """The sizes with `by` more on one axis; what leaves the array is dropped."""
    moved = np.zeros_like(reached)
    kept = reached.shape[axis] - by
    if kept > 0:
        np.moveaxis(moved, axis, 0)[by:] = np.moveaxis(reached, axis, 0)[:kept]
    return moved


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
    held_out = [order[fold::k] for fold in range(k)]
    if len({len(group) for group in groups.values()}) > 1:
        # The largest groups first, each to the fold with the fewest videos.
        held_out = [[] for _ in range(k)]
        for group in sorted(order, key=lambda group: -len(groups[group])):
            min(held_out, key=lambda fold: sum(len(groups[g]) for g in fold)).append(group)
    folds = [_held_out(groups, fold) for fold in held_out]
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
    """Reads part -> identifiers. Parts may share latents unless the file says that they do not.

    Raises:
        DataError: As `read_split_file` and `check_split`, with the file.
        FileNotFoundError: No such file.
    """
    split = read_split_file(path)
    try:
        check_split(split.parts, latents_may_be_shared=split.latents_shared is not False)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return split.parts


def read_split_file(path: Path) -> SplitFile:
    """Reads a split and what its file says about it; an older file says nothing.

    Raises:
        DataError: Not JSON, not an object of lists of seedNNNN names, a key twice, or parts that
            are not those of the file's hash.
        FileNotFoundError: No such file.
    """
    content, twice = read_json(path)
    if twice:
        raise DataError(f"{path}: the key {twice[0]!r} is there more than once; keep one")
    header = {}
    if isinstance(content, dict) and isinstance(content.get("parts"), dict):
        header = {key: value for key, value in content.items() if key != "parts"}
        content = content["parts"]
    parts = content.values() if isinstance(content, dict) and content else [None]
    if not all(
        isinstance(part, list) and all(isinstance(video, str) for video in part) for part in parts
    ):
        raise DataError(
            f'{path}: expected an object like {{"parts": {{"train": ["seed0000", ...], "eval": '
            "[...]}}"
        )
    _check_header(path, header)
    for videos in parts:
        for video in videos:
            try:
                _number(video)
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
    expected, found = header.get("sha256"), split_hash(content)
    if expected is not None and expected != found:
        raise DataError(
            f"{path}: its parts are not those it was written with (their hash is {found[:12]}..., "
            f"the file says {expected[:12]}...); restore the file, or write the split again if the "
            "change was meant"
        )
    return SplitFile(
        parts=content,
        protocol=header.get("protocol"),
        latents_shared=header.get("latents_shared"),
    )


def _check_header(path: Path, header: dict[str, object]) -> None:
    kinds = {"protocol": str, "latents_shared": bool, "sha256": str}
    for key, value in header.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            raise DataError(
                f"{path}: {key!r} is {str(value)[:40]!r}; beside its parts a split has a protocol "
                "(text), latents_shared (true or false) and sha256 (text)"
            )


def write_split(
    path: Path,
    split: Mapping[str, list[str]],
    *,
    protocol: str | None = None,
    latents_shared: bool | None = None,
) -> None:
    """Writes a split with its hash as JSON, one line per part, replacing the file as a whole.

    Args:
        path: The file.
        split: Part -> identifiers.
        protocol: Name of the protocol, for people.
        latents_shared: Whether a face may be in several parts; None leaves it unsaid, and the split
            unchecked.

    Raises:
        DataError: The split is not what is said of it: see `check_split`.
    """
    header: dict[str, object] = {}
    if protocol is not None:
        header["protocol"] = protocol
    if latents_shared is not None:
        check_split(split, latents_may_be_shared=latents_shared)
        header["latents_shared"] = latents_shared
    header["sha256"] = split_hash(split)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in header.items())
    parts = ",\n".join(
        f"{json.dumps(part)}: {json.dumps(videos)}" for part, videos in split.items()
    )
    replace_file(Path(path), f'{{\n{lines},\n"parts": {{\n{parts}\n}}\n}}\n')


def write_protocols(
    folder: Path, videos: Iterable[str] | None = None, official: Path = OFFICIAL_SPLIT
) -> list[Path]:
    """Writes the splits of our protocols: five folds grouped by latent, `latent_fold_0.json` to
    `latent_fold_4.json`, and one split for each generator left out, `generator_0.json` and so on.

    The same videos give the same bytes. Everything is drawn before the first file is written.

    Args:
        folder: Where to write.
        videos: Identifiers, in any order; those of the official split where none are given, which
            is then written too, as `official.json`.
        official: The file of the official split; not read where videos are given.

    Returns:
        The files, in the order above, the official split first.

    Raises:
        DataError: Fewer latents than folds, fewer than two generators, a video twice, a name that
            is not seedNNNN, or no official split.
    """
    splits: dict[str, tuple[Split, bool]] = {}
    if videos is None:
        split = official_split(official)
        splits["official"] = (split, True)
        videos = [video for part in split.values() for video in part]
    videos = list(videos)
    for fold, split in enumerate(grouped_folds(videos, k=FOLDS, seed=FOLD_SEED)):
        splits[f"latent_fold_{fold}"] = (split, False)
    for split in leave_one_generator_out(videos):
        splits[f"generator_{generator(split['eval'][0])}"] = (split, True)
    paths = []
    for name, (split, shared) in splits.items():
        paths.append(Path(folder) / f"{name}.json")
        write_split(paths[-1], split, protocol=name, latents_shared=shared)
    return paths


def official_split(path: Path = OFFICIAL_SPLIT) -> Split:
    """The released split, fold 0 of the published protocol: 1,600 videos in train, 400 in eval.

    It is data of the repository, not of the installed package: the default path holds at the
    repository's root. Latents are shared between the two parts (all 200 of them are in train).

    Raises:
        DataError: No such file, or one that holds something else.
    """
    if not Path(path).is_file():
        raise DataError(
            f"{path}: the official split is not here; run this at the root of the repository, or "
            "name the videos to be split"
        )
    split = read_split(path)
    sizes = {part: len(videos) for part, videos in split.items()}
    if sizes != OFFICIAL_SIZES:
        raise DataError(
            f"{path}: parts of {sizes}, expected {OFFICIAL_SIZES}; restore the file from the "
            "repository"
        )
    return split
