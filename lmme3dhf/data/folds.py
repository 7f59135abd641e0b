"""A data set's lists dealt anew: the folds of cross-validation (paper, Section 5.1)."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from lmme3dhf.annotations.levels import fit_level_scale, to_json
from lmme3dhf.aspects import ASPECTS_FILE, Aspects, aspects_of
from lmme3dhf.data.gen3dhf import read_list, write_list, write_ratings
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import (
    FOLD_SEED,
    FOLDS,
    Split,
    generator,
    grouped_folds,
    leave_one_generator_out,
    write_split,
)
from lmme3dhf.files import write_json

PROTOCOLS = ("grouped", "official", "leave-one-generator-out")
_PARTS = ("train", "val", "eval")


def protocol_splits(root: Path, protocol: str, aspects: Aspects | None = None) -> dict[str, Split]:
    """The folds of a protocol on a data set.

    Args:
        root: Folder of the data set; its lists say which videos there are.
        protocol: "grouped", five folds that share no face; "leave-one-generator-out", one fold a
            generator; "official", the one split that the lists came in, `val` counted to `train`.
        aspects: What is rated; None for what the data set declares.

    Returns:
        Name of the fold, as in `datasets/splits` -> its parts "train" and "eval".

    Raises:
        DataError: Unknown protocol, no lists, or too few faces or generators.
    """
    scored = _scored(root, aspects_of(root, aspects))
    parts = {part: sorted(next(iter(members.values()))) for part, members in scored.items()}
    videos = [video for members in parts.values() for video in members]
    if protocol == "grouped":
        folds = grouped_folds(videos, k=FOLDS, seed=FOLD_SEED)
        return {f"latent_fold_{k}": split for k, split in enumerate(folds)}
    if protocol == "leave-one-generator-out":
        splits = leave_one_generator_out(videos)
        return {f"generator_{generator(split['eval'][0])}": split for split in splits}
    if protocol != "official":
        raise DataError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if "train" not in parts or "eval" not in parts:
        raise DataError(f"{root}: lists of {', '.join(parts)}; expected those of train and of eval")
    return {"official": {"train": parts["train"] + parts.get("val", []), "eval": parts["eval"]}}


def write_fold(
    root: Path,
    split: Split,
    out: Path,
    *,
    name: str,
    latents_shared: bool,
    aspects: Aspects | None = None,
) -> None:
    """Writes the lists of one fold, with level edges fitted on the fold's training part (Eq. 4).

    Clips and maps stay where they are; the marked points, and the true opinions of a synthetic data
    set, are copied.

    Args:
        root: Folder of the data set.
        split: "train" and "eval" -> videos, all of which the data set's lists hold.
        out: Folder for the fold's `numerical/`, `text/`, `distortion/`, `levels.json` and
            `splits.json`.
        name: The fold's name, for `splits.json`.
        latents_shared: Whether its parts share faces.
        aspects: What is rated; None for what the data set declares.
    """
    aspects = aspects_of(root, aspects)
    scored = _scored(root, aspects)
    answers = {
        sample.video: sample
        for part in _PARTS
        if (root / "distortion" / f"{part}.json").exists()
        for sample in read_list(
            root / "distortion" / f"{part}.json", aspects=aspects, allow_outside=True
        )
    }
    scales = {}
    for aspect in aspects.values():
        samples = {v: s for of_part in scored.values() for v, s in of_part[aspect.name].items()}
        train = np.array([samples[video].mos for video in split["train"]])
        scales[aspect.name] = fit_level_scale(train, aspect)
        fitted = replace(aspect, scale=scales[aspect.name])
        for part, videos in split.items():
            write_ratings(out, part, fitted, [samples[video] for video in videos])
    for part, videos in split.items():
        if answers:
            decided = [answers[video] for video in videos if video in answers]
            write_list(out / "distortion" / f"{part}.json", decided)
    write_json(out / "levels.json", to_json(scales))
    for file in ("fixations.json", "truth.json", ASPECTS_FILE):
        if (root / file).exists():
            shutil.copyfile(root / file, out / file)
    write_split(out / "splits.json", split, protocol=name, latents_shared=latents_shared)


def _scored(root: Path, aspects: Aspects) -> dict[str, dict[str, dict[str, Sample]]]:
    """Part -> aspect -> video -> its sample with the score."""
    found: dict[str, dict[str, dict[str, Sample]]] = {}
    for part in _PARTS:
        paths = {name: root / "numerical" / f"{part}_{name}.json" for name in aspects}
        if all(path.is_file() for path in paths.values()):
            found[part] = {
                name: {s.video: s for s in read_list(path, aspects=aspects, allow_outside=True)}
                for name, path in paths.items()
            }
            first, *others = found[part].values()
            if any(set(other) != set(first) for other in others):
                raise DataError(
                    f"{root / 'numerical'}: the lists of {part!r} name other videos for each "
                    "aspect; a fold needs all scores of every video"
                )
    if not found:
        raise DataError(
            f"{root / 'numerical'}: no lists with the scores of {' and '.join(aspects)}; see "
            "datasets/README.md"
        )
    return found
