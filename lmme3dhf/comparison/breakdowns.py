"""What lies behind the single numbers of the paper's tables: level words, generators, and what a
score gains by reading the label.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmme3dhf.aspects import Aspect
from lmme3dhf.baselines.generator_mean import NAME as GENERATOR_FLOOR
from lmme3dhf.comparison.assembly import OURS, SMOKE
from lmme3dhf.comparison.floors import FLOOR, score_floors
from lmme3dhf.comparison.methods import ComparisonError, Method
from lmme3dhf.comparison.scoring import paired, score_figures
from lmme3dhf.comparison.sources import Round, Source, read_ablations
from lmme3dhf.data.splits import generator
from lmme3dhf.metrics import measured, metrics_of
from lmme3dhf.metrics.correlation import correlations, within_between
from lmme3dhf.predictions import read_predictions
from lmme3dhf.reports.tables import Block, Cell, Column, Row, Table

LEVEL_ORACLE = "level oracle"


def _status(source: Source, status: str = "real") -> str:
    return SMOKE if source.smoke else status


def level_table(source: Source) -> Table:
    """How well our level words meet the true ones, a block with the training set's most frequent
    level beside.

    Raises:
        ComparisonError: No labels of levels, or no level words.
    """
    round_ = source.rounds[0]
    ours, floor = {}, {}
    for dimension, aspect in source.aspects.items():
        truth = round_.labels.levels.get(dimension)
        records = [] if round_.ours is None else read_predictions(round_.ours.path)
        said = {r.video: r.level for r in records if r.dimension == dimension}
        if not truth or not any(said.values()):
            continue
        ours |= _level_figures(aspect, [said.get(video) for video in truth], truth)
        trained = Counter(round_.train.levels.get(dimension, {}).values())
        if trained:
            (word, _), *_ = trained.most_common(1)
            floor |= _level_figures(aspect, [word] * len(truth), truth)
    if not ours:
        raise ComparisonError(f"{source.root}: no level words of ours with labels of levels")
    rows = [Row(name=OURS, status=_status(source), cells=ours)]
    if floor:
        rows.append(
            Row(
                name="most frequent training level",
                status=_status(source),
                cells=floor,
                ranked=False,
            )
        )
    columns = tuple(
        Column(
            key=f"{dimension}_{key.removeprefix('level_')}",
            title=metric.title,
            group=dimension.capitalize(),
            higher=metric.higher,
            decimals=metric.decimals,
        )
        for dimension in source.aspects
        for key, metric in metrics_of("levels").items()
    )
    return Table(
        name="levels",
        title="Level words" + _smoke_title(source),
        blocks=(Block(title="", columns=columns, rows=tuple(rows)),),
        notes=(
            f"Accuracy: the true one of the {_words(source)}levels; within one: it or a neighbour; "
            "kappa: Cohen's with quadratic weights, 0 for an answer that knows nothing of the "
            "clip.",
        ),
    )


def _level_figures(
    aspect: Aspect, said: Sequence[str | None], truth: dict[str, str]
) -> dict[str, float]:
    found = measured("levels", said, list(truth.values()), aspect.scale.levels)
    return {f"{aspect.name}_{key.removeprefix('level_')}": value for key, value in found.items()}


def _words(source: Source) -> str:
    five = all(len(aspect.scale.levels) == 5 for aspect in source.aspects.values())
    return "five " if five else ""


def _smoke_title(source: Source) -> str:
    return " – SMOKE, no results" if source.smoke else ""


def identity_table(
    source: Source, methods: Sequence[Method] = (), unseen: Source | None = None
) -> Table:
    """How much of a score is the generator's identity: SRCC over all test videos, within and
    between generators, and the share of the scores' variance that lies between generators.

    Args:
        source: A run, without folds.
        methods: Anybody's predictions; those without scores are left out.
        unseen: The same run with the folds that leave one generator out; None where there are none.

    Raises:
        ComparisonError: No scores of ours.
        DataError: The videos' names do not hold their generators.
    """
    round_ = source.rounds[0]
    if round_.ours is None or not round_.ours.scores:
        raise ComparisonError(f"{source.root}: no scores of ours")
    rows, explained = [], {}
    for method in (round_.ours, *(m for m in methods if m.scores)):
        figures, of_labels = _grouped(method, round_)
        explained = explained or of_labels
        name, status = (OURS, "real") if method is round_.ours else (method.name, method.status)
        rows.append(Row(name=name, status=_status(source, status), cells=figures))
    floor = next((m for kind, m in score_floors(source, round_) if m.name == GENERATOR_FLOOR), None)
    bounds = [Row(name="opinion scores", status=_status(source), cells=explained, ranked=False)]
    if floor is not None:
        figures, _ = _grouped(floor, round_)
        bounds.append(
            Row(name=floor.name, group=FLOOR, status=_status(source), cells=figures, ranked=False)
        )
    columns = tuple(
        Column(
            key=f"{dimension}_{key}",
            title=title,
            group=dimension.capitalize(),
            higher=higher,
            decimals=decimals,
        )
        for dimension in round_.labels.aspects
        for key, title, higher, decimals in (
            ("srcc", "SRCC", True, 4),
            ("within", "within", True, 4),
            ("between", "between", None, 4),
            ("explained", "explained (%)", None, 1),
        )
    )
    blocks = [
        Block(title="Test videos", columns=columns, rows=tuple(rows)),
        Block(title="To compare with (not ranked)", columns=columns, rows=tuple(bounds)),
    ]
    notes = [
        "Within: mean of the generators' own SRCC, weighted by their videos; between: SRCC of the "
        "generators' means; explained: share of the variance that lies between generators (eta "
        "squared).",
    ]
    if unseen is not None:
        blocks.append(_unseen_block(unseen))
        notes.append(
            "A fold that leaves a generator out tests on all its videos and trains on the others'; "
            "its SRCC is one within a generator, of a model that has never seen this generator."
        )
    return Table(
        name="identity",
        title="Scores and generators" + _smoke_title(source),
        blocks=tuple(blocks),
        notes=tuple(notes),
    )


def _grouped(method: Method, round_: Round) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of a method, and the explained variance of the labels on the same videos."""
    figures, of_labels = {}, {}
    for dimension in round_.labels.aspects:
        if dimension not in method.scores or dimension not in round_.labels.mos:
            continue
        videos, predicted_N, mos_N, _ = paired(method, round_, dimension, allow_missing=True)
        groups_N = np.array([generator(video) for video in videos])
        found = within_between(predicted_N, mos_N, groups_N)
        figures |= {
            f"{dimension}_srcc": correlations(predicted_N, mos_N).srcc,
            f"{dimension}_within": found.within.srcc,
            f"{dimension}_between": found.between.srcc,
            f"{dimension}_explained": 100 * found.explained_predicted,
        }
        of_labels[f"{dimension}_explained"] = 100 * found.explained_mos
    return figures, of_labels


def _unseen_block(unseen: Source) -> Block:
    found = [score_figures(round_.ours, round_)[0] for round_ in unseen.rounds]
    cells, columns = {}, []
    for dimension in unseen.aspects:
        values = [of_fold[key] for of_fold in found if (key := f"{dimension}_srcc") in of_fold]
        if not values:
            continue
        columns.append(
            Column(key=f"{dimension}_within", title="within", group=dimension.capitalize())
        )
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        cells[f"{dimension}_within"] = Cell(float(np.mean(values)), std)
    row = Row(name=f"{OURS}, unseen generators", status=_status(unseen), cells=cells)
    title = f"Generators left out in training: {len(found)} of {unseen.planned} folds are finished"
    return Block(title=title, columns=tuple(columns), rows=(row,))


@dataclass(frozen=True, kw_only=True)
class Leak:
    """SRCC by dimension, of three predictors of the same test videos.

    Attributes:
        leaking: The row whose head reads the ground-truth level word.
        honest: Our method.
        oracle: The training mean of the clip's true level; may be empty.
    """

    leaking: dict[str, float]
    honest: dict[str, float]
    oracle: dict[str, float]


def leak(source: Source) -> Leak | None:
    """What the label leak is worth on the test videos; None where no leaking row has run."""
    round_ = source.rounds[0]
    rows = [
        a.method
        for a in read_ablations(source.root, source.aspects)
        if a.leaking and a.method is not None
    ]
    if not rows or round_.ours is None:
        return None
    oracle = next((m for _, m in score_floors(source, round_) if m.name == LEVEL_ORACLE), None)
    leaking, honest, knowing = (_srcc(method, round_) for method in (rows[0], round_.ours, oracle))
    shared = [
        dimension
        for dimension in round_.labels.aspects
        if dimension in leaking and dimension in honest
    ]
    if not shared:
        return None
    return Leak(
        leaking={d: leaking[d] for d in shared},
        honest={d: honest[d] for d in shared},
        oracle={d: knowing[d] for d in shared if d in knowing},
    )


def _srcc(method: Method | None, round_: Round) -> dict[str, float]:
    figures = {} if method is None else score_figures(method, round_)[0]
    return {d: figures[f"{d}_srcc"] for d in round_.labels.aspects if f"{d}_srcc" in figures}
