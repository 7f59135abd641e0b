"""Slips of the pen are put right, words of their own are left alone."""

import re

import pytest

from lmme3dhf.annotations.rules import any_of, load_rules
from lmme3dhf.annotations.spelling import _slips, corrected


@pytest.mark.parametrize(
    ("typed", "meant", "slips"),
    [
        ("eyes", "eyes", 0),
        ("eys", "eyes", 1),
        ("mouht", "mouth", 1),
        ("haiir", "hair", 1),
        ("nise", "nose", 1),
        ("assessories", "accessories", 2),
        ("", "lip", 3),
        # The textbook case of the restricted distance: without touching a letter twice it is 3.
        ("ca", "abc", 3),
    ],
)
def test_slips_are_counted_as_by_hand(typed, meant, slips):
    """Catches a swap counted as two, and the two arguments confused."""
    assert _slips(typed, meant) == slips
    assert _slips(meant, typed) == slips


@pytest.mark.parametrize(
    ("text", "expected", "corrections"),
    [
        ("the mouht is wierd", "the mouth is weird", (("mouht", "mouth"), ("wierd", "weird"))),
        ("mouht's corner", "mouth's corner", (("mouht", "mouth"),)),
        ("mouht mouht", "mouth mouth", (("mouht", "mouth"),)),
        ("mouuuuth eyesss", "mouth eyes", (("mouuuuth", "mouth"), ("eyesss", "eyes"))),
        ("assessories", "accessories", (("assessories", "accessories"),)),
        ("eys", "eyes", (("eys", "eyes"),)),
        # First letter wrong; too short; two slips in a short word.
        ("rair", "rair", ()),
        ("hai", "hai", ()),
        ("mohht", "mohht", ()),
    ],
)
def test_what_is_put_right(text, expected, corrections):
    """Catches a correction that is silent, and one that guesses."""
    assert corrected(text, load_rules()) == (expected, corrections)


def test_words_of_their_own_are_left_alone():
    """Everyday words a letter away from a word of the table, and words of the table. Catches
    "month" read as "mouth".
    """
    text = (
        "hear heard here hair heir year noise nose note heat hand head moth month mouth tire mast "
        "mask check chick fire five find china face fact case neat teeth fare lies eats bear board "
        "doesn't scary stranger skirt shift skill meeting emerged difference gave held ears earn"
    )
    assert corrected(text, load_rules()) == (text, ())


def test_every_correction_leads_to_a_word_that_means_something():
    """Catches a word of the list that no rule knows, and a word that is both near and a target."""
    rules = load_rules()
    meanings = [*rules.categories.values(), *rules.places.values()]
    meanings += [rules.faults, rules.faulty, rules.good, rules.nothing, ("without", "except")]
    meanings.append(("feature", "features", "exposed"))  # halves of phrases
    assert len(rules.correct_to) > 100
    assert len(rules.never_correct) > 150
    known = re.compile(any_of(tuple(phrase for phrases in meanings for phrase in phrases)))
    assert not [word for word in rules.correct_to if not known.match(word)]
    assert not set(rules.correct_to) & rules.never_correct


def test_a_word_between_two_meanings_is_left_alone(tmp_path):
    """ "Noxe" is as near to nose as to a made-up "nope"-word of another category. Catches a
    correction that takes the first of several.
    """
    assert corrected("noxe", load_rules())[0] == "nose"
    path = tmp_path / "rules.yaml"
    path.write_text(
        "categories: {Hair Distortions: [noxy]}\ncorrect_to: [noxy]\n", encoding="utf-8"
    )
    assert corrected("noxe", load_rules(path)) == ("noxe", ())
