"""Scales and aspects: units, level words, slots, and what is refused."""

import math

import pytest

from lmme3dhf.aspects import GEN3DHF, Aspect, AspectError, Scale, aspects_from, aspects_of
from lmme3dhf.data.gen3dhf import PROMPTS

FIVE = Scale(minimum=1, maximum=5, levels=("low", "high"), edges=(1, 3, 5))


def test_units_of_a_one_to_five_scale_by_hand():
    """Half-way between 1 and 5 is 3, not 2.5: the minimum counts."""
    assert FIVE.to_unit(3) == 0.5
    assert FIVE.from_unit(0.25) == 2
    held = [FIVE.holds(score) for score in (1, 5, 5.1, math.nan)]
    assert held == [True, True, False, False]


def test_units_of_the_opinion_scale_are_hundredths_to_the_bit():
    """Scores of models trained before there were scales must not move."""
    scale = GEN3DHF["quality"].scale
    for value in (0.1, 1 / 3, 0.7853981, -0.02):
        assert scale.from_unit(value) == 100 * value
        assert scale.to_unit(100 * value) == 100 * value / 100


@pytest.mark.parametrize(
    ("score", "word"), [(0, "low"), (1, "low"), (3, "low"), (3.1, "high"), (9, "high")]
)
def test_an_edge_belongs_to_the_level_below_it(score, word):
    """Eq. 4 is closed above; scores beyond the edges keep the outer words."""
    assert FIVE.level(score) == word


@pytest.mark.parametrize(
    "values",
    [
        {"minimum": 1, "maximum": 1},
        {"maximum": math.nan},
        {"levels": ("good",)},
        {"levels": ("good", "good")},
        {"levels": ("very good", "bad")},
        {"edges": (0, 1)},
        {"edges": (0, 20, 20, 60, 80, 100)},
        {"tokens": (1, 2)},
    ],
)
def test_impossible_scales_are_refused(values):
    """A scale that cannot be learnt or put in words would fail in the middle of training."""
    with pytest.raises(AspectError, match="expected"):
        Scale(**values)


@pytest.mark.parametrize("name", ["Quality", "1st", "score", "distortion", "a b", ""])
def test_names_that_columns_cannot_have_are_refused(name):
    """Columns begin with the name, so it may not be that of another column."""
    with pytest.raises(AspectError, match="expected a name"):
        Aspect(name=name, prompt="Rate it.", answer_prefix="It is")


def test_slots_are_filled_and_missing_ones_named():
    """A prompt with a hole in it would be trained on silently."""
    aspect = Aspect(name="fit", prompt="Does it show {prompt}?", answer_prefix="The {aspect} is")
    assert aspect.question({"prompt": "a red hat"}) == "Does it show a red hat?"
    assert aspect.prefix() == "The fit is"
    with pytest.raises(AspectError, match="prompt"):
        aspect.question()


@pytest.mark.parametrize("text", ["{aspect.name}", "{aspect!r}", "{}", "{", "{a:>9}"])
def test_fields_that_would_read_attributes_are_refused(text):
    """A model folder of a stranger may not reach into objects."""
    with pytest.raises(AspectError, match="fit"):
        Aspect(name="fit", prompt=text, answer_prefix="It is")


def test_aspects_survive_json():
    """A model folder stores them."""
    assert aspects_from({a.name: a.to_dict() for a in GEN3DHF.values()}) == GEN3DHF


ASKED = {"prompt": "Does it fit?", "answer_prefix": "It is"}


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"fit": None},
        {"fit": {"prompt": "a"}},
        {"fit": ASKED | {"scale": {"max": 5}}},
        {"fit": ASKED | {"scale": {"levels": 5}}},
    ],
)
def test_files_with_other_content_are_refused(content):
    """A misspelt key would silently change nothing."""
    with pytest.raises(AspectError):
        aspects_from(content)


def test_a_data_set_declares_its_aspects(tmp_path):
    """Settings win over the data set, and that over the default."""
    assert aspects_of(tmp_path) == GEN3DHF
    (tmp_path / "aspects.yaml").write_text("fit: {prompt: Fits it, answer_prefix: It is}")
    assert list(aspects_of(tmp_path)) == ["fit"]
    assert aspects_of(tmp_path, GEN3DHF) == GEN3DHF
    (tmp_path / "aspects.yaml").write_text("- fit")
    with pytest.raises(AspectError, match=r"aspects\.yaml"):
        aspects_of(tmp_path)


def test_the_prompts_are_those_of_the_lists():
    """Models are asked what they were trained on."""
    assert {name: aspect.question() for name, aspect in GEN3DHF.items()} == {
        name: PROMPTS[name] for name in GEN3DHF
    }
