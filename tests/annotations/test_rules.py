"""The table of phrases: the built-in one, what a user's file adds and removes, and what is refused
with its line.
"""

import re

import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.descriptions import categories_of
from lmme3dhf.annotations.rules import BUILT_IN, load_rules
from lmme3dhf.vocabulary import DISTORTIONS

EYE, MOUTH, HAIR, FEATURE, HEAD, OVERLAP, BLUR, CLOTH, NONE = DISTORTIONS


@pytest.fixture
def written(tmp_path):
    """Writes a rules file and gives its path."""

    def write(text: str | bytes):
        path = tmp_path / "rules.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return write


def test_the_built_in_table_is_the_users_template(written):
    """Its own copy as a user's file changes nothing. Catches a template that is refused, or
    phrases that count twice.
    """
    rules, again = load_rules(), load_rules(written(BUILT_IN.read_bytes()))
    assert tuple(rules.categories) == DISTORTIONS[:-1]
    for name in ("categories", "places", "faults", "faulty", "good", "nothing", "correct_to"):
        assert getattr(rules, name)
        assert getattr(again, name) == getattr(rules, name)
    assert again.never_correct == rules.never_correct
    assert again.misspellings == rules.misspellings


def test_a_users_phrases_are_added(written):
    """Catches a file that replaces the built-in table, or a key that is read and forgotten."""
    rules = load_rules(
        written(
            "categories:\n"
            "  Accessories or Cloth Distortions: [top-hat*, Brille]\n"
            "  Hair Distortions: [头发]\n"
            "places: {Head Structure Distortions: [shoulders]}\n"
            "faulty: [wonky]\n"
            "good: [dandy]\n"
            "nothing: [nix]\n"
            "misspellings: {moth: mouth}\n"
            "correct_to: [brille]\n"
        )
    )
    expected = {
        "the tophat floats": {CLOTH},
        "top-hatted": {CLOTH},
        "the Brile is bent": {CLOTH},
        "这个头发很奇怪": {HAIR},
        "shoulders odd": {HEAD},
        "shoulders blurry": {BLUR},
        "eyes not wonky": {NONE},
        "dandy": {NONE},
        "nix": {NONE},
        "moth open": {MOUTH},
        "eyes blurry": {EYE, BLUR},
    }
    for remark, categories in expected.items():
        assert categories_of(remark, rules) == categories, remark
        needs_the_file = remark not in ("eyes blurry", "shoulders blurry")
        assert (categories_of(remark) != categories) == needs_the_file, remark


def test_a_users_file_removes_and_moves(written):
    """A phrase is taken out before others are added. Catches a removed phrase that still matches,
    and a moved one that is refused.
    """
    rules = load_rules(
        written(
            "remove:\n"
            "  categories: {Facial Feature Distortions: [wrinkle*, chin]}\n"
            "  good: [ok]\n"
            "  misspellings: [hed]\n"
            "categories: {Head Structure Distortions: [chin]}\n"
        )
    )
    assert categories_of("wrinkles", rules) == frozenset()
    assert categories_of("chin too long", rules) == {HEAD}
    assert categories_of("ok", rules) == frozenset()
    assert categories_of("big hed", rules) == frozenset()
    assert categories_of("big hed") == {HEAD}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("categories:\n  Eye Distortion: [eye]\n", "2: 'Eye Distortion' is no key of categories"),
        ("categories:\n  Eye Distortion: [eye]\n", "nearest is 'Eye Distortions'"),
        ("categories: {No Distortion: [x]}\n", "1: 'No Distortion' is no key of categories"),
        ("\ncategory: {}\n", "2: 'category' is no key of the file"),
        ("categories:\n  Hair Distortions: [brow]\n", "2: 'brow' already stands under"),
        ("categories:\n  Hair Distortions: [eye brow]\n", "'eye brow' already stands under"),
        ("places: {Eye Distortions: [face]}\n", "1: 'face' already stands under places, Facial"),
        ("good: [weird]\n", "1: 'weird' already stands under faulty"),
        ("never_correct: [eyes]\n", "1: 'eyes' already stands under correct_to"),
        ("misspellings: {eys: ears}\n", "'eys' already stands under misspellings (read as 'eyes')"),
        (
            "categories:\n  Eye Distortions: [orb]\n  Hair Distortions: [orb]\n",
            "3: 'orb' already stands under categories, Eye Distortions",
        ),
        ("good: [fab]\ngood: [fit]\n", "2: 'good' stands twice"),
        ("good: fab\n", "1: good is text ('fab'), expected a list"),
        ("good:\n", "1: good is nothing, expected a list"),
        ("good: [no]\n", "1: an item of good is a truth value ('no'), expected text; put it in"),
        ("good:\n- 12\n", "2: an item of good is a number ('12')"),
        ("good: [[a]]\n", "1: an item of good is a list, expected text"),
        ("good: ['']\n", "1: an empty phrase under good"),
        ("good: [' - ']\n", "1: an empty phrase under good"),
        ("good: ['a*b']\n", "1: 'a*b' under good is no phrase"),
        ("good: ['a*']\n", "1: 'a*' under good would match too much"),
        ("good: ['*']\n", "1: '*' under good is no phrase"),
        ("correct_to: [two words]\n", "1: 'two words' is not a single word"),
        ("correct_to: [hat]\n", "1: 'hat' is too short to be guessed at"),
        ("misspellings: {a b: c}\n", "1: 'a b' is not a single word"),
        ("misspellings: [moth]\n", "1: misspellings is a list, expected keys with values"),
        ("remove: {good: [fin]}\n", "1: 'fin' is not in the built-in table under good"),
        ("remove: {good: [fin]}\n", "nearest is 'fine'"),
        ("remove: {remove: {}}\n", "1: 'remove' is no key of remove"),
        ("- a\n", "1: the file is a list, expected keys with values"),
        ("", ": no rules in it"),
        ("# nothing yet\n", ": no rules in it"),
        ("good: [a\nfaults: b]: c\n", ": not YAML"),
        ("good: [fab]\n---\ngood: [fit]\n", "2:1: not YAML"),
        ("good: !!python/name:os.system []\n", "1: good is"),
        ("good: \x07\n", ": not YAML"),
        ("[" * 3000, ": not YAML"),
        (b"good:\n- \xff\n", "2: not UTF-8"),
    ],
)
def test_bad_rules_are_refused_with_their_place(written, text, reason):
    """Catches a rule that is passed over in silence, and a traceback for a slip in a file."""
    with pytest.raises(AnnotationError) as caught:
        load_rules(written(text))
    message = str(caught.value)
    assert reason in message
    assert re.search(r"rules\.yaml[: ]", message)
    assert "\n" not in message


def test_a_missing_file_is_not_the_built_in_table(tmp_path):
    """Catches a mistyped path that goes unnoticed."""
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        load_rules(tmp_path / "absent.yaml")


def test_nothing_in_a_file_is_constructed(written, tmp_path):
    """Catches a YAML loader that runs code."""
    canary = tmp_path / "canary"
    path = written(f"good: !!python/object/apply:pathlib.Path.touch [!!str {canary}]\n")
    with pytest.raises(AnnotationError):
        load_rules(path)
    assert not canary.exists()
