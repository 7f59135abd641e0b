"""Remarks -> categories, the union over annotators, and the answer sentence both ways; the remarks
were labelled by hand.
"""

import re

import pytest

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.descriptions import (
    categories_of,
    distortion_reply,
    label_remarks,
    merge_markers,
    parse_distortions,
    read_remarks,
)
from lmme3dhf.annotations.rules import load_rules
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

EYE, MOUTH, HAIR, FEATURE, HEAD, OVERLAP, BLUR, CLOTH, NONE = DISTORTIONS


@pytest.mark.parametrize(
    ("remark", "expected"),
    [
        ("The left eye is deformed", {EYE}),
        ("cross-eyed, pupils too large", {EYE}),
        ("TEETH MISSING; lips melt into the chin", {MOUTH, OVERLAP, FEATURE}),
        ("hairline is broken and the ear is in the wrong place", {HAIR, FEATURE}),
        ("a second face on the back of the head", {HEAD}),
        ("over-exposed forehead", {BLUR, FEATURE}),
        ("the face is blurred", {BLUR}),
        ("face deformed", {FEATURE}),
        ("glasses merge with the hair", {CLOTH, OVERLAP, HAIR}),
        ("eyeglasses have only one lens", {CLOTH}),
        ("ear ring is floating", {CLOTH}),
        ("eyebrow missing on one side", {FEATURE}),
        ("hat too small, collar ripped", {CLOTH}),
        ("lots of noise on the nose", {BLUR, FEATURE}),
        ("no left ear", {FEATURE}),
        ("no left ear which is weird", {FEATURE}),
        ("without pupils and blurry hair", {EYE, BLUR, HAIR}),
        ("the eyes do not look natural", {EYE}),
        ("the smile isn't realistic", {MOUTH}),
        ("clear distortion of the nose", {FEATURE}),
        ("pupils are different", {EYE}),
    ],
)
def test_remarks_name_their_categories(remark, expected):
    """Catches a missing stem, a stem that fires inside another word (ear in earring, eye in
    eyebrow, nose in noise), and a
    denial where something is missing or not good."""
    assert categories_of(remark) == expected


@pytest.mark.parametrize(
    "remark",
    [
        "no distortion",
        "No distortions.",
        "None",
        "no",
        "Nothing",
        "nothing wrong with the eyes",
        "looks fine",
        "The hair looks natural, the eyes are ok",
        "I can't see any distortion in the face",
        "I don\N{RIGHT SINGLE QUOTATION MARK}t see any problem",
        "eyes are not distorted",
        "no visible blur on the hair",
        "without any artefacts around the mouth",
        "free of defects",
        "not bad",
        "no eye or mouth distortion",
    ],
)
def test_remarks_that_find_nothing(remark):
    """Catches a category named only to be denied."""
    assert categories_of(remark) == {NONE}


@pytest.mark.parametrize(
    ("remark", "expected"),
    [
        ("eyes look fine but the mouth is crooked", {MOUTH}),
        ("no distortion except the left ear", {FEATURE}),
        ("Everything is good. Only the teeth are wrong", {MOUTH}),
        ("no problem with the hair, although the hat is cut off", {CLOTH}),
    ],
)
def test_a_denial_reaches_only_its_own_clause(remark, expected):
    """Catches a "fine" that silences the whole remark, and NO_DISTORTION beside a real category."""
    assert categories_of(remark) == expected


@pytest.mark.parametrize("remark", ["", "   ", "strange", "asdf", "it is not good"])
def test_a_remark_that_matches_nothing_gives_the_empty_set(remark):
    """Pins how an unmatched remark is told: never as "no distortion"."""
    assert categories_of(remark) == frozenset()


def test_the_table_covers_the_vocabulary_and_knows_its_names():
    """Catches a category without phrases, and one whose own name is filed elsewhere."""
    assert tuple(load_rules().categories) == DISTORTIONS[:-1]
    for category in DISTORTIONS:
        assert categories_of(category) == {category}


def test_markers_are_merged_in_vocabulary_order():
    """Catches set order in label files, and "no distortion" surviving beside a category."""
    assert merge_markers([frozenset({BLUR}), frozenset({NONE}), frozenset({EYE, BLUR})]) == (
        EYE,
        BLUR,
    )
    assert merge_markers([frozenset({NONE}), frozenset({NONE})]) == (NONE,)
    assert merge_markers([frozenset({NONE}), frozenset()]) == (NONE,)
    assert merge_markers([frozenset(), frozenset()]) == ()
    with pytest.raises(AnnotationError, match="'Ear' is not one of the nine"):
        merge_markers([{"Ear"}])


THREE_MARKERS = {
    "seed0000": {"m1": "eys distored", "m2": "looks fine", "m3": "???"},
    "seed0001": {"m1": "no distortion", "m2": "", "m3": "fine"},
    "seed0002": {"m1": "strange", "m2": "weird"},
    "seed0003": {"m1": "none", "m2": "N/A", "m3": "no"},
    "seed0004": {"m3": "blurry, odd", "m1": "left ear missing"},
}


def test_remarks_become_labels_with_what_stays_open_by_name():
    """By hand: seed0000 has one distortion whatever "???" means; in seed0001 the blank remark might
    be one, in seed0002 nobody was understood. Catches an unread remark taken for "no distortion",
    and a video that vanishes.
    """
    found = label_remarks(THREE_MARKERS)
    assert found.labels == {
        "seed0000": (EYE,),
        "seed0003": (NONE,),
        "seed0004": (FEATURE, BLUR),
    }
    assert found.undecided == ("seed0001", "seed0002")
    assert set(found.labels) | set(found.undecided) == set(THREE_MARKERS)


def test_every_remark_has_its_reading():
    """In the order of the table. Catches remarks that are dropped because nothing matched, and
    corrections that nobody is told.
    """
    readings = label_remarks(THREE_MARKERS).readings
    assert [(r.video, r.marker, r.text) for r in readings] == [
        (video, marker, text) for video, of in THREE_MARKERS.items() for marker, text in of.items()
    ]
    assert [r.text for r in readings if not r.matched] == ["???", "", "strange", "weird"]
    assert readings[0].corrections == (("eys", "eyes"), ("distored", "distorted"))
    assert readings[0].categories == (EYE,)
    assert [r.unread for r in readings if r.unread] == [("strange",), ("weird",), ("odd",)]


def test_labels_come_with_the_markers_agreement():
    """By hand from the five videos above. Catches agreement computed on other categories than the
    labels are."""
    agreement = label_remarks(THREE_MARKERS).agreement
    assert agreement.markers == ("m1", "m2", "m3")
    assert agreement.missing == {"m1": 0, "m2": 1, "m3": 1}
    assert agreement.unmatched == {"m1": 1, "m2": 2, "m3": 1}
    assert agreement.named_by[NONE] == (2, 1, 1, 1)
    assert agreement.named_by[EYE] == (4, 1, 0, 0)


def test_a_video_without_any_remark_is_undecided():
    """Catches an empty label, which no list can hold."""
    assert label_remarks({"seed0000": {}}).undecided == ("seed0000",)


def test_labels_follow_the_users_rules(tmp_path):
    """Catches rules that are read and then not used."""
    path = tmp_path / "rules.yaml"
    path.write_text("categories:\n  Head Structure Distortions: [shoulder*]\n", encoding="utf-8")
    remarks = {"seed0000": {"m1": "shoulders uneven"}}
    assert label_remarks(remarks).undecided == ("seed0000",)
    assert label_remarks(remarks, load_rules(path)).labels == {"seed0000": (HEAD,)}


def test_remarks_are_read(tmp_path):
    """Catches markers and videos swapped, and commas inside a remark."""
    table = tmp_path / "remarks.csv"
    table.write_text(
        'marker,video,remark\nm1,seed0000,"eyes, nose"\nm2,seed0000,\nm1,seed0001,fine\n'
    )
    assert read_remarks(table) == {
        "seed0000": {"m1": "eyes, nose", "m2": ""},
        "seed0001": {"m1": "fine"},
    }


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("m1,a,x\nm1,a,y\n", ":3: marker 'm1' has already remarked on 'a'"),
        ("m1,a,x\n,a,y\n", ":3: marker or video is empty"),
        ("", ": no remarks below the header"),
    ],
)
def test_bad_remarks_are_refused_with_their_place(tmp_path, rows, reason):
    """Catches a remark that silently replaces another."""
    table = tmp_path / "remarks.csv"
    table.write_text("marker,video,remark\n" + rows)
    with pytest.raises(AnnotationError, match=rf"remarks\.csv{re.escape(reason)}"):
        read_remarks(table)


def test_the_answer_sentence():
    """The wording of the paper's Figure 7. Catches another prefix, separator or order."""
    assert (
        distortion_reply({BLUR, EYE})
        == "Distortions found: Eye Distortions, Blurring / Exposure / Grain"
    )
    assert distortion_reply([NONE]) == "Distortions found: No Distortion"


@pytest.mark.parametrize("categories", [(), (NONE, EYE), ("Ear",)])
def test_an_impossible_answer_is_refused(categories):
    """Catches training answers that contradict themselves."""
    with pytest.raises(AnnotationError, match=r"expected at least one|not one of the nine"):
        distortion_reply(categories)


def test_every_answer_is_parsed_back():
    """Catches a category name that the parser would cut, such as those with "or" and "/"."""
    answers = [{a, b} for a in DISTORTIONS[:-1] for b in DISTORTIONS[:-1]] + [
        {NONE},
        set(DISTORTIONS[:-1]),
    ]
    assert len(answers) == 66
    for answer in answers:
        parsed = parse_distortions(distortion_reply(answer))
        assert set(parsed.categories) == answer
        assert parsed.unknown == ()


@pytest.mark.parametrize(
    ("text", "categories", "unknown"),
    [
        ("distortions  FOUND : eye distortions,HAIR   Distortion.", (EYE, HAIR), ()),
        ("Blurring/Exposure/Grain and Mouth Distortions\n", (MOUTH, BLUR), ()),
        ("Distortions found: Facial Feature Distortions, Eye Distortions", (EYE, FEATURE), ()),
        ("No Distortions", (NONE,), ()),
        ("Distortions found: No Distortion, Eye Distortions", (EYE,), ()),
        (
            "Distortions found: Eye Distortions, Ear Trouble, Eye Distortions",
            (EYE,),
            ("Ear Trouble",),
        ),
        ("The face is fine.", (NONE,), ("The face is fine.",)),
        ("The video is short.", (), ("The video is short.",)),
        ("Distortions found:", (), ()),
        ("", (), ()),
    ],
)
def test_free_answers_are_parsed_tolerantly(text, categories, unknown):
    """Catches answers counted as wrong for their case or spaces, and unknown words that vanish."""
    parsed = parse_distortions(text)
    assert (parsed.categories, parsed.unknown) == (categories, unknown)
    assert NO_DISTORTION not in parsed.categories or parsed.categories == (NO_DISTORTION,)
