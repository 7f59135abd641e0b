"""Cross-validation: the chain once for every fold of a protocol (paper, Section 5.1: five folds).

A fold is an ordinary run in a folder of its own, with lists of its own; what it left is used when
the same command runs again. Frozen features are shared, since they do not depend on the lists.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lmme3dhf.config import Config
from lmme3dhf.data.folds import protocol_splits, write_fold
from lmme3dhf.data.samples import DataError
from lmme3dhf.files import write_json
from lmme3dhf.pipeline.chain import draw_data, open_job, run_chain
from lmme3dhf.vocabulary import DIMENSIONS

FOLDER, FOLDS, FIGURES = "crossval", "folds.json", "figures.json"


def run_crossval(config: Config, out: Path, protocol: str, only: Sequence[int] = ()) -> Path:
    """Runs every fold that is not finished, in order.

    Args:
        config: Settings of the chain.
        out: Folder of the run; the folds come below `out/crossval/<protocol>`.
        protocol: One of `data.folds.PROTOCOLS`.
        only: Numbers of the folds to run; empty for all.

    Returns:
        `folds.json`: each fold's name, folder, sizes, seconds and whether it is finished. The
        fold's figures are in its own `figures.json`.

    Raises:
        DataError: No such fold, or a protocol that the data set does not allow.
    """
    config = open_job(config, out)
    draw_data(config, out)
    splits = protocol_splits(config.data.root, protocol)
    missing = [number for number in only if not 0 <= number < len(splits)]
    if missing:
        raise DataError(
            f"fold {missing[0]}: {protocol} has the folds 0 to {len(splits) - 1}; give some of them"
        )
    below = out / FOLDER / protocol
    known = [
        {
            "name": name,
            "folder": f"fold_{number}",
            "finished": (below / f"fold_{number}" / FIGURES).exists(),
            "train": len(split["train"]),
            "eval": len(split["eval"]),
        }
        for number, (name, split) in enumerate(splits.items())
    ]
    taken: list[float] = []
    todo = [k for k in (only or range(len(splits))) if not known[k]["finished"]]
    for done, number in enumerate(todo):
        fold, split = known[number], splits[known[number]["name"]]
        left = f", about {np.mean(taken) * (len(todo) - done):.0f} s left in all" if taken else ""
        print(f"== {protocol}: {fold['name']} ({done + 1} of {len(todo)}){left}", flush=True)
        folder = below / fold["folder"]
        data = folder / "data"
        write_fold(
            config.data.root,
            split,
            data,
            name=fold["name"],
            latents_shared=protocol != "grouped",
        )
        job = run_chain(open_job(_of_fold(config, data), folder), folder)
        taken.append(job.seconds())
        write_json(folder / FIGURES, job.done["report"]["result"] | {"seconds": job.seconds()})
        fold["finished"] = True
        _tell(fold["name"], job.done["report"]["result"])
        write_json(below / FOLDS, {"protocol": protocol, "folds": known})
    write_json(below / FOLDS, {"protocol": protocol, "folds": known})
    return below / FOLDS


def _of_fold(config: Config, data: Path) -> Config:
    source = config.data.resolved()
    maps = os.path.relpath(source.root / config.saliency.maps, data)
    return replace(
        config,
        data=replace(source, root=data),
        saliency=replace(config.saliency, maps=maps),
        synthetic=replace(config.synthetic, draw=False),
    )


def _tell(name: str, figures: dict) -> None:
    scores = ", ".join(f"{d} SRCC {figures[d]['srcc']:.3f}" for d in DIMENSIONS)
    print(f"{name}: {scores}", flush=True)
