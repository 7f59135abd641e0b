"""The five tables: whose rows stand where, and what may not stand together."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from lmme3dhf.annotations.fixations import saliency_map
from lmme3dhf.comparison.assembly import kind_of
from lmme3dhf.comparison.methods import ComparisonError, Method, read_method
from lmme3dhf.comparison.sources import Source, read_ablations, read_source
from lmme3dhf.comparison.tables import table1, table2, table3, table4, table5
from lmme3dhf.predictions import (
    Prediction,
    PredictionError,
    read_predictions,
    write_predictions,
)
from lmme3dhf.reports.tables import Cell, Row, Table, markdown, number
from tests.comparison.conftest import (
    CLEAN,
    HEIGHT,
    PARTS,
    WIDTH,
    leave_unmarked,
    mos,
    points,
    predicted,
    write_part,
    write_records,
)

EVAL = PARTS["eval"]
FAST = {"resamples": 20}


def row_of(table: Table, name: str) -> Row:
    return next(row for block in table.blocks for row in block.rows if row.name == name)


def value(row: Row, key: str) -> float:
    return number(row.cells[key])


def block_titles(table: Table) -> list[str]:
    return [block.title.split(" ")[0].strip(":") for block in table.blocks]


def csv_method(source: Source, path: Path, scores: dict[str, float], **more: object) -> Method:
    path.write_text("video,quality\n" + "".join(f"{v},{s}\n" for v, s in scores.items()))
    return read_method("NIQE", path, source.rounds[0].labels.videos, **more)


def test_a_smoke_row_among_results_is_refused():
    """The planted row of the issue. Catches numbers of drawn faces in a table of results."""
    real, smoke = Row(name="r", status="real"), Row(name="s", status="smoke")
    external, printed = Row(name="e", status="external"), Row(name="p", status="not run")
    assert kind_of([real, external, printed]) == "results"
    assert kind_of([smoke, printed]) == "smoke"
    for result in (real, external, Row(name="t", status="retrained")):
        with pytest.raises(ComparisonError, match="'s' is a smoke row"):
            kind_of([result, printed, smoke])
    with pytest.raises(ComparisonError, match="unknown status 'fine'"):
        kind_of([Row(name="x", status="fine")])


@pytest.mark.parametrize(("synthetic", "width"), [(True, 3584), (False, 128)])
def test_synthetic_data_or_a_tiny_model_alone_make_smoke(
    make_run: Callable, synthetic: bool, width: int
):
    """Catches a rule that wants both."""
    run = make_run(smoke=False)
    if synthetic:
        truth = {v: {"opinion": [mos(v, "quality"), mos(v, "authenticity")]} for v in EVAL}
        (run / "data" / "truth.json").write_text(json.dumps(truth))
    content = {"text_config": {"hidden_size": width}}
    (run / "model" / "config.json").write_text(json.dumps(content))
    made = table1(read_source(run), **FAST)
    assert "SMOKE" in made.title
    assert row_of(made, "LMME3DHF").status == "smoke"


def test_a_smoke_table_keeps_the_printed_rows_apart(make_run: Callable):
    """Four blocks; the printed ones last, and not ranked against ours. Catches .8333 beside drawn
    faces.
    """
    made = table1(read_source(make_run(smoke=True)), **FAST)
    assert block_titles(made) == ["SMOKE", "Floors,", "Printed"]
    ours, printed = made.blocks[0], made.blocks[-1]
    assert {row.status for row in ours.rows} == {"smoke"}
    assert not [column for column in ours.columns if column.key.startswith("paper_")]
    assert len(printed.rows) == 41
    assert all(column.key.startswith("paper_") for column in printed.columns)


def test_a_table_of_results_has_the_printed_values_beside(make_run: Callable):
    """Our measured SRCC by SciPy, the printed one from the page. Catches printed values in the
    measured columns, and our row twice.
    """
    made = table1(read_source(make_run(smoke=False)), **FAST)
    assert block_titles(made) == ["Measured", "Floors,"]
    ours = [row for row in made.blocks[0].rows if row.name == "LMME3DHF"]
    assert len(ours) == 1
    expected = stats.spearmanr(
        [predicted(v, "quality") for v in EVAL], [mos(v, "quality") for v in EVAL]
    ).statistic
    assert value(ours[0], "quality_srcc") == pytest.approx(expected, abs=1e-9)
    assert value(ours[0], "paper_quality_srcc") == 0.9000
    assert ours[0].status == "real"
    other = row_of(made, "Swin3D-T")
    assert (other.status, other.group) == ("not run", "deep VQA")
    assert "quality_srcc" not in other.cells
    assert value(other, "paper_quality_srcc") == 0.8333
    assert "| Swin3D-T | not run | – |" in markdown(made)


def test_our_row_has_an_interval_and_what_lies_within_generators(make_run: Callable):
    """Catches an interval that does not hold the value, and columns that stay empty."""
    row = row_of(table1(read_source(make_run(smoke=False)), resamples=200), "LMME3DHF")
    low, high = value(row, "quality_srcc_low"), value(row, "quality_srcc_high")
    assert low <= value(row, "quality_srcc") <= high
    assert f"quality {low:.3f} to {high:.3f}" in row.notes[0]
    within, between = value(row, "quality_srcc_within"), value(row, "quality_srcc_between")
    assert -1 <= within <= 1
    assert between == pytest.approx(1)  # three generators, twelve points apart


def test_the_level_words_alone_are_a_row(make_run: Callable):
    """All probability on the true level: the correlation of the level's number. Catches words
    counted from best to worst.
    """
    made = table1(read_source(make_run(smoke=False)), **FAST)
    row = row_of(made, "LMME3DHF, level probabilities")
    assert value(row, "quality_srcc") > 0.8


def test_foreign_scores_become_a_row_beside_their_printed_one(make_run: Callable, tmp_path: Path):
    """A CSV that holds the truth upside down, as a degree of distortion. Catches a |rho| that is
    taken silently: the row is -1 until it is said that lower is better.
    """
    source = read_source(make_run(smoke=False))
    scores = {video: -mos(video, "quality") for video in EVAL}
    given = table1(source, [csv_method(source, tmp_path / "n.csv", scores)], **FAST)
    row = row_of(given, "NIQE")
    assert value(row, "quality_srcc") == pytest.approx(-1)
    assert any("--lower_is_better 'NIQE'" in note for note in row.notes)
    assert value(row, "paper_quality_srcc") == 0.1107
    assert (row.status, row.group) == ("external", "handcrafted IQA")
    assert "authenticity_srcc" not in row.cells
    turned = csv_method(source, tmp_path / "n.csv", scores, lower_is_better=True)
    row = row_of(table1(source, [turned], **FAST), "NIQE")
    assert value(row, "quality_srcc") == pytest.approx(1)
    assert value(row, "quality_srcc_signed") == pytest.approx(-1)
    assert any(note.startswith("lower is better") for note in row.notes)


def test_a_fitted_curve_does_not_turn_a_method(make_run: Callable, tmp_path: Path):
    """A logistic curve may fall, and its PLCC is positive then. Catches the sign lost in it."""
    source = read_source(make_run(smoke=False))
    scores = {video: -predicted(video, "quality") for video in EVAL}
    method = csv_method(source, tmp_path / "n.csv", scores)
    made = table1(source, [method], fit="logistic4", **FAST)
    assert value(row_of(made, "NIQE"), "quality_plcc") < -0.8
    assert value(row_of(made, "LMME3DHF"), "quality_plcc") > 0.8
    titles = [column.title for column in made.blocks[0].columns if column.key == "quality_plcc"]
    assert titles == ["PLCC (after logistic4)"]


def test_foreign_rows_are_compared_with_ours(make_run: Callable, tmp_path: Path):
    """Ours against itself under another name: no difference. Against noise: one. Catches a test
    that compares each with its own.
    """
    source = read_source(make_run(smoke=False))
    same = csv_method(source, tmp_path / "a.csv", {v: predicted(v, "quality") for v in EVAL})
    row = row_of(table1(source, [same], resamples=200), "NIQE")
    assert value(row, "quality_srcc_difference") == pytest.approx(0)
    assert value(row, "quality_p_bootstrap") == 1
    noise = csv_method(source, tmp_path / "b.csv", {v: i % 5 for i, v in enumerate(EVAL)})
    row = row_of(table1(source, [noise], resamples=200), "NIQE")
    assert value(row, "quality_srcc_difference") < -0.5
    assert value(row, "quality_p_williams") < 0.05


def test_missing_videos_are_an_error_or_a_note_in_the_row(make_run: Callable, tmp_path: Path):
    """Catches a foreign method that is tested on fewer videos than ours without a word."""
    source = read_source(make_run(smoke=False))
    method = csv_method(source, tmp_path / "n.csv", {v: mos(v, "quality") for v in EVAL[:-2]})
    with pytest.raises(ComparisonError, match="2 of 12 labelled videos have no quality score"):
        table1(source, [method], **FAST)
    row = row_of(table1(source, [method], allow_missing=True, **FAST), "NIQE")
    assert value(row, "quality_n") == 10
    assert any(note.startswith("without 2 of 12 test videos") for note in row.notes)


def test_accuracies_are_those_worked_out_by_hand(make_run: Callable):
    """Each video's answer is one category, of one or two true ones. Catches a column that shows
    another accuracy than its header says.
    """
    source = read_source(make_run(smoke=True))
    truth = source.rounds[0].labels.distortions
    named = {r.video: set(r.distortions) for r in read_predictions(source.rounds[0].ours.path)}
    by_hand = {
        "jaccard": np.mean([len(named[v] & truth[v]) / len(named[v] | truth[v]) for v in EVAL]),
        "exact": np.mean([named[v] == truth[v] for v in EVAL]),
        "top1": np.mean([named[v] <= truth[v] for v in EVAL]),
    }
    assert len(set(by_hand.values())) == 3
    for accuracy, expected in by_hand.items():
        made = table2(source, accuracy=accuracy)
        row = row_of(made, "LMME3DHF")
        assert value(row, "accuracy") == pytest.approx(100 * expected)
        assert made.blocks[0].columns[0].title == f"Accuracy (%, {accuracy})"
        assert any(note.startswith(f"Accuracy is {accuracy}:") for note in made.notes)
    with pytest.raises(ComparisonError, match="accuracy 'mean' is not one of jaccard, exact, top1"):
        table2(source, accuracy="mean")


def test_foreign_replies_become_a_row_of_table_2(make_run: Callable, tmp_path: Path):
    """Free text for every video, one of it unreadable. Catches an unreadable reply that leaves the
    mean.
    """
    source = read_source(make_run(smoke=True))
    replies = {video: "I see Eye Distortions" for video in EVAL} | {EVAL[0]: "???"}
    path = tmp_path / "r.csv"
    path.write_text("video,reply\n" + "".join(f"{v},{text}\n" for v, text in replies.items()))
    method = read_method("Qwen2-VL", path, EVAL)
    row = row_of(table2(source, [method]), "Qwen2-VL")
    truth = source.rounds[0].labels.distortions
    eyes = [len({"Eye Distortions"} & truth[v]) / len({"Eye Distortions"} | truth[v]) for v in EVAL]
    assert value(row, "accuracy") == pytest.approx(100 * sum(eyes[1:]) / len(EVAL))
    assert any(note.startswith("1 answers name no category") for note in row.notes)
    assert row.status == "smoke"


def test_a_folder_of_maps_becomes_a_row_of_table_3(make_run: Callable, tmp_path: Path):
    """The ground truth itself in double size, as a foreign method's maps. Catches maps of another
    video, and a resize that is not told.
    """
    source = read_source(make_run(smoke=False))
    folder = tmp_path / "maps"
    folder.mkdir()
    for video in EVAL:
        truth_HW = saliency_map(points(video), HEIGHT, WIDTH, sigma_px=2)
        grey = Image.fromarray(np.round(255 * truth_HW).astype(np.uint8))
        grey.resize((2 * WIDTH, 2 * HEIGHT)).save(folder / f"{video}.png")
    method = read_method("GBVS", folder, EVAL)
    made = table3(source, [method])
    row, ours = row_of(made, "GBVS"), row_of(made, "LMME3DHF")
    assert value(row, "cc") > 0.97 > value(ours, "cc")
    assert any(note.startswith("12 maps resized") for note in row.notes)
    assert not any("resized" in note for note in ours.notes)
    assert value(row, "n") == 11
    assert any(note.startswith("11 test videos have marks; 1 without") for note in made.notes)
    assert value(row, "paper_auc") == 0.5796
    assert row_of(made, "uniform map").ranked is False
    assert value(row_of(made, "uniform map"), "auc") == pytest.approx(0.5)
    (folder / f"{EVAL[0]}.png").unlink()
    with pytest.raises(ComparisonError, match="1 of 12 labelled videos have no map"):
        table3(source, [read_method("GBVS", folder, EVAL)])


@pytest.mark.parametrize("preset", ["mit", "lmme3dhf-repo"])
def test_videos_that_no_marker_looked_at_are_left_out_and_named(make_run: Callable, preset: str):
    """Of ours, of people and of the floors; a video without a point is clean and counts as before.
    Catches an error, a missing map that counts as clean, and a count that hides it.
    """
    run = make_run(smoke=True)
    leave_unmarked(run / "data", EVAL[0])
    made = table3(read_source(run), preset=preset)
    for name in ("LMME3DHF", "uniform map"):
        assert value(row_of(made, name), "n") == 10
    assert value(row_of(made, "marker against marker"), "n") == 2 * 10
    assert [note for note in made.notes if EVAL[0] in note and note.startswith("1 of 12 ")]
    for video in EVAL[1:]:
        leave_unmarked(run / "data", video)
    with pytest.raises(ComparisonError, match="no marker looked at"):
        table3(read_source(run))


def test_one_marker_against_the_others_is_a_row(make_run: Callable):
    """b's one point is none of a's two. Catches a marker who is compared with a truth that holds
    the marker's own points.
    """
    row = row_of(table3(read_source(make_run(smoke=True))), "marker against marker")
    assert value(row, "n") == 2 * 11
    assert value(row, "cc") < 0.5


def test_presets_differ_and_an_unknown_one_is_refused(make_run: Callable):
    """Catches a preset that is printed and not used."""
    source = read_source(make_run(smoke=True))
    made = {preset: table3(source, preset=preset) for preset in ("mit", "lmme3dhf-repo")}
    nss = [value(row_of(table, "LMME3DHF"), "nss") for table in made.values()]
    assert abs(nss[0] - nss[1]) > 1e-3  # marked points against the pixels near the peak
    assert ["the marked points" in table.notes[1] for table in made.values()] == [True, False]
    with pytest.raises(ComparisonError, match="preset 'best' is not one of mit"):
        table3(source, preset="best")


def write_folds(run: Path, finished: tuple[bool, ...]) -> None:
    folder = run / "crossval" / "grouped"
    folds = []
    for index, done in enumerate(finished):
        name = f"fold_{index}"
        folds.append({"name": name, "folder": name, "finished": done})
        if done:
            write_part(folder / name / "data", "eval", EVAL)
            write_part(folder / name / "data", "train", PARTS["train"])
            write_records(folder / name / "predictions.jsonl", EVAL, noise=1.0 + index)
    (folder / "folds.json").write_text(json.dumps({"protocol": "grouped", "folds": folds}))


def test_a_run_reads_nothing_outside_its_folder(make_run: Callable, tmp_path):
    """Folds, ablations and maps of a run from a stranger. Catches files of this machine that are
    read as predictions or maps, by "..", by an absolute path or through a link.
    """
    run = make_run(smoke=True)
    write_folds(run, (True,))
    for outside in ("../../../elsewhere", str(tmp_path / "elsewhere")):
        folds = [{"name": "fold_0", "folder": outside, "finished": True}]
        (run / "crossval" / "grouped" / "folds.json").write_text(json.dumps({"folds": folds}))
        with pytest.raises(ComparisonError, match=r"folds\.json.*leads out.*correct"):
            read_source(run, folds="grouped")
        (run / "ablations").mkdir(exist_ok=True)
        entries = [{"table": 4, "title": "x", "predictions": outside}]
        (run / "ablations" / "rows.json").write_text(json.dumps(entries))
        with pytest.raises(ComparisonError, match=r"rows\.json.*leads out.*correct"):
            read_ablations(run)
    record = next(r for r in read_predictions(run / "predictions.jsonl") if r.map)
    Image.new("L", (24, 8)).save(tmp_path / "private.png")
    (run / record.map).unlink()
    (run / record.map).symlink_to(tmp_path / "private.png")
    with pytest.raises(PredictionError, match=rf"{record.video}.*leads out.*put the map"):
        read_source(run)


def test_a_run_with_a_failed_or_without_a_record_has_no_tables(make_run: Callable):
    """Counted and named, whichever table or figure is asked for. Catches level words, answers and
    scatter plots of the clips that happened to work.
    """
    run = make_run(smoke=True)
    path = run / "predictions.jsonl"
    records = read_predictions(path)
    video = records[2].video
    failed = [
        Prediction(
            video=r.video, dimension=r.dimension, method=r.method, reason="truncated", message="cut"
        )
        if r.video == video
        else r
        for r in records
    ]
    write_predictions(path, failed)
    with pytest.raises(PredictionError, match=rf"1 of {len(EVAL)} .*{video} \(truncated: cut\)"):
        read_source(run)
    path.write_bytes(b"")
    with pytest.raises(PredictionError, match="lmme3dhf predict"):
        read_source(run)
    write_predictions(path, [r for r in records if r.video != video])
    with pytest.raises(ComparisonError, match=f"1 of {len(EVAL)} .*{video}"):
        table1(read_source(run), **FAST)


def test_folds_give_mean_and_deviation_over_those_finished(make_run: Callable):
    """Two of three folds, the figures of each by SciPy. Catches ddof 0, and a fold that counts
    before it is finished.
    """
    run = make_run(smoke=True)
    write_folds(run, (True, False, True))
    source = read_source(run, folds="grouped")
    made = table1(source, **FAST)
    cell = row_of(made, "LMME3DHF").cells["quality_srcc"]
    truth = [mos(v, "quality") for v in EVAL]
    by_fold = [
        stats.spearmanr([predicted(v, "quality", noise) for v in EVAL], truth).statistic
        for noise in (1.0, 3.0)
    ]
    assert by_fold[0] != by_fold[1]
    assert isinstance(cell, Cell)
    assert cell.value == pytest.approx(np.mean(by_fold))
    assert cell.std == pytest.approx(np.std(by_fold, ddof=1))
    assert any("2 finished folds of 3 (protocol grouped)" in note for note in made.notes)
    assert " ± " in markdown(made)
    assert row_of(table3(source), "LMME3DHF").cells["auc"].std == 0
    assert row_of(table2(source), "LMME3DHF").cells["accuracy"].std == 0


def test_folds_that_are_not_there_are_told(make_run: Callable):
    """Catches an empty mean."""
    run = make_run(smoke=True)
    with pytest.raises(ComparisonError, match="no cross-validation 'grouped'"):
        read_source(run, folds="grouped")
    (run / "crossval" / "grouped").mkdir(parents=True)
    write_folds(run, (False, False))
    with pytest.raises(ComparisonError, match="none of 2 folds is finished"):
        read_source(run, folds="grouped")
    write_folds(run, (True,))
    source = read_source(run, folds="grouped")
    with pytest.raises(ComparisonError, match="leave --folds out"):
        table4(source)


def write_ablations(run: Path) -> None:
    entries = []
    for id_, table, number_, noise, leaking, marks in (
        ("vision", 5, "1", 5.0, False, {"vision": True}),
        ("unfinished", 5, "2", None, False, {"llm": True}),
        ("without_llm", 4, "1", 1.0, False, {}),
        ("label_leak", 0, "", 0.1, True, {}),
        ("frames", 0, "", 2.0, False, {}),
    ):
        where = f"ablations/{id_}/predictions.jsonl"
        if noise is not None:
            (run / where).parent.mkdir(parents=True)
            write_records(run / where, EVAL, noise=noise)
        entries.append(
            {
                "id": id_,
                "table": table,
                "number": number_,
                "title": f"title of {id_}",
                "marks": marks,
                "leaking": leaking,
                "predictions": where,
                "seconds": 1.0,
                "settings": {},
                "note": f"note of {id_}",
            }
        )
    (run / "ablations" / "rows.json").write_text(json.dumps(entries))


def test_table_5_has_every_row_run_or_not(make_run: Callable):
    """Rows 1 and 5 were run (5 is the run itself), the others stand with the paper's values.
    Catches a row that is filled from its neighbour.
    """
    run = make_run(smoke=False)
    write_ablations(run)
    made = table5(read_source(run))
    assert block_titles(made) == ["Measured", "Rows", "Floors,"]
    rows = made.blocks[0].rows
    assert [row.name[:3] for row in rows] == ["(1)", "(2)", "(3)", "(4)", "(5)", "(6)"]
    statuses = [row.status for row in rows]
    assert statuses == ["real", "not run", "not run", "not run", "real", "not run"]
    assert [value(row, "paper_accuracy") for row in rows[:2]] == [30.86, 44.83]
    assert (rows[0].cells["vision"], rows[0].cells["llm"]) == ("✓", "")
    assert value(rows[0], "quality_srcc") < value(rows[4], "quality_srcc")
    assert "note of vision" in rows[0].notes


def test_the_leaking_row_is_marked_unranked_and_measured(make_run: Callable):
    """It is better than everything, by 4 % of our noise. Catches a leak in bold print, and an
    inflation that is not told in numbers.
    """
    run = make_run(smoke=False)
    write_ablations(run)
    made = table5(read_source(run))
    own = {row.name: row for row in made.blocks[1].rows}
    leak = own["LEAKING: title of label_leak"]
    assert not leak.ranked
    assert own["title of frames"].ranked
    honest = value(made.blocks[0].rows[4], "quality_srcc")
    leaking = value(leak, "quality_srcc")
    assert leaking > honest
    sentence = next(note for note in made.notes if "is given the label of the video" in note)
    assert f"quality SRCC {leaking:.3f} where row (5) has {honest:.3f}" in sentence
    assert f"({leaking - honest:+.3f})" in sentence


def test_table_4_reads_the_ablations_maps(make_run: Callable):
    """Row 1 was run, row 4 is the run itself, and a leaking score has no place there. Catches rows
    by position instead of by number.
    """
    run = make_run(smoke=True)
    write_ablations(run)
    made = table4(read_source(run))
    rows = made.blocks[0].rows
    assert [row.status for row in rows] == ["smoke", "not run", "not run", "smoke"]
    assert value(rows[0], "auc") == value(rows[3], "auc")  # the same maps were written
    assert [row.name for row in made.blocks[1].rows] == ["title of frames"]
    assert made.blocks[-1].title.startswith("Printed in the paper")


def test_a_data_set_alone_gives_floors_and_printed_rows(make_run: Callable):
    """`--data` without a run. Catches a table that needs our predictions."""
    data = make_run(smoke=False) / "data"
    made = table1(read_source(data=data), **FAST)
    assert row_of(made, "LMME3DHF").status == "not run"
    assert value(row_of(made, "level oracle"), "quality_srcc") > 0.8
    assert "quality_srcc" not in {column.key for column in made.blocks[0].columns}


def test_a_source_that_is_not_there_is_told(tmp_path: Path, make_run: Callable):
    """Catches tracebacks of a user's first try."""
    with pytest.raises(ComparisonError, match="give --run or --data"):
        read_source()
    with pytest.raises(ComparisonError, match="no such folder"):
        read_source(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ComparisonError, match=r"neither data/ nor config\.yaml"):
        read_source(empty)
    with pytest.raises(ComparisonError, match="no labels of the part 'test'"):
        read_source(make_run(smoke=True), part="test")
    (tmp_path / "smoke" / "predictions.jsonl").unlink()
    with pytest.raises(ComparisonError, match="no predictions in the run"):
        read_source(tmp_path / "smoke")


def test_two_rows_of_one_name_are_refused(make_run: Callable, tmp_path: Path):
    """Catches a foreign method that takes our row's place."""
    source = read_source(make_run(smoke=True))
    path = tmp_path / "o.csv"
    path.write_text("video,quality\n" + "".join(f"{v},{i}\n" for i, v in enumerate(EVAL)))
    ours, other = (read_method(name, path, EVAL) for name in ("LMME3DHF", "A"))
    with pytest.raises(ComparisonError, match="'LMME3DHF' is the name of the run's own method"):
        table1(source, [ours])
    with pytest.raises(ComparisonError, match="'A' is the name of two methods"):
        table1(source, [other, other])


def test_the_clean_video_is_the_one_without_marks():
    """The little set's own premise, on which the counts above rest."""
    assert [video for video in EVAL if not points(video)] == [CLEAN]
