"""A run's report: everything is on the page, its numbers are those of the files beside it, and what
the run lacks is said.
"""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.cli import main
from lmme3dhf.comparison import drawings
from lmme3dhf.comparison.breakdowns import Leak
from lmme3dhf.departures import DEPARTURES, GAPS
from lmme3dhf.pipeline.report_sections import explained, leak_sentences
from tests.comparison.conftest import (
    HEIGHT,
    PARTS,
    VIDEOS,
    WIDTH,
    mos,
    write_part,
    write_records,
    write_run,
)
from tests.reports.html_page import ReadPage

SETTINGS = "model: {run}/base\nseed: 42\ndata:\n  root: {run}/data\n"


def add_ablations(run: Path) -> None:
    """Row (3) of Table 4, row (2) of Table 5, and the leaking protocol, which is nearly perfect."""
    rows = []
    for name, table, at, noise in (
        ("maps", 4, "3", 1),
        ("words", 5, "2", 2),
        ("leak", 0, "", 0.05),
    ):
        (run / "ablations" / name).mkdir(parents=True)
        write_records(
            run / "ablations" / name / "predictions.jsonl", PARTS["eval"], noise, method=name
        )
        rows.append(
            {
                "id": name,
                "table": table,
                "number": at,
                "title": f"Row {name}",
                "start": "text",
                "stages": ["score"],
                "settings": {"score.read": "label"} if name == "leak" else {},
                "marks": {"llm": True} if table == 5 else {},
                "leaking": name == "leak",
                "note": "",
                "predictions": f"ablations/{name}/predictions.jsonl",
                "seconds": 1.0,
            }
        )
    (run / "ablations" / "rows.json").write_text(json.dumps(rows))


def add_folds(run: Path, protocol: str, tests: list[list[str]], planned: int) -> None:
    """The first folds of a protocol, finished; each is tested on the videos that are given."""
    below = run / "crossval" / protocol
    folds = []
    for number in range(planned):
        finished = number < len(tests)
        folds.append({"name": f"round_{number}", "folder": f"fold_{number}", "finished": finished})
        if finished:
            folder = below / f"fold_{number}"
            write_part(folder / "data", "eval", tests[number])
            rest = [video for video in VIDEOS if video not in tests[number]]
            write_part(folder / "data", "train", rest)
            write_records(folder / "predictions.jsonl", tests[number], noise=1 + number)
    (below / "folds.json").write_text(json.dumps({"protocol": protocol, "folds": folds}))


def write_strips(run: Path) -> None:
    (run / "data" / "image").mkdir()
    for number, video in enumerate(VIDEOS):
        strip = np.full((HEIGHT, WIDTH, 3), 8 * number, dtype=np.uint8)
        Image.fromarray(strip).save(run / "data" / "image" / f"{video}.png")


@pytest.fixture(scope="module", autouse=True)
def quick_bands():
    """The bands of the scatter plots, which take most of the time, from four resamples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawings, "BAND_RESAMPLES", 4)
        yield


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A smoke run of its own."""
    return write_run(tmp_path / "run", smoke=True)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """The page of a smoke run that has everything, with two foreign methods."""
    folder = tmp_path_factory.mktemp("full")
    run = write_run(folder / "run", smoke=True)
    (run / "config.yaml").write_text(SETTINGS.format(run=run))
    write_strips(run)
    (run / "stage1").mkdir()
    steps = [{"step": step, "loss": 1 / step, "learning_rate": 0.1} for step in range(1, 30)]
    (run / "stage1" / "losses.jsonl").write_text("\n".join(map(json.dumps, steps)))
    add_ablations(run)
    add_folds(run, "grouped", [VIDEOS[::3], VIDEOS[1::3]], planned=3)
    by_generator = [[v for v in VIDEOS if int(v[4:]) // 200 == g] for g in range(3)]
    add_folds(run, "leave-one-generator-out", by_generator[:2], planned=3)
    lines = [f"{video},{-mos(video, 'quality')}" for video in PARTS["eval"]]
    (folder / "niqe.csv").write_text("\n".join(["video,quality", *lines]))
    maps = run / "predictions_maps"
    words = ["--method", f"NIQE={folder / 'niqe.csv'}", f"GBVS={maps}", "--lower_is_better", "NIQE"]
    assert main(["report", str(run), "--out", str(folder / "report.html"), *words]) == 0
    return folder / "report.html"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_page_needs_nothing_else(full: Path):
    """No file, no address, no script; links stay on it and lead somewhere. Catches a picture that
    is missing once the page is sent to somebody.
    """
    page = ReadPage(full.read_text(encoding="utf-8"))
    assert not page.faults
    assert len(page.sources) > 12
    assert all(source.startswith("data:image/") for source in page.sources)
    assert len(page.links) > 25
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} == set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "script" not in page.names
    assert "link" not in page.names


def test_the_page_names_no_folder_of_the_machine(full: Path):
    """Catches a path of whoever made the page, in the settings or in a reason."""
    text = full.read_text(encoding="utf-8")
    assert str(full.parent) not in text
    assert "root: RUN/data" in text


@pytest.mark.parametrize(
    ("name", "key", "title", "decimals"),
    [
        ("table1", "quality_srcc", "Quality SRCC", 4),
        ("table2", "accuracy", "Accuracy (%, jaccard)", 2),
        ("table3_mit", "kld", "KLD ↓", 4),
        ("table3_lmme3dhf-repo", "nss", "NSS ↑", 4),
        ("table4", "cc", "CC ↑", 4),
        ("table5", "authenticity_krcc", "Authenticity KRCC", 4),
        ("levels", "quality_kappa", "Quality kappa", 3),
        ("identity", "quality_within", "Quality within", 4),
        ("folds_grouped", "quality SRCC", "quality SRCC", 4),
    ],
)
def test_numbers_on_the_page_are_those_of_the_files(
    full: Path, name: str, key: str, title: str, decimals: int
):
    """Each measured row, rounded. Catches a page made from other numbers than the CSV."""
    html = full.read_text(encoding="utf-8")
    start = html.index(f'<h3 id="{name}">')
    end = re.search(r"<h[23] id=", html[start + 5 :])
    part = ReadPage(html[start : start + 5 + end.start()].rsplit("</section>", 1)[0])
    shown = {}
    for table in part.tables:
        titles = table[0]
        if len(table[1]) == len(titles) - 2:  # the columns' titles are below those of their groups
            titles = [*titles[:2], *(" ".join(p) for p in zip(titles[2:], table[1], strict=True))]
        titles = [one.strip() for one in titles]
        if title in titles:
            at = titles.index(title)
            shown |= {row[0].split("\xa0")[0]: row[at] for row in table if len(row) > at}
    compared = 0
    for row in rows_of(full.parent / "report_files" / "tables" / f"{name}.csv"):
        if row["status"] != "not run" and row[key]:
            spread = f" ±\xa0{float(row[f'{key}_sd']):.{decimals}f}" if row.get(f"{key}_sd") else ""
            assert shown[row["method"]] == f"{float(row[key]):.{decimals}f}{spread}"
            compared += 1
    assert compared


def test_smoke_is_said_before_everything_else_and_in_every_table(full: Path):
    """Catches numbers of a tiny model that look like results."""
    page = ReadPage(full.read_text(encoding="utf-8"))
    assert page.text.index("SMOKE RUN") < page.text.index("At a glance")
    for name in ("table1", "table3_mit", "identity"):
        for row in rows_of(full.parent / "report_files" / "tables" / f"{name}.csv"):
            assert row["status"] in ("smoke", "not run")


def test_foreign_methods_are_rows(full: Path):
    """Catches options that do not reach the tables."""
    tables = full.parent / "report_files" / "tables"
    scored = {
        row["method"]: row for row in rows_of(tables / "table1.csv") if row["status"] == "smoke"
    }
    assert float(scored["NIQE"]["quality_srcc"]) == pytest.approx(1)
    assert "GBVS" not in scored
    mapped = {row["method"]: row for row in rows_of(tables / "table3_mit.csv") if row["cc"]}
    assert mapped["GBVS"]["cc"] == mapped["LMME3DHF"]["cc"]  # the same maps
    assert "NIQE" not in mapped


def test_every_floor_and_ceiling_is_explained(full: Path):
    """Of all tables that were written. Catches a new row that the page does not explain."""
    kinds = ("floor", "oracle (is given a label)", "one person", "ceiling")
    found = {
        row["method"]
        for path in (full.parent / "report_files" / "tables").glob("*.csv")
        for row in rows_of(path)
        if row["group"] in kinds
    }
    assert len(found) > 6
    assert found <= set(explained())
    text = ReadPage(full.read_text(encoding="utf-8")).text
    assert all(explained()[name] in text for name in found)


def test_the_leak_is_explained_in_three_sentences_with_its_numbers(full: Path):
    """The numbers are Table 5's. Catches a difference of the wrong sign, and a fourth sentence."""
    found = rows_of(full.parent / "report_files" / "tables" / "table5.csv")
    rows = {row["method"]: row for row in found if row["status"] == "smoke"}
    page = ReadPage(full.read_text(encoding="utf-8")).text
    for dimension in ("quality", "authenticity"):
        key = f"{dimension}_srcc"
        high, ours = (
            float(rows[name][key]) for name in ("LEAKING: Row leak", "(5) LoRA on LLM, regression")
        )
        assert high > ours
        assert (
            f"{high:.3f} for {dimension} where the head that reads no label has {ours:.3f} "
            f"({high - ours:+.3f})" in page
        )
    made = leak_sentences(
        Leak(leaking={"quality": 0.9}, honest={"quality": 0.95}, oracle={"quality": 0.91})
    )
    assert len(made) == 3
    assert "(-0.050)" in made[1]
    assert all(len(re.findall(r"[.](?:\s|$)", sentence)) == 1 for sentence in made)


def test_folds_are_counted_and_averaged(full: Path):
    """By hand from the folds' rows. Catches the mean of the finished folds shown as one of all."""
    rows = rows_of(full.parent / "report_files" / "tables" / "folds_grouped.csv")
    folds = [float(row["quality SRCC"]) for row in rows if row["method"].startswith("round_")]
    (mean,) = (row for row in rows if row["method"] == "mean")
    assert len(folds) == 2
    assert float(mean["quality SRCC"]) == pytest.approx(sum(folds) / 2)
    assert float(mean["quality SRCC_sd"]) == pytest.approx(abs(folds[0] - folds[1]) / 2**0.5)
    page = ReadPage(full.read_text(encoding="utf-8")).text
    assert page.count("2 of 3 folds are finished") >= 3
    assert "evaluate crossval --config RUN/config.yaml --out RUN --folds official" in page
    assert "--folds grouped trains" not in page


def test_generators_left_out_stand_beside_those_within(full: Path):
    """Mean of the folds' SRCC, computed here from the predictions. Catches the plain test's value
    in its place.
    """
    rows = rows_of(full.parent / "report_files" / "tables" / "identity.csv")
    (unseen,) = (row for row in rows if "unseen" in row["method"])
    folder = full.parent / "run" / "crossval" / "leave-one-generator-out"
    found = []
    for fold in ("fold_0", "fold_1"):
        lines = (folder / fold / "predictions.jsonl").read_text().splitlines()
        records = [r for r in map(json.loads, lines) if r["dimension"] == "quality"]
        ranks = [
            np.argsort(np.argsort(values))
            for values in (
                [r["score"] for r in records],
                [mos(r["video"], "quality") for r in records],
            )
        ]
        found.append(np.corrcoef(*ranks)[0, 1])
    assert float(unseen["quality_within"]) == pytest.approx(np.mean(found), abs=1e-6)


def test_departures_gaps_and_rows_not_run_are_all_there(full: Path):
    """Catches a part that somebody leaves out of the page."""
    page = ReadPage(full.read_text(encoding="utf-8"))
    cells = {cell for table in page.tables for row in table for cell in row}
    assert {departure.number for departure in DEPARTURES} <= cells
    assert {gap.what for gap in GAPS} <= cells
    missing = {row[0]: row for table in page.tables for row in table if len(row) == 3}
    assert missing["Table\xa01"][1] == "41\xa0of\xa041"
    assert "Swin3D-B" in missing["Table\xa01"][2]
    assert missing["Table\xa03"][1] == "18\xa0of\xa018"


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The page of a real run without ablations, folds, strips, maps, losses and settings."""
    run = write_run(tmp_path_factory.mktemp("bare") / "run", smoke=False)
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.dumps(json.loads(line) | {"map": None}) for line in lines]
    (run / "predictions.jsonl").write_text("\n".join(records) + "\n")
    assert main(["report", str(run)]) == 0
    return run / "report.html"


def test_the_same_run_gives_the_same_bytes(bare: Path, tmp_path: Path):
    """Catches today's date, a random name, and pictures that differ from one call to the next."""
    again = tmp_path / "report.html"
    assert main(["report", str(bare.parent), "--out", str(again)]) == 0
    assert again.read_bytes() == bare.read_bytes()


def test_a_bare_run_has_its_page_and_says_what_is_missing(bare: Path):
    """Catches a page that is not made, and a part that is left out without a word."""
    page = ReadPage(bare.read_text(encoding="utf-8"))
    assert not page.faults
    assert "RESULTS" in page.text
    assert "SMOKE" not in page.text
    for said in (
        "The run has no ablations; lmme3dhf evaluate ablations --config RUN/config.yaml --out RUN",
        "--only label_leak trains that row",
        "No grouped folds",
        "--folds leave-one-generator-out makes it",
        "no method has saliency maps",
        "RUN: no stage1/losses.jsonl",
        "The run has no config.yaml",
    ):
        assert said in page.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none"], "none: no predictions.jsonl in it"),
        (["RUN/data"], "data: no predictions.jsonl in it"),
        (["RUN", "--out", "RUN"], "is a folder; give the file to write"),
        (["RUN", "--method", "A"], "--method 'A': expected NAME=PATH"),
        (["RUN", "--method", "A=none.csv"], "none.csv: no such file"),
        (
            ["RUN", "--method", "A=RUN/short.csv"],
            "11 of 12 labelled videos have no quality score by A",
        ),
        (["RUN", "--folds", "grouped"], "no cross-validation 'grouped'"),
    ],
)
def test_what_is_no_run_is_told_in_a_sentence(
    words: list[str], told: str, run: Path, capsys: pytest.CaptureFixture
):
    """Exit status 1 and nothing written. Catches a traceback, and half a page."""
    (run / "short.csv").write_text(f"video,quality\n{PARTS['eval'][0]},3\n")
    before = sorted(run.rglob("*"))
    assert main(["report", *(word.replace("RUN", str(run)) for word in words)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lmme3dhf report: ")
    assert told in error
    assert error.count("\n") == 1
    assert sorted(run.rglob("*")) == before


def test_the_report_needs_no_torch():
    """In a fresh interpreter. Catches a page that takes half a minute to start, or a laptop without
    torch that cannot make it.
    """
    code = (
        "import sys, lmme3dhf.pipeline.report\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
