"""The benchmark: the arithmetic of its rows, that both sides of each give the same on a very small
run, and its report. Nothing here looks at a time.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import linregress
from sklearn.metrics import auc

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench  # noqa: E402
from bench_parts import accelerator, growth, material, measure, report, rows  # noqa: E402

from lmme3dhf.data.synthetic.render import write_clip  # noqa: E402

PX = 56


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> rows.Bench:
    """The benchmark's material, very small: the tests' model, a clip of 16 frames, frames of 56 px,
    one repeat.
    """
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8))
    write_clip(folder / "made.mp4", pictures, fps=4)

    class Small(rows.Bench):
        model = tiny_folder
        clip = light_clip = folder / "made.mp4"

    return Small(folder, repeats=1, gate_px=PX, default_px=PX)


def row_of(plain: list[float], ours: list[float], difference: float = 0.0) -> measure.Row:
    """R2, whose gate is 1.7."""
    return measure.row(
        "R2",
        "a lever",
        plain=("much", plain),
        ours=("little", ours),
        difference=difference,
        of="losses",
        tolerance=1e-6,
    )


def test_a_row_is_the_ratio_of_medians():
    """By hand: medians 4 and 2. Catches means, which one disturbed repeat would move."""
    row = row_of([4.0, 3.0, 400.0, 5.0, 4.0], [2.0, 1.0, 2.0, 9.0, 2.0])
    assert row.ratio == 2
    assert (row.plain.cost, row.ours.cost) == (4, 2)
    # Quartiles 4 and 5 around a median of 4.
    assert row.plain.spread == pytest.approx(0.125)
    assert row.failures == []


def test_a_missed_gate_and_a_difference_fail():
    """Catches a fast row whose results are wrong, and a NaN that passes every comparison."""
    assert "gate is 1.7" in row_of([3.0], [2.0]).failures[0]
    assert "differ by 0.001" in row_of([4.0], [2.0], 1e-3).failures[0]
    assert len(row_of([math.nan], [2.0], math.nan).failures) == 2


def test_a_row_beside_has_no_gate():
    """Catches an id that inherits a gate by its beginning."""
    row = dataclasses.replace(row_of([1.0], [2.0]), id="R2 224 px", gate=None)
    assert row.failures == []
    beside = measure.row(
        "R2 224 px",
        "",
        plain=("", [1.0]),
        ours=("", [2.0]),
        difference=0,
        of="",
        tolerance=0,
    )
    assert beside.gate is None


def test_every_row_of_the_task_has_its_gate():
    """The gates as the task gives them. Catches one that was lowered to pass."""
    gates = {name: goal.gate for name, goal in measure.GOALS.items()}
    assert gates == {
        "R1": 3, "R2": 1.7, "R3": 2.4, "R4": 4, "R4b": 6, "R5": 2.5, "R6": 2.8, "R7": 1.5,
        "R8": 20, "R9": 60, "R10": 40, "R11": 3, "R12": 10,
    }  # fmt: skip


def test_sides_take_turns():
    """Catches one side measured after the other, and a first place that always goes to the same."""
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    costs = measure.interleaved(calls, 2, clock=lambda call: call() or 1.0)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert costs == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_memory_is_the_peak_not_the_sum():
    """Two megabytes one after the other, then two at a time."""

    def after() -> None:
        for _ in range(2):
            torch.zeros(2**18)

    def together() -> tuple:
        return torch.zeros(2**18), torch.zeros(2**18)

    assert measure.memory_peak(after) == 2**20
    assert measure.memory_peak(together) == 2**21


def test_gradients_of_other_parameters_are_infinitely_far():
    """Catches a comparison over the names that happen to be common to both."""
    one, two = {"a": torch.ones(2)}, {"a": torch.ones(2), "b": torch.ones(1)}
    assert measure.relative(one, two) == math.inf
    assert measure.relative({}, {}) == math.inf
    assert measure.relative({"a": torch.tensor([2.0, -4.0])}, {"a": torch.tensor([2.0, -3.0])}) == (
        0.25
    )


ROWS = {
    "R1": lambda small: rows.against_the_store(small, "R1", PX, 1),
    "R3": lambda small: rows.packed_training(small, "R3", PX, 3),
    "R4b": lambda small: rows.against_the_store(small, "R4b", PX, 3),
    "R5": lambda small: rows.scoring(small, "R5", PX, generate=False),
    "R6": lambda small: rows.scoring(small, "R6", PX, generate=True),
    "R7": lambda small: rows.decoding(small, "R7", small.clip),
    "R8": lambda small: rows.stored_frames(small, "R8", PX),
    "R12": lambda small: rows.stage_3(small, "R12", PX),
}


@pytest.mark.parametrize("name", ROWS)
def test_both_sides_of_a_row_give_the_same(small: rows.Bench, name: str):
    """Catches a plain path that does something else, which would make any ratio."""
    row = ROWS[name](small)
    assert row.difference <= row.tolerance
    assert row.plain.cost > 0
    assert row.ours.cost > 0


def test_every_gate_belongs_to_a_row_that_is_run(small: rows.Bench):
    """Catches a row that nobody runs: its gate would pass for ever."""
    run = set(rows.all_rows(small))
    assert {name.rstrip("b") for name in measure.GOALS} == run
    assert run == {f"R{number}" for number in range(1, 13)}


def test_the_head_needs_the_memory_of_the_learnt_positions():
    """64 positions of which 4 are learnt, 5,000 words: the plain side holds logits of all and
    their gradient at least, ours less than an eighth of it.
    """
    row = rows.head_memory("R9", length=64, learnt=4, vocabulary=5000)
    assert row.difference < 1e-5
    assert row.plain.cost * 2**20 > 2 * 64 * 5000 * 4
    assert row.ratio > 8


def test_auc_judd_by_its_definition():
    """Both loops against scikit-learn's trapezoid on points counted by hand."""
    map_HW = np.array([[0.9, 0.1, 0.5], [0.4, 0.8, 0.3]])
    fixated_HW = np.array([[True, False, True], [False, False, False]])
    # Thresholds .9 and .5: hits 1/2 and 1, alarms 0/4 and 1/4 (the .8).
    expected = auc([0, 0, 1 / 4, 1], [0, 1 / 2, 1, 1])
    assert rows.auc_judd_by_thresholds(map_HW, fixated_HW) == pytest.approx(expected)
    counted = rows.auc_judd_by_thresholds(
        map_HW, fixated_HW, lambda threshold: int((map_HW >= threshold).sum())
    )
    assert counted == pytest.approx(expected)


def test_metric_rows_agree(small: rows.Bench):
    """R10 and R11, small. Catches another definition, or resamples drawn otherwise."""
    assert rows.auc_judd(small, "R10", 20, 32).difference < 1e-12
    assert rows.bootstrap(small, "R11", resamples=50, videos=30).difference < 1e-12


def test_the_exponent_is_scipys():
    """Against scipy's line through the logarithms, and exact on a power of 1.5."""
    sizes, seconds = [2.0, 4.0, 8.0, 16.0], [1.1, 2.0, 4.3, 8.1]
    line = linregress(np.log(sizes), np.log(seconds))
    assert growth.power_law(sizes, seconds) == pytest.approx((line.slope, line.stderr))
    exponent, error = growth.power_law(sizes, [3 * size**1.5 for size in sizes])
    assert exponent == pytest.approx(1.5)
    assert error == pytest.approx(0, abs=1e-6)


def test_parts_of_a_step_add_up(small: rows.Bench):
    """The plain path has a tower and decodes, ours from the store has neither. Catches a hook that
    never fires, whose part would be missing without a word.
    """
    plain, ours = growth.plain_shares(small, PX, 1), growth.our_shares(small, PX, 1)
    assert {"decode", "patches and tokens", "tower", "language model", "optimiser"} <= set(plain)
    assert {"waiting for the batch", "language model", "head and loss", "optimiser"} <= set(ours)
    assert not {"decode", "tower"} & set(ours)
    assert set(plain) | set(ours) <= set(report.PARTS)
    assert min(*plain.values(), *ours.values()) >= 0


def test_copies_are_other_clips_with_equal_pictures(small: rows.Bench, tmp_path: Path):
    """Catches copies that a store by content would take for one clip."""
    first, second = material.copies(small.clip, 2, tmp_path)
    assert first.read_bytes() != second.read_bytes()
    choice = material.choice(PX)
    assert torch.equal(rows.read_clip(first, choice).frames, rows.read_clip(second, choice).frames)


def test_the_geometries_are_those_they_say():
    """7B against its published sizes: 7.6 billion parameters in the language model with its head,
    0.68 in the tower; the tiny one keeps their proportions.
    """
    counts = {}
    for name in material.GEOMETRIES:
        with torch.device("meta"):
            model = accelerator.Qwen2_5_VLForConditionalGeneration(material.config(name))
        tower = sum(p.numel() for p in model.model.visual.parameters())
        head = model.lm_head.weight.numel()
        body = sum(p.numel() for p in model.model.language_model.layers.parameters())
        counts[name] = (tower, head, body)
    tower, head, body = counts["7b"]
    assert tower == pytest.approx(0.677e9, rel=0.01)
    assert body + 2 * head == pytest.approx(7.615e9, rel=0.01)
    for name, (_, head, body) in counts.items():
        assert head / body == pytest.approx(0.08, abs=0.006), name


def figures() -> dict:
    """Figures of a run, made up."""
    beside = dataclasses.replace(row_of([1.0], [2.0]), id="R2 224 px", gate=None, aim=None)
    curve = growth.curve("an epoch, packed", "videos", {1.0: [1.0], 2.0: [2.1], 4.0: [3.9]})
    return {
        "kind": "cpu",
        "environment": measure.environment(),
        "repeats": 1,
        "rows": [row_of([4.0], [2.0]).to_dict(), beside.to_dict()],
        "failures": [],
        "growth": [curve.to_dict()],
        "shares": {
            "56 px": {
                "plain": {"decode": 1.0, "tower": 0.5, "language model": 0.5},
                "ours": {"language model": 0.25, "optimiser": 0.25},
            }
        },
        "peak_rss_mb": 100.0,
        "wall_seconds": 60.0,
    }


def page_with_sections(folder: Path) -> Path:
    page = folder / "performance.md"
    marks = [f"<!-- bench: {name} -->\nold\n<!-- bench: end -->\n" for name in report.SECTIONS]
    page.write_text("# Speed\n\n" + "\nprose\n".join(marks), encoding="utf-8")
    return page


def test_the_page_holds_the_figures(tmp_path: Path):
    """Catches figures beside their section, prose that is lost, and pictures that are not drawn."""
    page, known = page_with_sections(tmp_path), figures()
    report.write(page, known)
    text = page.read_text(encoding="utf-8")
    assert "| R2 | a lever | **2.00** | 1.7 | 1.8 | 4.00 s | 2.00 s |" in text
    assert "| R2 224 px | a lever | 0.50 |  |  |" in text
    assert "| decode | 50.0% |  |" in text
    assert text.count("prose") == len(report.SECTIONS) - 1
    assert text.count("\nold\n") == 2  # the accelerator's sections wait for their own run
    for name in ("ratios", "growth", "shares"):
        assert (tmp_path / "performance" / f"{name}.png").stat().st_size > 5000
    again = page.read_text(encoding="utf-8")
    report.write(page, known)
    assert page.read_text(encoding="utf-8") == again


def test_a_page_without_a_section_is_refused_whole(tmp_path: Path):
    """Catches a table that goes nowhere."""
    page = tmp_path / "performance.md"
    page.write_text("# Speed\n", encoding="utf-8")
    with pytest.raises(report.ReportError, match="bench: environment"):
        report.write(page, figures())
    assert page.read_text(encoding="utf-8") == "# Speed\n"
    with pytest.raises(report.ReportError, match="no such page"):
        report.write(tmp_path / "other.md", figures())


def test_the_command_tells_a_missed_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The figures of an earlier run, good and bad. Catches an exit status of 0 on a failed gate."""
    known = tmp_path / "bench.json"
    known.write_text(json.dumps(figures()), encoding="utf-8")
    assert bench.main(["--from", str(known)]) == 0
    failed = figures() | {"failures": ["R2: 1.20 times, the gate is 1.7"]}
    known.write_text(json.dumps(failed), encoding="utf-8")
    assert bench.main(["--from", str(known)]) == 1
    assert "the gate is 1.7" in capsys.readouterr().err


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]):
    """Catches a benchmark that measures nothing and passes."""
    with pytest.raises(SystemExit):
        bench.main(["--rows", "R77"])
    assert "R77" in capsys.readouterr().err


def test_targets_follow_from_the_cases():
    """By hand: 0.05 s a video is an epoch of 80 s. Catches seconds of questions taken for those of
    videos, and a fold without one of its parts.
    """
    speed = {
        "median": {"samples_per_s": 60.0, "model_tflop_per_s": 395.0, "tokens_per_s": 9.0},
        "peak_memory_gb": 61.0,
        "data_wait": 0.01,
        "samples": 900,
    }
    case = accelerator.stage_case("stage1", "4 videos a step", speed, 3, "NVIDIA H200")
    assert case["seconds_a_video"] == pytest.approx(0.05)
    # 395 TFLOP/s over 20 videos a second, at 790: half the time.
    assert case["predicted_seconds_a_video"] == pytest.approx(0.025)
    assert case["mfu"] == pytest.approx(395 / 989)
    found = accelerator.goals([case])
    assert found == {"stage1_epoch_s": pytest.approx(80)}
    table = report.targets_table(found, "NVIDIA H200")
    assert "| 140 s | 82 s | 80.0 s |" in table
    assert "not measured here" in table
    assert "80.0 s" not in report.targets_table(found, None)
