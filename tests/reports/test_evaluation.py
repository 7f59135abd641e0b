"""Predictions against labels: figures worked out by hand, floors, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.files import write_json
from lmme3dhf.predictions import Prediction, PredictionError
from lmme3dhf.reports.evaluation import Labels, evaluate, evaluate_maps, opinion_ceiling
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

EYE, MOUTH, HAIR = DISTORTIONS[:3]
MOS = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}
LEVELS = {"a": "bad", "b": "poor", "c": "fair", "d": "good"}
SETS = {
    "a": frozenset({EYE}),
    "b": frozenset({EYE, MOUTH}),
    "c": frozenset({NO_DISTORTION}),
    "d": frozenset({HAIR}),
}


def record(video: str, dimension: str = "quality", **fields) -> Prediction:
    return Prediction(video=video, dimension=dimension, method="ours", **fields)


def labels(**fields) -> Labels:
    return Labels(**({"mos": {}, "levels": {}, "distortions": {}} | fields))


def test_correlations_are_those_worked_out_by_hand():
    """Scores 11, 19, 35, 34 for 10, 20, 30, 40: one swapped neighbour of six pairs gives 1 - 12/60,
    (5 - 1)/6, and Pearson 425 / sqrt(412.75 * 500). The records come in another order. Catches
    predictions paired with another video's score.
    """
    scores = {"c": 35.0, "a": 11.0, "d": 34.0, "b": 19.0}
    records = [record(video, score=score) for video, score in scores.items()]
    figures = evaluate(records, labels(mos={"quality": MOS}))
    assert set(figures) == {"quality"}
    assert figures["quality"] == {
        "srcc": pytest.approx(0.8),
        "plcc": pytest.approx(425 / np.sqrt(412.75 * 500)),
        "krcc": pytest.approx(4 / 6),
        "n": 4,
    }


def test_dimensions_are_kept_apart():
    """The same videos in the opposite order. Catches the scores of one dimension for the other."""
    reverse = {video: 50 - mos for video, mos in MOS.items()}
    records = [
        record(video, dimension, score=mos)
        for dimension in ("quality", "authenticity")
        for video, mos in MOS.items()
    ]
    figures = evaluate(records, labels(mos={"quality": MOS, "authenticity": reverse}))
    assert figures["quality"]["srcc"] == pytest.approx(1)
    assert figures["authenticity"]["srcc"] == pytest.approx(-1)


def test_a_method_that_says_no_level_at_all_has_no_level_accuracy():
    """Maps alone, on labelled lists. Catches an accuracy of 0 for what nobody asked."""
    records = [record(video, map=f"maps/{video}.png") for video in LEVELS]
    assert "level" not in evaluate(records, labels(levels={"quality": LEVELS}))


def test_level_accuracy_is_per_video_and_counts_missing_words_as_wrong():
    """By hand: two of four in quality (one wrong, one without a word), both of two in authenticity,
    so four of six. Catches a mean of the dimensions, and unparsable answers that drop out.
    """
    said = {"a": "bad", "b": "fair", "c": None, "d": "good"}
    records = [record(video, level=level) for video, level in said.items()]
    records += [record(video, "authenticity", level="good") for video in "ab"]
    truth = {"quality": LEVELS, "authenticity": {"a": "good", "b": "good"}}
    assert evaluate(records, labels(levels=truth)) == {
        "level": {
            "quality": pytest.approx(0.5),
            "authenticity": pytest.approx(1.0),
            "accuracy": pytest.approx(4 / 6),
        }
    }


def test_distortion_answers_are_compared_as_sets():
    """Jaccard by hand: 1, 1/2, 0, and 0 for an answer that named nothing; the majority of the
    training answers gets the same. Catches recall over the wrong videos.
    """
    said = {"a": (EYE,), "b": (EYE,), "c": (EYE,), "d": ()}
    records = [record(video, distortions=names) for video, names in said.items()]
    train = [frozenset({EYE}), frozenset({EYE}), frozenset({NO_DISTORTION})]
    figures = evaluate(records, labels(distortions=SETS), train)["distortion"]
    assert figures["accuracy"] == pytest.approx(1.5 / 4)
    assert figures["exact"] == pytest.approx(1 / 4)
    assert figures["n"] == 4
    assert figures["recall"][EYE] == 1
    assert figures["recall"][MOUTH] == figures["recall"][HAIR] == 0
    assert np.isnan(figures["recall"]["Blurring / Exposure / Grain"])
    assert figures["support"] == {
        name: {EYE: 2, MOUTH: 1, HAIR: 1, NO_DISTORTION: 1}.get(name, 0) for name in DISTORTIONS
    }
    assert figures["majority_answer"] == [EYE]
    assert figures["majority"] == pytest.approx(1.5 / 4)


def test_the_majority_answer_is_that_of_the_training_part():
    """Catches a floor fitted on the test part, where it would be better than it can be."""
    records = [record(video, distortions=(EYE,)) for video in SETS]
    train = [frozenset({HAIR})] * 3 + [frozenset({EYE})] * 2
    figures = evaluate(records, labels(distortions=SETS), train)["distortion"]
    assert figures["majority_answer"] == [HAIR]
    assert figures["majority"] == pytest.approx(1 / 4)
    assert "majority" not in evaluate(records, labels(distortions=SETS))["distortion"]


@pytest.mark.parametrize("field", ["mos", "levels"])
def test_a_labelled_video_without_prediction_is_refused(field):
    """Catches a test set that is shortened silently; a record of the other dimension is none."""
    truth = labels(**{field: {"quality": {"mos": MOS, "levels": LEVELS}[field]}})
    records = [record(video, score=1.0, level="good") for video in "abc"]
    with pytest.raises(ValueError, match=r"quality: 1 .* no prediction, the first is d"):
        evaluate(records, truth)
    with pytest.raises(ValueError, match="no prediction"):
        evaluate([*records, record("d", "authenticity", score=1.0)], truth)
    more = [record(video, score=1.0, level="good") for video in "dxyz"]
    evaluate([*records, *more], truth)


def test_a_labelled_video_without_distortion_answer_is_refused():
    """Catches an accuracy over those videos alone that happened to be answered."""
    records = [record(video, distortions=(EYE,)) for video in "ab"]
    with pytest.raises(ValueError, match="have no answer"):
        evaluate(records, labels(distortions=SETS))


def test_what_is_not_labelled_or_not_predicted_has_no_figure():
    """Catches figures of nothing."""
    assert evaluate([], labels()) == {}
    records = [record(video, score=1.0) for video in MOS]
    assert evaluate(records, labels()) == {}
    figures = evaluate([record(video) for video in MOS], labels(mos={"quality": MOS}))
    assert figures == {}


@pytest.mark.parametrize(
    "known", [{"mos": {"quality": MOS}}, {"levels": {"quality": dict.fromkeys(MOS, "good")}}, {}]
)
def test_a_failed_video_refuses_the_evaluation(known):
    """Whatever is known of it, and even where every video failed. Catches figures of the videos
    that worked.
    """
    known |= {} if known else {"distortions": SETS}
    failed = record("a", reason="truncated", message="a.mp4 is cut off")
    others = [record(video, score=1.0, level="good", distortions=(EYE,)) for video in "bcd"]
    for records, count in (
        ([failed, *others], 1),
        ([replace(failed, video=v) for v in MOS], 4),
    ):
        with pytest.raises(PredictionError, match=rf"{count} of 4 .* a \(truncated: a.mp4"):
            evaluate(records, labels(**known))
    with pytest.raises(PredictionError, match="lmme3dhf predict"):
        evaluate([], labels(**known))


def test_undefined_figures_are_nan_and_null_in_json(tmp_path):
    """Constant scores have no correlation. Catches a zero in their place, and NaN tokens, which
    JSON does not know.
    """
    records = [record(video, score=50.0, distortions=(EYE,)) for video in MOS]
    figures = evaluate(records, labels(mos={"quality": MOS}, distortions=SETS))
    assert np.isnan(figures["quality"]["srcc"])
    write_json(tmp_path / "figures.json", {"nested": [figures]})

    def refuse(token: str):
        raise AssertionError(token)

    text = (tmp_path / "figures.json").read_text(encoding="utf-8")
    (read,) = json.loads(text, parse_constant=refuse)["nested"]
    reason = read["quality"].pop("reason")
    assert "all 4 predictions are the same" in reason
    assert read["quality"] == {"srcc": None, "plcc": None, "krcc": None, "n": 4}
    assert read["distortion"]["recall"][EYE] == 1
    assert read["distortion"]["recall"]["Blurring / Exposure / Grain"] is None


def test_infinite_figures_are_no_json(tmp_path):
    """NaN is undefined, an infinity is a mistake. Catches it written as null, or half a file."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "figures.json", {"x": float("inf")})
    assert list(tmp_path.iterdir()) == []


HEIGHT, WIDTH = 24, 72


def blob(x: float, y: float, sigma: float = 4.0) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def save(path: Path, grey_HW: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * grey_HW).astype(np.uint8)).save(path)
    return path


TRUE_POINTS = {"a": [(12.0, 10.0)], "b": [(40.0, 5.0), (60.0, 18.0)], "clean": []}


def true_map(video: str) -> np.ndarray:
    return np.max([np.zeros((HEIGHT, WIDTH)), *(blob(x, y) for x, y in TRUE_POINTS[video])], axis=0)


@pytest.fixture
def truth(tmp_path) -> Path:
    for video in TRUE_POINTS:
        save(tmp_path / "truth" / f"{video}.png", true_map(video))
    save(tmp_path / "truth" / "train1.png", blob(10, 10))
    save(tmp_path / "truth" / "train2.png", blob(60, 18))
    save(tmp_path / "truth" / "train3.png", np.zeros((HEIGHT, WIDTH)))
    return tmp_path / "truth"


def test_perfect_maps_get_perfect_figures(truth):
    """The truth itself: CC and SIM 1, KLD 0; a clean video is skipped, and counted. Catches maps of
    other videos, and a clean face that pulls the mean.
    """
    predicted = {video: truth / f"{video}.png" for video in TRUE_POINTS}
    figures = evaluate_maps(
        predicted, truth, TRUE_POINTS, ["train1", "train2", "train3"], list(predicted)
    )
    assert figures["cc"] == pytest.approx(1)
    assert figures["sim"] == pytest.approx(1)
    assert figures["kld"] == pytest.approx(0, abs=1e-6)
    assert figures["auc"] > 0.99
    assert figures["nss"] > 2
    assert (figures["n"], figures["skipped"]) == (2, 1)


def test_the_floor_is_the_mean_training_map(truth):
    """Against numpy's correlation of the mean of three training maps, the clean one included, with
    each test map. Catches a floor from the test maps, or with the clean maps left out of the mean.
    """
    predicted = {video: truth / f"{video}.png" for video in TRUE_POINTS}
    figures = evaluate_maps(
        predicted, truth, TRUE_POINTS, ["train1", "train2", "train3"], list(predicted)
    )
    mean = (blob(10, 10) + blob(60, 18)) / 3
    expected = [np.corrcoef(mean.ravel(), true_map(v).ravel())[0, 1] for v in ("a", "b")]
    assert figures["mean_map_cc"] == pytest.approx(np.mean(expected), abs=0.005)
    assert 0.5 < figures["mean_map_auc"] < figures["auc"]
    without = evaluate_maps(predicted, truth, TRUE_POINTS, [], list(predicted))
    assert "mean_map_cc" not in without
    assert without["cc"] == figures["cc"]


def test_worse_maps_get_worse_figures(truth, tmp_path):
    """A shifted and an opposite map against numpy. Catches prediction and truth swapped for KLD,
    and figures that do not look at the prediction.
    """
    predicted = {"a": save(tmp_path / "ours" / "a.png", blob(18, 10))}
    shifted = evaluate_maps(predicted, truth, TRUE_POINTS, [], list(predicted))
    expected = np.corrcoef(blob(18, 10).ravel(), true_map("a").ravel())[0, 1]
    assert shifted["cc"] == pytest.approx(expected, abs=0.005)
    predicted = {"a": save(tmp_path / "ours" / "a.png", 1 - true_map("a"))}
    opposite = evaluate_maps(predicted, truth, TRUE_POINTS, [], list(predicted))
    assert opposite["cc"] == pytest.approx(-1, abs=0.01)
    assert opposite["auc"] < 0.05
    assert opposite["nss"] < 0 < shifted["nss"]


def test_unknown_points_are_read_off_the_map(truth, tmp_path):
    """The released rule: pixels of at least 0.95 of the peak. By hand for sigma 4: within 1.28
    pixels of the point. Catches an empty map whose every pixel is at its peak.
    """
    wrong_alarm = save(tmp_path / "ours" / "clean.png", blob(30, 12))
    predicted = {"a": truth / "a.png", "clean": wrong_alarm}
    marked = evaluate_maps(predicted, truth, TRUE_POINTS, [], list(predicted))
    derived = evaluate_maps(predicted, truth, None, [], list(predicted))
    assert (derived["n"], derived["skipped"]) == (1, 1)
    assert derived["auc"] > 0.99
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    near = np.hypot(columns - 12, rows - 10) <= 4 * np.sqrt(-2 * np.log(0.95))
    assert near.sum() == 5
    values = np.round(255 * true_map("a")) / 255
    expected = (values[near].mean() - values.mean()) / values.std(ddof=1)
    assert derived["nss"] == pytest.approx(expected, rel=1e-4)
    assert marked["nss"] > derived["nss"]
    assert marked["fixations"] != derived["fixations"]


def test_videos_that_no_marker_looked_at_are_left_out_and_named(truth):
    """The figures are those without the video; with no points known, a missing map stays an error.
    Catches one that counts as clean, and one that goes silently.
    """
    predicted = {video: truth / f"{video}.png" for video in TRUE_POINTS}
    without = evaluate_maps(predicted, truth, TRUE_POINTS, ["train1"], list(predicted))
    assert "not_looked_at" not in without
    found = evaluate_maps(
        predicted, truth, TRUE_POINTS, ["train1", "train9"], [*predicted, "unseen"]
    )
    assert found.pop("not_looked_at") == ["unseen"]
    assert found == without
    with pytest.raises(FileNotFoundError):
        evaluate_maps(
            predicted | {"unseen": truth / "a.png"}, truth, None, [], [*predicted, "unseen"]
        )
    with pytest.raises(PredictionError, match="no marker looked at"):
        evaluate_maps(predicted, truth, TRUE_POINTS, [], ["unseen"])


def test_a_missing_map_is_named(truth):
    """Catches a mean over the videos that happen to have a map."""
    predicted = {"a": truth / "a.png"}
    with pytest.raises(PredictionError, match="1 of 2 test videos"):
        evaluate_maps(predicted, truth, TRUE_POINTS, [], ["a", "b"])


def test_maps_of_another_size_are_refused(truth, tmp_path):
    """Catches a comparison of maps that are broadcast or cut."""
    predicted = {"a": save(tmp_path / "ours" / "a.png", np.zeros((HEIGHT, WIDTH - 1)))}
    with pytest.raises(ValueError, match="expected one"):
        evaluate_maps(predicted, truth, TRUE_POINTS, [], list(predicted))


def test_the_ceiling_is_the_truths_own_correlation(tmp_path):
    """By hand: one swapped neighbour of four in quality, the reverse in authenticity. Catches the
    two opinions swapped, and videos outside the test part counted in.
    """
    opinions = {"a": (1, 1), "b": (2, 2), "c": (4, 3), "d": (3, 4), "train": (9, 9)}
    write_json(tmp_path / "truth.json", {v: {"opinion": o} for v, o in opinions.items()})
    reverse = {video: 100 - mos for video, mos in MOS.items()}
    mos = {"quality": MOS | {"train": 0.0}, "authenticity": reverse | {"train": 0.0}}
    ceiling = opinion_ceiling(tmp_path / "truth.json", mos, iter("abcd"))
    assert ceiling == {"quality": pytest.approx(0.8), "authenticity": pytest.approx(-1)}
