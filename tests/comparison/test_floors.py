"""What a metric has to beat, and what it cannot pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.annotations.fixations import Fixations
from lmme3dhf.baselines.centre_map import gaussians
from lmme3dhf.comparison.floors import _by_marker, floors_of, noise_ceiling, score_floors
from lmme3dhf.comparison.scoring import score_figures
from lmme3dhf.comparison.sources import read_source
from lmme3dhf.data.generator_statistics import generator_floor
from lmme3dhf.reports.evaluation import Labels
from tests.comparison.conftest import PARTS, VIDEOS, mos
from tests.conftest import shared_data


def figures(source: object) -> dict[str, dict[str, float]]:
    round_ = source.rounds[0]
    return {m.name: score_figures(m, round_)[0] for _, m in score_floors(source, round_)}


def test_floors_and_oracles_of_the_official_lists():
    """The audit's figures of the released scores, measured by others. Its two values of the level
    oracle's PLCC are those of the level's number (.9292, .9469) and of its training mean (.9323,
    .9492), the better predictor, which stands here. Catches means over the test part, and levels of
    another split.
    """
    found = figures(read_source(data=shared_data("gen3dhf_annotations")))
    for name, dimension, expected in (
        ("level oracle", "quality", (0.9144, 0.9323, 0.7836)),
        ("level oracle", "authenticity", (0.9333, 0.9492, 0.8120)),
        ("other dimension's score", "quality", (0.8839, 0.8995, 0.6987)),
        ("other dimension's score", "authenticity", (0.8839, 0.8995, 0.6987)),
    ):
        measured = [found[name][f"{dimension}_{key}"] for key in ("srcc", "plcc", "krcc")]
        assert measured == pytest.approx(expected, abs=6e-5), (name, dimension)
    generators = found["mean of the clip's generator"]
    assert generators["quality_srcc"] == pytest.approx(0.472, abs=6e-4)
    assert generators["authenticity_srcc"] == pytest.approx(0.462, abs=6e-4)


def test_the_generators_mean_is_that_of_the_data_statistics(make_run: Callable):
    """Computed a second way by `data.generator_statistics`. Catches two
    definitions of one floor.
    """
    source = read_source(make_run(smoke=True))
    found = figures(source)["mean of the clip's generator"]
    for dimension in ("quality", "authenticity"):
        other = generator_floor({v: mos(v, dimension) for v in VIDEOS}, PARTS)
        for key in ("srcc", "plcc", "krcc"):
            assert found[f"{dimension}_{key}"] == pytest.approx(other[key], abs=1e-9)


def test_a_constant_floor_is_undefined_and_the_truth_is_perfect(make_run: Callable):
    """The true opinions of the little set are the scores plus a constant. Catches a 0 in place of
    undefined.
    """
    found = figures(read_source(make_run(smoke=True)))
    assert np.isnan(found["mean of the training scores"]["quality_srcc"])
    assert found["mean of the training scores"]["quality_mae"] > 0
    assert found["true opinions"]["quality_srcc"] == pytest.approx(1)


def test_the_noise_ceiling_is_near_what_the_true_opinions_reach(make_run: Callable):
    """30 raters with noise as large as the videos' spread: the truth is known here, so its
    correlation with the labels is too. Catches a ceiling of half the panel, which lies far below,
    and one of raters without noise.
    """
    run = make_run(smoke=True)
    rng = np.random.default_rng(3)
    opinion = {video: rng.normal() for video in VIDEOS}
    rows = ["subject,video,dimension,rating"]
    for rater in range(30):
        for video in VIDEOS:
            rating = float(np.clip(2.5 + 0.5 * (opinion[video] + rng.normal()), 0, 5))
            rows.append(f"r{rater:02},{video},quality,{rating:.3f}")
    (run / "data" / "raw").mkdir()
    (run / "data" / "raw" / "ratings.csv").write_text("\n".join(rows) + "\n")
    source = read_source(run)
    found, note = noise_ceiling(source, source.rounds[0], np.random.default_rng(0))
    # Noise 1 over 30 raters against a spread of 1: r = sqrt(1 / (1 + 1/30)) = .984.
    assert set(found) == {"quality_srcc", "quality_plcc", "quality_krcc"}
    assert found["quality_plcc"] == pytest.approx(0.984, abs=0.012)
    assert "in 95 % of 200 panels of" in note


def test_there_is_no_noise_ceiling_without_ratings(make_run: Callable):
    """As in the release. Catches a ceiling that is made up."""
    source = read_source(make_run(smoke=True))
    assert noise_ceiling(source, source.rounds[0], np.random.default_rng(0)) is None


def test_the_majority_answer_is_the_training_parts(make_run: Callable):
    """Counted by hand below. Catches the test part's own majority."""
    source = read_source(make_run(smoke=True))
    counts: dict[tuple[str, ...], int] = {}
    for named in source.rounds[0].train.distortions.values():
        counts[tuple(sorted(named))] = counts.get(tuple(sorted(named)), 0) + 1
    (floor,) = floors_of("answers", source, source.rounds[0])
    answers = set(floor.answers.values())
    assert len(answers) == 1
    assert counts[next(iter(answers))] == max(counts.values())


def test_the_mean_map_is_over_the_training_maps(make_run: Callable):
    """Their sum by hand. Catches test maps in it."""
    source = read_source(make_run(smoke=True))
    floors = {m.name: m for m in floors_of("maps", source, source.rounds[0])}
    mean = floors["mean training map"].map_of("", (16, 48))
    loaded = [np.load(source.maps / f"{v}.npz")["saliency"] for v in PARTS["train"]]
    assert mean == pytest.approx(np.sum(loaded, axis=0) / len(loaded))
    bare = replace(source.rounds[0], train=Labels(mos={}, levels={}, distortions={}))
    names = {m.name for m in floors_of("maps", source, bare)}
    assert names == {"uniform map", "centre of each view"}


@pytest.mark.parametrize(("shape", "peaks"), [((16, 48), 3), ((16, 16), 1), ((20, 30), 2)])
def test_the_centre_map_has_a_peak_in_each_view(shape: tuple[int, int], peaks: int):
    """Local maxima along the middle row. Catches one wide blob over three views."""
    row = gaussians(shape)[shape[0] // 2]
    higher = (row[1:-1] >= row[:-2]) & (row[1:-1] > row[2:])
    assert higher.sum() == peaks
    assert gaussians(shape).max() <= 1


def test_points_are_parted_by_marker():
    """Two of a, then one of b. Catches markers who get each other's points."""
    found = Fixations(((1.0, 1.0), (2.0, 2.0), (3.0, 3.0)), {"b": 2, "a": 1})
    assert _by_marker(found) == {"b": ((1.0, 1.0), (2.0, 2.0)), "a": ((3.0, 3.0),)}


def test_the_data_set_alone_has_floors(tmp_path: Path, make_run: Callable):
    """`--data` in place of a run. Catches floors that need a model."""
    source = read_source(data=make_run(smoke=True) / "data")
    assert "level oracle" in figures(source)
    assert source.smoke == "the data set is synthetic"
