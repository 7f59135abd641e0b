"""What a comparison reads of ours: a run or a data set with labels, its folds and its ablations."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lmme3dhf.annotations.fixations import Fixations, looked_at, read_fixations
from lmme3dhf.aspects import GEN3DHF, Aspects, aspects_from, aspects_of
from lmme3dhf.comparison.methods import ComparisonError, Method, of_records
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.errors import UserError
from lmme3dhf.files import is_inside, read_object
from lmme3dhf.predictions import read_predictions, require_predicted
from lmme3dhf.reports.evaluation import Labels

SMOKE_WIDTH = 2048  # hidden size; a model below it is no base that the paper's numbers are about


@dataclass(frozen=True, kw_only=True)
class Round:
    """One test: its videos, the training videos, and our predictions.

    Attributes:
        name: "run", or the fold's name.
        labels: Of the test videos.
        train: Of the training videos; empty where there are none.
        ours: Our method's predictions; None where there is only a data set.
    """

    name: str
    labels: Labels
    train: Labels
    ours: Method | None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set with one test or the tests of several folds.

    Attributes:
        root: Folder of the run or the data set.
        data: Folder of the data set.
        smoke: Why its numbers are no results, as a part of a sentence; None where they are.
        rounds: The finished tests.
        folds: Protocol of the folds; None for a single test.
        planned: Tests that the protocol has.
        maps: Folder of the ground-truth maps; need not exist.
        points: Video -> marked points; None where they are not known.
    """

    root: Path
    data: Path
    smoke: str | None
    rounds: tuple[Round, ...]
    folds: str | None = None
    planned: int = 1
    maps: Path
    points: dict[str, Fixations] | None = None

    @property
    def aspects(self) -> Aspects:
        """What was rated."""
        return self.rounds[0].labels.aspects

    def looked_at(self, round_: Round) -> tuple[list[str], list[str]]:
        """The test videos whose maps can be compared, and those that no marker looked at."""
        return looked_at(round_.labels.videos, self.maps, self.points)

    @property
    def ratings(self) -> Path | None:
        """The raw ratings; None where they are not there, as in the release."""
        found = (self.data / "raw" / "ratings.csv", self.data / "ratings.csv")
        return next((path for path in found if path.is_file()), None)


def labels_of(samples: Iterable[Sample], aspects: Aspects = GEN3DHF) -> Labels:
    """The labels that lists hold.

    Args:
        samples: From `data.gen3dhf.read_list`.
        aspects: What was rated.
    """
    labels = Labels(mos={}, levels={}, distortions={}, aspects=aspects)
    for sample in samples:
        if sample.mos is not None:
            labels.mos.setdefault(sample.task, {})[sample.video] = sample.mos
        if sample.level is not None:
            labels.levels.setdefault(sample.task, {})[sample.video] = sample.level
        if sample.distortions is not None:
            labels.distortions[sample.video] = frozenset(sample.distortions)
    return labels


def part_lists(data: Path, part: str, aspects: Aspects | None = None) -> list[Path]:
    """The lists of one part of a data set that hold all its labels; that of the answers only where
    it is there, since the release has none.
    """
    numerical = [
        data / "numerical" / f"{part}_{dimension}.json" for dimension in aspects_of(data, aspects)
    ]
    answers = data / "distortion" / f"{part}.json"
    return [*numerical, answers] if answers.is_file() else numerical


def read_part(data: Path, part: str, aspects: Aspects | None = None) -> Labels:
    """The labels of one part of a data set, from those of its lists that are there; none where
    there is no list.
    """
    aspects = aspects_of(data, aspects)
    return labels_of(
        (
            s
            for path in part_lists(data, part, aspects)
            if path.is_file()
            for s in read_list(path, aspects=aspects, allow_outside=True)
        ),
        aspects,
    )


def read_source(
    run: Path | None = None,
    data: Path | None = None,
    *,
    part: str = "eval",
    folds: str | None = None,
) -> Source:
    """Opens a run folder, or a data set without one.

    Args:
        run: Folder of a run. Its data set is `RUN/data`, or the one that its settings name.
        data: Folder of a data set; in place of a run, or where the run's own is elsewhere.
        part: The part that is tested.
        folds: Protocol of a cross-validation below the run, in place of its plain test.

    Raises:
        ComparisonError: Neither is given, something is not there, or no fold is finished.
        PredictionError: Some of the run's videos could not be predicted, or its predictions cannot
            be read.
        DataError: A list that cannot be read.
    """
    if run is None and data is None:
        raise ComparisonError("neither a run nor a data set is given; give --run or --data")
    root = data if run is None else run
    if not root.is_dir():
        raise ComparisonError(f"{root}: no such folder; give that of a run or a data set")
    data = data or _data_of(run)
    points = data / "fixations.json"
    aspects = _aspects(data, run)
    found = Source(
        root=root,
        data=data,
        smoke=_smoke(data, run),
        rounds=(),
        folds=folds,
        maps=data / _map_folder(run),
        points=read_fixations(points) if points.is_file() else None,
    )
    if folds is None:
        ours = None if run is None else run / "predictions.jsonl"
        return replace(found, rounds=(_round("run", data, part, ours, aspects),))
    if run is None:
        raise ComparisonError("folds are those of a run; give --run with --folds")
    folder = run / "crossval" / folds
    listed = _json(folder / "folds.json", f"no cross-validation {folds!r} in {run}").get("folds")
    if not isinstance(listed, list) or not listed:
        raise ComparisonError(f"{folder / 'folds.json'}: no folds in it; run the protocol again")
    rounds = []
    for fold in listed:
        if not isinstance(fold, dict) or not isinstance(fold.get("folder"), str):
            raise ComparisonError(
                f"{folder / 'folds.json'}: {str(fold)[:60]!r}, expected name, folder and finished"
            )
        if fold.get("finished"):
            where = _below(folder, fold["folder"], folder / "folds.json")
            ours = where / "predictions.jsonl"
            name = fold.get("name", fold["folder"])
            rounds.append(_round(name, where / "data", "eval", ours, aspects))
    if not rounds:
        raise ComparisonError(
            f"{folder}: none of {len(listed)} folds is finished; the same `lmme3dhf evaluate "
            "crossval` goes on"
        )
    return replace(found, rounds=tuple(rounds), planned=len(listed))


def _data_of(run: Path) -> Path:
    if (run / "data").is_dir():
        return run / "data"
    settings = run / "config.yaml"
    if not settings.is_file():
        raise ComparisonError(
            f"{run}: neither data/ nor config.yaml in it; give the folder of a run (a data set "
            "without one is given to the tables' scripts by --data)"
        )
    named = (_settings(settings).get("data") or {}).get("root")
    if not named or not Path(named).is_dir():
        raise ComparisonError(f"{settings}: its data set {named} is not here; put it back there")
    return Path(named)


def _aspects(data: Path, run: Path | None) -> Aspects:
    """What the settings of a run say was rated, else its data set; folds share it."""
    settings = None if run is None else run / "config.yaml"
    given = _settings(settings).get("aspects") if settings and settings.is_file() else None
    return aspects_of(data, aspects_from(given) if given else None)


def _map_folder(run: Path | None) -> str:
    """Where the maps are, from the data set's folder: a fold of a run shares those of the run."""
    settings = None if run is None else run / "config.yaml"
    if settings is None or not settings.is_file():
        return "saliency_map"
    return (_settings(settings).get("saliency") or {}).get("maps") or "saliency_map"


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ComparisonError(
            f"{path}: not YAML in UTF-8 ({str(error).splitlines()[0]}); restore it"
        ) from error
    if not isinstance(content, dict):
        raise ComparisonError(f"{path}: not the settings of a run; expected what the run wrote")
    return content


def _smoke(data: Path, run: Path | None) -> str | None:
    reasons = []
    if (data / "truth.json").exists():
        reasons.append("the data set is synthetic")
    config = None if run is None else run / "model" / "config.json"
    if config is not None and config.is_file():
        content = _json(config, "no model")
        width = (content.get("text_config") or content).get("hidden_size", SMOKE_WIDTH)
        if width < SMOKE_WIDTH:
            reasons.append(f"the model has a hidden size of {width}")
    return " and ".join(reasons) or None


def _json(path: Path, absent: str) -> dict[str, Any]:
    if not path.is_file():
        raise ComparisonError(f"{path}: no such file ({absent}); check the folder")
    return read_object(path, "write it again, or restore it")


def _round(name: str, data: Path, part: str, predictions: Path | None, aspects: Aspects) -> Round:
    labels = read_part(data, part, aspects)
    if not labels.videos:
        raise ComparisonError(
            f"{data}: no labels of the part {part!r}; expected one of "
            + ", ".join(f"numerical/{part}_{name}.json" for name in aspects)
            + f" or distortion/{part}.json"
        )
    ours = None if predictions is None else _ours(predictions, labels, aspects)
    return Round(name=name, labels=labels, train=read_part(data, "train", aspects), ours=ours)


def _ours(path: Path, labels: Labels, aspects: Aspects) -> Method:
    if not path.is_file():
        raise ComparisonError(f"{path}: no predictions in the run; `lmme3dhf predict` writes them")
    records = require_predicted(read_predictions(path), labels.videos, str(path))
    return of_records(records, path, status="real", aspects=aspects)


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A row of `RUN/ablations/rows.json`.

    Attributes:
        table: 4 or 5, 0 for a row of our own.
        number: Of the paper's row; empty for our own.
        title: What was changed.
        marks: Check marks of Table 5 that are set.
        leaking: Whether it sees labels of the test videos.
        method: Its predictions; None where it has not run.
        note: What a reader should know; may be empty.
    """

    table: int
    number: str
    title: str
    marks: dict[str, bool]
    leaking: bool
    method: Method | None
    note: str


def read_ablations(run: Path, aspects: Aspects = GEN3DHF) -> list[Ablation]:
    """The ablations of a run; none where it has no file of them.

    Raises:
        ComparisonError: The file holds something else.
        PredictionError: A predictions file that cannot be read.
    """
    path = run / "ablations" / "rows.json"
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_bytes())
        return [_ablation(run, entry, aspects) for entry in content]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise ComparisonError(
            f"{path}: not a list of ablations ({type(error).__name__}: {error}); run `lmme3dhf "
            "evaluate ablations` again"
        ) from error


def _below(folder: Path, name: str, where: Path) -> Path:
    """A path that a file of a run gives, which stays in the run: runs may come from strangers."""
    if not is_inside(folder / name, folder):
        raise ComparisonError(
            f"{where}: {name!r} leads out of {folder}; put it into that folder and correct the path"
        )
    return folder / name


def _ablation(run: Path, entry: dict[str, Any], aspects: Aspects) -> Ablation:
    predictions = _below(run, entry["predictions"], run / "ablations" / "rows.json")
    method = None
    if predictions.is_file():
        records = read_predictions(predictions)
        method = of_records(
            records, predictions, name=entry["title"], status="real", aspects=aspects
        )
        method = replace(method, leaking=bool(entry.get("leaking")))
    return Ablation(
        table=int(entry["table"]),
        number=str(entry.get("number") or ""),
        title=str(entry["title"]),
        marks=dict(entry.get("marks") or {}),
        leaking=bool(entry.get("leaking")),
        method=method,
        note=str(entry.get("note") or ""),
    )
