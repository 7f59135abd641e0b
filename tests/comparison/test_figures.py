"""The figures of a run: each as PNG, SVG and CSV, the numbers those of the metrics, and what is
missing named without taking the rest along.
"""

import csv
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.annotations.fixations import saliency_map, write_saliency_png
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.comparison import drawings
from lmme3dhf.comparison.figures import FigureRecord, dataset_records, draw, write_index
from lmme3dhf.comparison.methods import ComparisonError, Method, read_method
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import Sample
from lmme3dhf.files import write_json
from lmme3dhf.predictions import Prediction, write_predictions
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS, NO_DISTORTION
from tests.comparison.conftest import leave_unmarked
from tests.conftest import DIMENSIONS

FACES = {"train": range(0, 4), "eval": range(4, 12)}
VIDEOS = {
    part: [f"seed{200 * group + face:04d}" for group in range(3) for face in faces]
    for part, faces in FACES.items()
}
TEST = VIDEOS["eval"]
WIDTH, HEIGHT = 96, 32
DRAWN = {
    *("fig8", "fig9", "scatter", "radar", "confusion_levels", "confusion_distortions"),
    *("categories", "generators", "curves"),
}
LEFT_OUT = {
    *("ablations_table4", "ablations_table5", "folds_grouped", "folds_official"),
    "folds_leave_one_generator_out",
}


def categories_of(video: str) -> tuple[str, ...]:
    """One of the nine in turn; the first test video of each generator is clean."""
    return (DISTORTIONS[(int(video[4:]) + 4) % 9],)


def write_data(root: Path, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """A data set of three generators and twelve faces; returns its scores."""
    mos = {
        dimension: {
            video: round(20 + 15 * (int(video[4:]) // 200) + 3 * (int(video[4:]) % 200), 2)
            for videos in VIDEOS.values()
            for video in videos
        }
        for dimension in DIMENSIONS
    }
    fixations = {}
    for folder in ("image", "saliency_map"):
        (root / folder).mkdir(parents=True)
    for part, videos in VIDEOS.items():
        for dimension in DIMENSIONS:
            samples = []
            for video in videos:
                score = mos[dimension][video]
                level = LEVELS[min(4, int(score // 20))]
                reply = level_reply(GEN3DHF[dimension], level, score)
                samples.append(sample(video, dimension, reply))
            write_list(root / "numerical" / f"{part}_{dimension}.json", samples)
        named = [sample(v, "distortion", distortion_reply(categories_of(v))) for v in videos]
        write_list(root / "distortion" / f"{part}.json", named)
        for video in videos:
            clean = categories_of(video) == (NO_DISTORTION,)
            points = rng.uniform(3, 29, (0 if clean else 4, 2)).round().tolist()
            fixations[video] = points
            strip = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(strip).save(root / "image" / f"{video}.png")
            write_saliency_png(
                root / "saliency_map" / f"{video}.png", saliency_map(points, HEIGHT, WIDTH)
            )
    write_json(root / "fixations.json", fixations)
    write_json(root / "truth.json", {})
    return mos


def sample(video: str, task: str, reply: str) -> Sample:
    return Sample(
        video=video, path=Path(f"{video}.mp4"), task=task, prompt=PROMPTS[task], reply=reply
    )


def write_ours(folder: Path, mos: dict[str, dict[str, float]], rng: np.random.Generator) -> None:
    """Predictions that follow the scores, right levels but for one, and noisy maps."""
    (folder / "predictions_maps").mkdir(parents=True)
    records = []
    for video in TEST:
        level = LEVELS[min(4, int(mos["quality"][video] // 20))]
        answer = () if video == TEST[0] else categories_of(video)
        for dimension in DIMENSIONS:
            records.append(
                Prediction(
                    video=video,
                    dimension=dimension,
                    method="LMME3DHF",
                    score=float(mos[dimension][video] + rng.normal(0, 4)),
                    level=None if video == TEST[0] else level,
                    distortions=answer,
                    map=f"predictions_maps/{video}.png",
                )
            )
        points = rng.uniform(3, 29, (3, 2)).tolist()
        map_HW = saliency_map(points, HEIGHT, WIDTH)
        write_saliency_png(folder / "predictions_maps" / f"{video}.png", map_HW)
    write_predictions(folder / "predictions.jsonl", records)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run as `lmme3dhf demo` leaves it, without model, ablations and folds."""
    root = tmp_path_factory.mktemp("figures") / "run"
    rng = np.random.default_rng(0)
    write_ours(root, write_data(root / "data", rng), rng)
    for stage in ("stage1", "stage2", "stage3"):
        rows = [{"step": s, "loss": 3 / s, "learning_rate": 0.001 * s} for s in range(1, 30)]
        (root / stage).mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / stage / "losses.jsonl").write_text(lines, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def quick_band(monkeypatch):
    """A hundred fits take seconds."""
    monkeypatch.setattr(drawings, "BAND_RESAMPLES", 4)


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory) -> tuple[Path, dict[str, FigureRecord]]:
    """The folder of the figures of the run, and their records by name."""
    out = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawings, "BAND_RESAMPLES", 4)
        records = draw(run, out)
    return out, {record.name: record for record in records}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_is_there_three_times_or_says_why_not(drawn):
    """PNG, SVG, and tables with rows; nothing else in the folder. Catches a figure that is listed
    and not drawn, and one that is silently missing.
    """
    out, records = drawn
    assert {name for name, record in records.items() if record.reason is None} == DRAWN
    assert {name for name, record in records.items() if record.reason} == LEFT_OUT
    made = set()
    for name in DRAWN:
        record = records[name]
        assert (record.png, record.svg) == (f"{name}.png", f"{name}.svg")
        assert record.csv[0] == f"{name}.csv"
        assert record.caption.endswith(".")
        assert all(rows(out / table) for table in record.csv)
        with Image.open(out / record.png) as picture:
            assert picture.size[0] >= 700, name
        # The run is on synthetic data, and every picture says so.
        assert "synthetic" in (out / record.svg).read_text(encoding="utf-8"), name
        made |= {record.png, record.svg, *record.csv}
    assert {path.name for path in out.iterdir()} == made
    assert [records[f"fig{n}"].number for n in (8, 9)] == ["8", "9"]
    for name in LEFT_OUT:
        assert records[name].csv == ()
        assert records[name].png is None
        assert "lmme3dhf evaluate" in records[name].reason


def test_the_same_run_gives_the_same_bytes(run, drawn, tmp_path):
    """Pictures and tables, of a band that is drawn at random too, and also where other figures are
    not drawn. Catches a date, an unseeded band, and a figure that depends on those before it.
    """
    out, _ = drawn
    draw(run, tmp_path, only=["scatter", "curves", "generators"])
    made = {path.name for path in tmp_path.iterdir()}
    assert len(made) == 3 * 3 + 1
    for name in made:
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_the_index_holds_every_record(drawn, tmp_path):
    """Catches an index that leaves out what could not be drawn."""
    _, records = drawn
    write_index(tmp_path, list(records.values()))
    listed = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert {entry["name"]: entry["reason"] for entry in listed} == {
        name: record.reason for name, record in records.items()
    }
    assert set(listed[0]) == {"name", "title", "number", "caption", "png", "svg", "csv", "reason"}


def test_the_points_are_the_predictions(run, drawn):
    """SRCC by SciPy from the table's rows stands in the picture. Catches videos that are paired
    with another's score.
    """
    out, _ = drawn
    mos = {v: 20 + 15 * (int(v[4:]) // 200) + 3 * (int(v[4:]) % 200) for v in TEST}
    table = [row for row in rows(out / "scatter.csv") if row["dimension"] == "quality"]
    assert {row["video"]: float(row["mos"]) for row in table} == mos
    assert {row["generator"] for row in table} == {"0", "1", "2"}
    x, y = ([float(row[key]) for row in table] for key in ("predicted", "mos"))
    srcc, plcc = stats.spearmanr(x, y).statistic, stats.pearsonr(x, y).statistic
    drawn_words = (out / "scatter.svg").read_text(encoding="utf-8")
    assert f"SRCC {srcc:.3f} (" in drawn_words
    assert f"PLCC {plcc:.3f} (" in drawn_words
    curve = [row for row in rows(out / "scatter_curve.csv") if row["dimension"] == "quality"]
    fitted = np.array([float(row["fitted"]) for row in curve])
    assert [float(curve[0]["predicted"]), float(curve[-1]["predicted"])] == [min(x), max(x)]
    assert (np.diff(fitted) >= -1e-9).all()
    assert all(float(row["low"]) <= float(row["high"]) for row in curve)


def test_the_generators_means_are_those_of_the_labels(drawn):
    """By hand: faces 4 to 11, 20 + 15 g + 3 f. Catches means over the training videos."""
    out, _ = drawn
    table = [row for row in rows(out / "generators.csv") if row["dimension"] == "authenticity"]
    assert [float(row["mos_mean"]) for row in table] == [42.5, 57.5, 72.5]
    assert [row["videos"] for row in table] == ["8", "8", "8"]


def test_an_unparsed_answer_has_its_column(drawn):
    """One of 24 videos named neither level nor category. Catches rows that lose it: then shares are
    of fewer videos than there are.
    """
    out, _ = drawn
    levels = [row for row in rows(out / "confusion_levels.csv") if row["dimension"] == "quality"]
    counts = np.array([[int(row[name]) for name in (*LEVELS, "no level")] for row in levels])
    assert counts.sum() == len(TEST)
    assert counts[:, 5].sum() == 1
    assert np.trace(counts) == len(TEST) - 1
    named = rows(out / "confusion_distortions.csv")
    assert [row["true"] for row in named] == list(DISTORTIONS)
    missed = {row["true"]: float(row["nothing"]) for row in named}
    assert missed == {c: int((c,) == categories_of(TEST[0])) for c in DISTORTIONS}


def test_the_categories_are_those_of_the_answers(drawn):
    """By hand: every answer is right but an empty one. Catches precision in place of recall."""
    out, _ = drawn
    (missed,) = categories_of(TEST[0])
    support = {c: sum(categories_of(video) == (c,) for video in TEST) for c in DISTORTIONS}
    for row in rows(out / "categories.csv"):
        name = row["category"]
        assert int(row["support"]) == support[name]
        assert float(row["precision"]) == 1
        right = (support[name] - (name == missed)) / support[name]
        assert float(row["recall"]) == pytest.approx(right)
        assert float(row["F1"]) == pytest.approx(2 * right / (1 + right))


def test_the_strips_of_figure_8_do_not_depend_on_predictions(run, drawn, tmp_path):
    """A video for each category, the same whatever a method predicts. Catches a choice by success,
    and a map that is stretched: the peaks are those of the files.
    """
    out, _ = drawn
    before = rows(out / "fig8.csv")
    videos = {row["video"]: row["category"] for row in before}
    assert list(videos.values()) == list(DISTORTIONS)
    assert all((category,) == categories_of(video) for video, category in videos.items())
    assert {row["map"] for row in before} == {"marked", "LMME3DHF", "mean training map"}
    dim = tmp_path / "dim"
    dim.mkdir()
    for video in TEST:
        Image.fromarray(np.full((8, 24), 51, np.uint8)).save(dim / f"{video}.png")
    method = read_method("Dim", dim, TEST)
    (record,) = draw(run, tmp_path / "out", [method], ["fig8"])
    assert record.reason is None
    table = rows(tmp_path / "out" / "fig8.csv")
    assert {row["video"]: row["category"] for row in table} == videos
    peaks = [float(row["peak"]) for row in table if row["map"] == "Dim"]
    assert peaks == pytest.approx([0.2] * 9)


def test_a_video_that_no_marker_looked_at_is_in_no_figure_of_maps(run, drawn, tmp_path):
    """The first of Fig. 8 and of Fig. 9: others take its place, and the captions name it."""
    first = rows(drawn[0] / "fig8.csv")[0]["video"]
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    leave_unmarked(copy / "data", first)
    records = draw(copy, tmp_path / "out", only=["fig8", "fig9", "radar"])
    assert len(records) == 3
    for record in records:
        assert record.reason is None
        assert first in record.caption
    for name in ("fig8", "fig9"):
        assert first not in {row["video"] for row in rows(tmp_path / "out" / f"{name}.csv")}


def test_the_radar_has_the_metrics_of_each_method(run, tmp_path):
    """A foreign method with reversed scores for some videos alone: signed correlations of what it
    has, gaps for the rest. Catches |SRCC|, and values of one method under another's name.
    """
    lower = tmp_path / "lower.csv"
    mos = {v: 20 + 15 * (int(v[4:]) // 200) + 3 * (int(v[4:]) % 200) for v in TEST}
    lines = [f"{video},{-mos[video]}" for video in TEST[2:]]
    lower.write_text("\n".join(["video,quality", *lines]) + "\n", encoding="utf-8")
    method = read_method("Reversed", lower, TEST)
    names = ["radar", "scatter_reversed"]
    records = {r.name: r for r in draw(run, tmp_path / "out", [method], names)}
    assert list(records) == ["scatter_reversed", "radar"]
    table = {row["measure"]: row for row in rows(tmp_path / "out" / "radar.csv")}
    assert float(table["quality SRCC"]["Reversed"]) == pytest.approx(-1)
    assert table["authenticity SRCC"]["Reversed"] == ""
    assert float(table["level accuracy"]["LMME3DHF"]) == pytest.approx(1 - 1 / len(TEST))
    assert float(table["distortions mean Jaccard"]["LMME3DHF"]) == pytest.approx(1 - 1 / len(TEST))
    assert 0 < float(table["saliency AUC (chance 0.5)"]["LMME3DHF"]) < 1
    # What was left out is said.
    for name in names:
        assert "2 of 24" in records[name].caption


def test_undefined_metrics_do_not_break_a_figure(run, tmp_path):
    """Methods that say the same of every video, or something about one alone, with names that are
    no file names. Catches a division by zero, and a figure of one that overwrites another's.
    """
    same = {dimension: dict.fromkeys(TEST, 3.0) for dimension in DIMENSIONS}
    one = {"quality": {TEST[0]: 3.0}}
    methods = [
        Method(name=name, path=tmp_path / "x.csv", scores=scores)
        for name, scores in (("a/b", same), ("A B", one), ("../%", same))
    ]
    names = ["scatter_a_b", "scatter_a_b_2", "scatter_3", "radar"]
    records = {r.name: r for r in draw(run, tmp_path / "out", methods, names)}
    assert len(records) == 4
    for name in names:
        assert records[name].reason is None
        assert Path(records[name].png).name == records[name].png
    table = {row["measure"]: row for row in rows(tmp_path / "out" / "radar.csv")}
    assert table["quality SRCC"]["a/b"] == ""


def test_what_is_missing_takes_nothing_else_along(run, tmp_path):
    """A data set without strips, a run without losses of a stage and without maps. Catches one
    exception that ends them all.
    """
    poor = tmp_path / "poor"
    shutil.copytree(run, poor)
    shutil.rmtree(poor / "data" / "image")
    shutil.rmtree(poor / "stage1")
    (poor / "stage2" / "losses.jsonl").write_text("{", encoding="utf-8")
    names = ["fig8", "fig9", "curves", "categories"]
    records = {record.name: record for record in draw(poor, tmp_path / "out", only=names)}
    assert "no strip of" in records["fig8"].reason
    assert "no strip of" in records["fig9"].reason
    assert "not the losses of a stage" in records["curves"].reason
    assert records["categories"].reason is None
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"categories"}
    with pytest.raises(ComparisonError, match="no such folder"):
        draw(tmp_path / "nowhere", tmp_path / "out")


def test_validations_are_drawn_with_the_losses(run, tmp_path):
    """Catches a curve without its numbers, an undefined value that becomes one, and a damaged file
    that ends in a traceback.
    """
    own = tmp_path / "own"
    shutil.copytree(run, own)
    entries = [
        {"step": 10, "epoch": 1.0, "loss": 0.5, "srcc": None, "srcc_quality": None},
        {"step": 20, "epoch": 2.0, "loss": 0.4, "srcc": 0.7, "srcc_quality": 0.7, "selected": True},
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (own / "stage2" / "validation.jsonl").write_text(lines, encoding="utf-8")
    (plain,) = draw(run, tmp_path / "plain", only=["curves"])
    (record,) = draw(own, tmp_path / "out", only=["curves"])
    assert record.csv == ("curves.csv", "curves_validation.csv")
    assert plain.csv == ("curves.csv",)
    assert [
        (row["stage"], row["step"], row["measure"], row["value"])
        for row in rows(tmp_path / "out" / "curves_validation.csv")
    ] == [
        ("stage2", "10", "loss", "0.5"),
        ("stage2", "20", "loss", "0.4"),
        ("stage2", "20", "srcc", "0.7"),
        ("stage2", "20", "srcc_quality", "0.7"),
    ]
    assert "validation" in record.caption
    assert "validation" not in plain.caption
    (own / "stage2" / "validation.jsonl").write_text("[1]", encoding="utf-8")
    (record,) = draw(own, tmp_path / "broken", only=["curves"])
    assert "not the validations of a stage" in record.reason


def test_ablations_and_folds_are_drawn_where_they_are(run, tmp_path):
    """Rows of the table and of our own, a leaking one marked, one that has not run named; folds
    with the finished ones alone. Catches rows of Table 5 in Table 4's picture.
    """
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    entries = []
    for name, table, number in (("a", 4, "1"), ("b", 5, "2"), ("c", 0, ""), ("d", 4, "3")):
        folder = whole / "ablations" / name
        entries.append(
            {
                "id": name,
                "table": table,
                "number": number,
                "title": f"set-up {name}",
                "marks": {},
                "leaking": name == "c",
                "predictions": f"ablations/{name}/predictions.jsonl",
            }
        )
        if name != "d":
            folder.mkdir(parents=True)
            shutil.copy(run / "predictions.jsonl", folder)
            shutil.copytree(run / "predictions_maps", folder / "predictions_maps")
    write_json(whole / "ablations" / "rows.json", entries)
    protocol = whole / "crossval" / "grouped"
    for fold in (0, 1):
        shutil.copytree(run / "data", protocol / f"fold_{fold}" / "data")
        shutil.copy(run / "predictions.jsonl", protocol / f"fold_{fold}")
        shutil.copytree(run / "predictions_maps", protocol / f"fold_{fold}" / "predictions_maps")
    folds = [{"name": f"fold_{k}", "folder": f"fold_{k}", "finished": k < 2} for k in range(3)]
    write_json(protocol / "folds.json", {"protocol": "grouped", "folds": folds})
    names = ["radar", "ablations_table4", "ablations_table5", "folds_grouped", "folds_official"]
    records = {record.name: record for record in draw(whole, tmp_path / "out", only=names)}
    assert "(3) set-up d has not run." in records["ablations_table4"].caption
    four, five = (rows(tmp_path / "out" / f"ablations_table{n}.csv") for n in (4, 5))
    # The run itself is the row of the whole model.
    assert [row["row"] for row in four] == ["(1) set-up a", "(4) LMME3DHF", "set-up c"]
    assert [row["row"] for row in five] == ["(2) set-up b", "(5) LMME3DHF", "set-up c"]
    assert [row["leaking"] for row in four] == ["False", "False", "True"]
    drawn_words = (tmp_path / "out" / "ablations_table4.svg").read_text(encoding="utf-8")
    assert "sees test labels" in drawn_words
    radar = {row["measure"]: row for row in rows(tmp_path / "out" / "radar.csv")}
    cc = float(radar["saliency CC"]["LMME3DHF"])
    assert float(four[0]["cc"]) == pytest.approx(cc)
    assert "2 of 3 folds are finished" in records["folds_grouped"].caption
    table = rows(tmp_path / "out" / "folds_grouped.csv")
    assert [row["fold"] for row in table] == ["fold_0", "fold_1"]
    assert float(table[0]["saliency CC"]) == pytest.approx(cc)
    assert records["folds_official"].reason is not None


def test_the_data_sets_figures_stand_in_the_index_too():
    """Catches a figure of the data set that is claimed where describe left it out, and one of the
    official lists, which have neither strips nor maps.
    """
    described = {
        "files": dict.fromkeys(
            ("fig2a_mos.png", "fig2a_mos.svg", "fig2a_mos.csv", "fig2a_density.csv"), "what"
        ),
        "left_out": {"Strips with their marks (Fig. 5)": "`image/`"},
    }
    records = {r.name: r for r in dataset_records(described, "dataset")}
    assert list(records) == ["fig2a", "fig2b", "fig3a", "fig3b", "fig5", "fig6"]
    assert records["fig2a"].png == "dataset/fig2a_mos.png"
    assert records["fig2a"].csv == ("dataset/fig2a_mos.csv", "dataset/fig2a_density.csv")
    assert records["fig5"].reason == "the data set has no image/"
    assert replace(records["fig6"], reason=None).png is None
    assert records["fig6"].reason


def door():
    """evaluate/figures.py, which is no package."""
    path = Path(__file__).resolve().parents[2] / "evaluate" / "figures.py"
    spec = importlib.util.spec_from_file_location("evaluate_figures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_the_command_draws_the_data_set_and_the_run(run, tmp_path, capsys):
    """From the command line to the index, with a foreign map folder. Catches figures of the data
    set that point to another folder.
    """
    maps = run / "predictions_maps"
    out = tmp_path / "out"
    words = ["--run", str(run), "--out", str(out), "--method", f"Copy={maps}"]
    assert door()([*words, "--only", "fig2a", "radar"]) == 0
    listed = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    for entry in listed:
        for name in (entry["png"], entry["svg"], *entry["csv"]):
            assert name is None or (out / name).is_file(), name
    numbers = {entry["number"] for entry in listed if entry["png"] and entry["number"]}
    assert numbers == {"2a", "2b", "3a", "3b", "5", "6"}
    assert set(rows(out / "radar.csv")[0]) == {"measure", "LMME3DHF", "Copy"}
    assert "radar: radar.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "GBVS"], "NAME=PATH"),
        (["--method", "GBVS=nowhere/"], "nowhere"),
        (["--run", "nowhere"], "nowhere"),
        (["--only", "fig7"], "fig7"),
        (["--lower_is_better", "NIQE"], "NIQE"),
        (["--method", "LMME3DHF={maps}"], "two methods"),
    ],
)
def test_the_command_tells_errors_in_a_sentence(run, tmp_path, capsys, words, said):
    """Catches a traceback, and files that are written before the mistake is seen."""
    words = [word.format(maps=run / "predictions_maps") for word in words]
    status = door()(["--run", str(run), "--out", str(tmp_path / "out"), *words])
    told = capsys.readouterr().err
    assert status == 1
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
