"""A metric, a baseline and aspects on other scales, added from outside: each shows up in tables and
report.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.aspects import Aspect, Scale
from lmme3dhf.baselines import BASELINES, Baseline
from lmme3dhf.cli import main
from lmme3dhf.comparison.assembly import OURS
from lmme3dhf.comparison.breakdowns import level_table
from lmme3dhf.comparison.methods import Method, read_method
from lmme3dhf.comparison.sources import Round, Source, read_source
from lmme3dhf.comparison.tables import table1, table2, table3
from lmme3dhf.metrics import METRICS, Metric
from lmme3dhf.predictions import read_predictions
from lmme3dhf.reports import plots, tables
from lmme3dhf.reports.evaluation import Labels
from lmme3dhf.reports.page import Page, Section, render
from tests.comparison.conftest import PARTS

ASPECTS = {
    "comfort": Aspect(
        name="comfort",
        prompt="How comfortable is it?",
        answer_prefix="It is",
        scale=Scale(minimum=1, maximum=5, levels=("low", "middle", "high")),
    ),
    "strain": Aspect(
        name="strain",
        prompt="How straining is it?",
        answer_prefix="The strain is",
        scale=Scale(minimum=0, maximum=1, higher_is_better=False, levels=()),
    ),
}
VIDEOS = [f"seed{number:04d}" for number in (0, 1, 2, 3, 200, 201, 202, 203)]


def spread(predicted_N: np.ndarray, mos_N: np.ndarray) -> float:
    """How much wider predictions spread than opinions do."""
    return float(np.std(predicted_N) / np.std(mos_N))


def of(table: tables.Table) -> dict[str, dict[str, str]]:
    """Name of a row -> its cells in the CSV; of two rows of one name the measured first."""
    found: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(io.StringIO(tables.csv(table))):
        found.setdefault(row["method"], row)
    return found


@pytest.fixture
def rated(tmp_path: Path) -> Source:
    """Eight videos of two generators, rated and predicted in aspects of their own."""
    comfort = dict(zip(VIDEOS, np.linspace(1.2, 4.8, 8).tolist(), strict=True))
    strain = dict(zip(VIDEOS, np.linspace(0.9, 0.2, 8).tolist(), strict=True))
    words = {v: ("low", "middle", "high")[min(2, int((s - 1) / 1.34))] for v, s in comfort.items()}
    labels = Labels(
        mos={"comfort": comfort, "strain": strain},
        levels={"comfort": words},
        distortions={},
        aspects=ASPECTS,
    )
    ours = Method(
        name=OURS,
        path=tmp_path / "none.jsonl",
        status="real",
        scores={"comfort": {v: s + 0.1 for v, s in comfort.items()}, "strain": dict(strain)},
    )
    ours.path.write_text("")
    round_ = Round(name="run", labels=labels, train=labels, ours=ours)
    return Source(root=tmp_path, data=tmp_path, smoke=None, rounds=(round_,), maps=tmp_path / "m")


def test_a_metric_from_outside_is_a_column_and_on_the_page(make_run, monkeypatch, tmp_path):
    """Worked by NumPy. Catches a metric that needs a second place to be named."""

    monkeypatch.setitem(
        METRICS,
        "spread",
        Metric(of="scores", measure=spread, title="spread", higher=None, definition="a ratio"),
    )
    monkeypatch.setitem(
        METRICS,
        "named",
        Metric(
            of="answers",
            measure=lambda named, truth: float(np.mean([len(answer) for answer in named])),
            title="named",
            higher=None,
            definition="categories named per clip",
        ),
    )
    monkeypatch.setitem(
        METRICS,
        "peak",
        Metric(
            of="maps",
            measure=lambda predicted, density, fixations: float(predicted.max()),
            title="peak",
            higher=None,
            definition="largest predicted value",
        ),
    )
    run = make_run(smoke=True)
    source = read_source(run)
    cells = of(table1(source, resamples=20))[OURS]
    round_ = source.rounds[0]
    truth = round_.labels.mos["quality"]
    expected = np.std([round_.ours.scores["quality"][v] for v in truth]) / np.std([*truth.values()])
    assert float(cells["quality_spread"]) == pytest.approx(expected)
    assert float(of(table2(source))[OURS]["named"]) == 1
    assert 0.5 < float(of(table3(source))[OURS]["peak"]) <= 1
    assert "spread" in tables.markdown(table1(source, resamples=20))
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "categories named per clip" in page
    assert page.count("spread") > 3


def test_a_baseline_from_outside_is_a_row_and_a_file_of_records(make_run, monkeypatch, tmp_path):
    """Catches a list of rows that is kept elsewhere, and records that say something else."""

    def by_number(setting):
        scores = {a: {v: float(v[4:]) for v in setting.media} for a in setting.aspects}
        return setting.method("x", "by its number", scores=scores)

    entry = Baseline(title="clip's number", run=by_number, says=("scores",), about="counts clips")
    monkeypatch.setitem(BASELINES, "by_number", entry)
    run = make_run(smoke=True)
    row = of(table1(read_source(run), resamples=20))["clip's number"]
    assert row["group"] == "floor"
    assert -1 <= float(row["quality_srcc"]) <= 1
    out = tmp_path / "number.jsonl"
    words = ["baseline", "by_number", "--data", str(run / "data"), "--out", str(out)]
    assert main(words) == 0
    records = read_predictions(out)
    assert {r.video: r.score for r in records} == {v: float(v[4:]) for v in PARTS["eval"]}
    given = read_method("number", out, PARTS["eval"])
    again = of(table1(read_source(run), [given], resamples=20))["number"]
    assert again["quality_srcc"] == row["quality_srcc"]


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_writes_records_that_become_a_row(name, make_run, tmp_path):
    """Catches a floor in the tables that differs from what the verb writes."""

    run, out = make_run(smoke=True), tmp_path / "said.jsonl"
    assert main(["baseline", name, "--data", str(run / "data"), "--out", str(out)]) == 0
    method = read_method("again", out, PARTS["eval"])
    make = {"scores": table1, "answers": table2, "maps": table3}[BASELINES[name].says[0]]
    rows = of(make(read_source(run), [method]))
    columns = {"scores": "quality_mae", "answers": "jaccard", "maps": "cc"}
    column = columns[BASELINES[name].says[0]]
    if rows["again"].get(column):
        mine, theirs = (float(rows[row][column]) for row in ("again", BASELINES[name].title))
        assert mine == pytest.approx(theirs, abs=0.02)  # maps are written in 8 bits


def test_an_unknown_baseline_says_which_exist(make_run, capsys, tmp_path):
    """Catches a KeyError."""

    data = make_run(smoke=True) / "data"
    assert main(["baseline", "mean", "--data", str(data), "--out", str(tmp_path / "x")]) == 1
    said = capsys.readouterr().err
    assert "training_mean" in said
    assert "--plugin" in said


def test_aspects_on_other_scales_go_through_the_tables(rated: Source):
    """Catches columns of fixed names, and an aspect without words that breaks the level oracle."""

    table = table1(rated, resamples=20)
    rows = of(table)
    assert float(rows[OURS]["comfort_rmse"]) == pytest.approx(0.1)
    assert float(rows[OURS]["strain_srcc"]) == 1  # on its own scale, lower is better
    assert not any("quality" in key for key in rows[OURS])
    assert len(table.blocks) == 2  # no printed rows: the paper rates other aspects
    assert float(rows["level oracle"]["comfort_srcc"]) > 0.8
    assert "strain_srcc" not in rows["level oracle"] or not rows["level oracle"]["strain_srcc"]
    titles = [(column.group, column.title) for column in table.blocks[0].columns if column.shown]
    assert titles[:2] == [("Comfort", "SRCC"), ("Comfort", "PLCC")]
    page = render(
        Page(title="x", lead=(), sections=(Section(anchor="t", title="Tables", parts=(table,)),))
    )
    assert "Strain" in page


def test_level_words_count_on_their_own_scale(rated: Source, tmp_path: Path):
    """Catches the five words of Gen3DHF where three were given, and words where there are none."""

    path = tmp_path / "words.csv"
    path.write_text("video,comfort,strain\n" + "".join(f"{v},high,0.5\n" for v in VIDEOS))
    method = read_method("words", path, VIDEOS, aspects=ASPECTS)
    assert set(method.scores["comfort"].values()) == {3.0}
    path.write_text("video,strain\nseed0000,high\n")
    with pytest.raises(ValueError, match="finite number"):
        read_method("words", path, VIDEOS, aspects=ASPECTS)


def test_an_axis_says_the_scale(monkeypatch, tmp_path):
    """Catches an axis of "0-100" for every aspect."""

    drawn = []
    picture = plots.scores.picture

    def kept(*args, **kwargs):
        from contextlib import contextmanager

        @contextmanager
        def inner():
            with picture(*args, **kwargs) as figure:
                yield figure
                drawn.extend(axis.get_ylabel() for axis in figure.axes)

        return inner()

    monkeypatch.setattr(plots.scores, "picture", kept)
    values = {"comfort": [1.5, 2.5, 4.0], "strain": [0.1, 0.5, 0.9]}
    scales = {name: aspect.scale for name, aspect in ASPECTS.items()}
    plots.score_scatter(
        tmp_path / "s.png", values, values, dict.fromkeys(values, ""), scales=scales
    )
    assert drawn == [
        "mean opinion score (1-5)",
        "mean opinion score (0-1, lower is better)",
    ]


def test_no_words_no_level_table(rated: Source):
    """Catches a table of empty rows."""

    with pytest.raises(ValueError, match="level words"):
        level_table(rated)
