"""Baselines: what a metric has to beat. Each is one file with one function, and one entry here.

A baseline is given a test without its labels and returns a `Method`: scores by aspect, answers,
maps, or several of them. `lmme3dhf baseline NAME` writes what it says as prediction records.
Predictions that another program made need no entry: a CSV or a folder of maps becomes a row of the
tables with `--method NAME=PATH`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lmme3dhf.baselines.centre_map import centre_map
from lmme3dhf.baselines.generator_mean import generator_mean
from lmme3dhf.baselines.majority_answer import majority_answer
from lmme3dhf.baselines.mean_map import mean_map
from lmme3dhf.baselines.setting import Setting
from lmme3dhf.baselines.training_mean import training_mean
from lmme3dhf.baselines.uniform_map import uniform_map
from lmme3dhf.reports.evaluation import Method


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """An entry of `BASELINES`.

    Attributes:
        title: The name of its row.
        run: Setting -> predictions; None where the labels that it needs are not there.
        says: What it predicts, some of "scores", "answers" and "maps": the tables that have its
            row.
        about: What it does, for the report: the rest of a sentence that begins with its name.
        in_tables: Whether tables have its row without being asked; False for what takes long, whose
            records are given with `--method`.
    """

    title: str
    run: Callable[[Setting], Method | None]
    says: tuple[str, ...]
    about: str
    in_tables: bool = True


BASELINES: dict[str, Baseline] = {
    "training_mean": Baseline(
        title="mean of the training scores",
        run=training_mean,
        says=("scores",),
        about="gives every clip the same score, so it has errors and no correlations: the error of "
        "knowing nothing",
    ),
    "generator_mean": Baseline(
        title="mean of the clip's generator",
        run=generator_mean,
        says=("scores",),
        about="gives a clip the mean training score of its generator: what a metric reaches that "
        "recognises the generator and nothing else",
    ),
    "majority_answer": Baseline(
        title="most frequent training answer",
        run=majority_answer,
        says=("answers",),
        about="gives every clip the answer that was most frequent in training",
    ),
    "uniform_map": Baseline(
        title="uniform map",
        run=uniform_map,
        says=("maps",),
        about="says nothing about where: chance",
    ),
    "centre_map": Baseline(
        title="centre of each view",
        run=centre_map,
        says=("maps",),
        about="is a Gaussian in the middle of each view: where faces are",
    ),
    "mean_map": Baseline(
        title="mean training map",
        run=mean_map,
        says=("maps",),
        about="is the mean of the training maps: where distortions usually are",
    ),
}


def in_tables(setting: Setting, what: str) -> list[Method]:
    """Predictions of the baselines that stand in every table of "scores", "answers" or "maps"."""
    asked = [b for b in BASELINES.values() if b.in_tables and what in b.says]
    found = [(b.title, b.run(setting)) for b in asked]
    return [replace(method, name=title) for title, method in found if method is not None]
