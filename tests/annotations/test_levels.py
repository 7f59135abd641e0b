"""Quality levels (Eq. 4): bins by hand, edge cases, and every label of the official lists."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.levels import fit_level_scale, read_levels, soft_label, to_json
from lmme3dhf.aspects import GEN3DHF, Aspect, AspectError, Scale
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import shared_data

QUALITY = GEN3DHF["quality"]
TENS = Scale(edges=(0.0, 10.0, 20.0, 30.0, 40.0, 50.0))
UNITS = Scale(edges=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))


@pytest.mark.parametrize(
    ("mos", "word"),
    [
        (0, "bad"),
        (10, "bad"),
        (10.001, "poor"),
        (20, "poor"),
        (25, "fair"),
        (40, "good"),
        (40.001, "excellent"),
        (50, "excellent"),
        (-3, "bad"),
        (99, "excellent"),
    ],
)
def test_bins_are_open_below_and_closed_above(mos, word):
    """By hand from Eq. 4. Catches bins closed at the wrong side, a minimum without level, a crash
    beyond the fitted range.
    """
    assert TENS.level(mos) == word


@pytest.mark.parametrize("mos", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_has_no_level(mos):
    """Catches NaN falling into some bin because every comparison with it is false."""
    with pytest.raises(AspectError, match="has no level"):
        TENS.level(mos)


def test_edges_are_five_equal_intervals():
    """By hand: 12..62 in steps of 10; the ends are the data's own, bit for bit."""
    assert fit_level_scale(np.array([62.0, 30.0, 12.0]), QUALITY).edges == pytest.approx(
        (12, 22, 32, 42, 52, 62)
    )
    ends = fit_level_scale(np.array([0.1 + 0.2, 0.7]), QUALITY).edges
    assert (ends[0], ends[-1]) == (0.1 + 0.2, 0.7)


def test_equal_counts_put_a_fifth_into_each_level():
    """Ten skewed scores by hand: two to a level, where equal widths put seven into the last.
    Catches edges on a score that fall to the wrong side.
    """
    mos = np.array([1.0, 20, 48, 52, 53, 54, 55, 56, 57, 61])
    scale = fit_level_scale(mos, QUALITY, "equal_count")
    assert [scale.level(score) for score in mos] == [word for word in LEVELS for _ in range(2)]
    assert (scale.edges[0], scale.edges[-1]) == (1.0, 61.0)
    assert scale.edges[1] == pytest.approx(20 + 0.8 * 28)  # position 0.2 * 9 = 1.8
    counts = Counter(fit_level_scale(mos, QUALITY).level(score) for score in mos)
    assert counts == {"bad": 1, "poor": 1, "good": 1, "excellent": 7}


def test_equal_counts_of_ties_are_refused():
    """Catches two edges on one score, between which no score can lie."""
    with pytest.raises(AnnotationError, match="expected 6 finite increasing numbers"):
        fit_level_scale(np.array([1.0, 5, 5, 5, 5, 5, 9]), QUALITY, "equal_count")


def test_soft_labels_are_the_mass_of_a_normal_between_the_edges():
    """From a printed table of the normal distribution: Phi(1) = .8413, Phi(3) = .9987. Score 25 and
    deviation 5 have the edges 10, 20, 30, 40 at z = -3, -1, 1, 3. Catches lost tails.
    """
    soft = soft_label(TENS, 25, 5)
    assert soft == pytest.approx((0.0013, 0.1573, 0.6827, 0.1573, 0.0013), abs=1e-4)
    for mos, std in ((-20, 4), (25, 1e-9), (49, 300), (10, 3)):
        assert sum(soft_label(TENS, mos, std)) == pytest.approx(1)
    assert soft_label(TENS, 10, 3)[0] == pytest.approx(0.5)


def test_soft_labels_without_deviation_are_hard():
    """One rating has no deviation, agreeing raters have 0. Catches 0 / 0."""
    assert soft_label(TENS, 20, float("nan")) == (0, 1, 0, 0, 0)
    assert soft_label(TENS, 20, 0) == (0, 1, 0, 0, 0)
    for std in (-1, float("inf")):
        with pytest.raises(AnnotationError, match="standard deviation"):
            soft_label(TENS, 20, std)


@pytest.mark.parametrize("mos", [[], [40.0, 40.0], [1.0, float("nan")]])
def test_scores_without_a_range_are_refused(mos):
    """Catches a scale of zero width, which would call everything bad."""
    with pytest.raises(AnnotationError, match="quality levels: "):
        fit_level_scale(np.array(mos), QUALITY)


@pytest.mark.parametrize(
    "edges",
    [(0, 1, 2, 3, 4), (0, 1, 2, 2, 4, 5), (0, 1, 2, 3, 4, float("inf")), (5, 4, 3, 2, 1, 0)],
)
def test_impossible_edges_are_refused(edges):
    """Catches a scale that a later search would use although it is not sorted."""
    with pytest.raises(AspectError, match="expected 6 finite increasing numbers"):
        Scale(edges=edges)


def test_scales_survive_the_file(tmp_path):
    """Catches a loss of digits or of the aspect on the way through the file."""
    scales = {
        "quality": fit_level_scale(np.array([6.361922, 65.750246]), QUALITY),
        "authenticity": UNITS,
    }
    path = tmp_path / "levels.json"
    path.write_text(json.dumps(to_json(scales)), encoding="utf-8")
    assert read_levels(path, GEN3DHF) == scales
    assert to_json(scales)["authenticity"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def aspect(**scale) -> Aspect:
    return Aspect(name="noise", prompt="How noisy?", answer_prefix="It is", scale=Scale(**scale))


def test_three_words_and_none(tmp_path):
    """By hand: scores 1 to 4 in three equal intervals have the edges 1, 2, 3, 4; by counts the
    edges of 1, 1.5, 2, 4 lie at 1, 1.5, 2, 4. A score of 2.5 with deviation 0.5 has its edges at
    z = -1 and 1: Phi(-1) = .1587. An aspect without words is left as it is and is in no file.
    Catches five words everywhere.
    """
    noise = aspect(minimum=1, maximum=5, levels=("low", "middle", "high"))
    scale = fit_level_scale(np.array([4.0, 1.0, 1.5]), noise)
    assert scale.edges == pytest.approx((1, 2, 3, 4))
    assert [scale.level(score) for score in (1, 2, 2.1, 5)] == ["low", "low", "middle", "high"]
    assert soft_label(scale, 2.5, 0.5) == pytest.approx((0.1587, 0.6827, 0.1587), abs=1e-4)
    counted = fit_level_scale(np.array([1.0, 1.5, 2.0, 4.0]), noise, "equal_count")
    assert counted.edges == pytest.approx((1, 1.5, 2, 4))
    wordless = aspect(levels=())
    assert fit_level_scale(np.array([1.0, 1.0]), wordless) == wordless.scale
    assert to_json({"noise": scale, "other": wordless.scale}) == {"noise": [1, 2, 3, 4]}
    path = tmp_path / "levels.json"
    path.write_text('{"noise": [1, 2, 3, 4]}')
    assert read_levels(path, {"noise": noise}) == {"noise": scale}
    with pytest.raises(AnnotationError, match=r"levels\.json: noise levels: .*expected 6"):
        read_levels(path, {"noise": aspect()})


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[" * 100_000,
        "[]",
        "{}",
        '{"beauty": [0, 1, 2, 3, 4, 5]}',
        '{"quality": [1, 2]}',
        '{"quality": "012345"}',
        '{"quality": 7}',
        '{"quality": [0, 1, 2, 3, 4, "5"]}',
    ],
)
def test_a_broken_levels_file_is_named(tmp_path, content):
    """Catches a stray file that is taken for level edges, and a message without the file."""
    path = tmp_path / "levels.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=r"levels\.json:"):
        read_levels(path, GEN3DHF)


def _official_rows(split, dimension):
    """(score, level word) of the official numerical list, checked against the word in the text
    list.
    """
    rows = []
    folder = shared_data("gen3dhf_annotations")
    texts = json.loads((folder / "text" / f"{split}_{dimension}.json").read_text(encoding="utf-8"))
    numbers = json.loads(
        (folder / "numerical" / f"{split}_{dimension}.json").read_text(encoding="utf-8")
    )
    for text, number in zip(texts, numbers, strict=True):
        word, score = re.search(r"is (\w+)\. \((.+)\)$", number["messages"][1]["content"]).groups()
        assert text["messages"][1]["content"].endswith(f"is {word}.")
        rows.append((float(score), word))
    return rows


# Edges and counts (train, eval) measured on the released lists; "None" is the training minimum,
# left out by Eq. 4 as printed.
OFFICIAL_EDGES = {
    "quality": (6.361922, 18.239587, 30.117252, 41.994917, 53.872581, 65.750246),
    "authenticity": (8.584694, 20.122782, 31.660870, 43.198958, 54.737046, 66.275134),
}
OFFICIAL_COUNTS = {
    "quality": {
        "None": (1, 0),
        "bad": (4, 0),
        "poor": (43, 8),
        "fair": (192, 47),
        "good": (618, 162),
        "excellent": (742, 183),
    },
    "authenticity": {
        "None": (1, 0),
        "bad": (11, 0),
        "poor": (70, 18),
        "fair": (263, 66),
        "good": (550, 149),
        "excellent": (705, 167),
    },
}


@pytest.mark.parametrize("dimension", [*GEN3DHF])
def test_every_official_label_comes_back(dimension):
    """The released labels of 2,000 videos from their scores. Catches another edge rule and other
    bounds.
    """
    train, held_out = _official_rows("train", dimension), _official_rows("eval", dimension)
    assert (len(train), len(held_out)) == (1600, 400)
    words = (Counter(word for _, word in train), Counter(word for _, word in held_out))
    assert {
        word: (words[0][word], words[1][word]) for word in ("None", *LEVELS)
    } == OFFICIAL_COUNTS[dimension]

    scale = fit_level_scale(np.array([score for score, _ in train]), GEN3DHF[dimension])
    assert scale.edges == pytest.approx(OFFICIAL_EDGES[dimension], abs=5e-7)
    for score, word in train + held_out:
        assert scale.level(score) == ("bad" if word == "None" else word)
