"""Free replies of language models to the distortion question, labelled by hand before the parser
was written.
"""

import pytest

from lmme3dhf.annotations.descriptions import parse_distortions
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

EYE, MOUTH, HAIR, FEATURE, HEAD, OVERLAP, BLUR, CLOTH, NONE = DISTORTIONS
OPTIONS = ", ".join(DISTORTIONS)
LETTERED = "\n".join(
    f"{letter}. {name}" for letter, name in zip("ABCDEFGHI", DISTORTIONS, strict=True)
)

# Reply -> the categories that a reader would take from it.
REPLIES = [
    # Sentences in free words.
    ("I can see that the mouth is distorted and there is some blur.", {MOUTH, BLUR}),
    ("no blur but distorted eyes", {EYE}),
    ("There are no distortions at all.", {NONE}),
    ("no distortions at all", {NONE}),
    ("The face looks natural and realistic, without any visible artifacts.", {NONE}),
    ("I don't see any distortion in this video.", {NONE}),
    ("The video does not contain any obvious distortions.", {NONE}),
    ("The eyes are crossed and the teeth are missing.", {EYE, MOUTH}),
    ("The nose is crooked; the rest of the face looks fine.", {FEATURE}),
    ("The person's glasses merge into the hair.", {CLOTH, OVERLAP, HAIR}),
    ("Overall the image is blurry and overexposed.", {BLUR}),
    ("The back of the head is flattened, which looks unnatural.", {HEAD}),
    ("The hair looks natural, but the ears are misshapen.", {FEATURE}),
    # Lists with numbers, letters and bullets.
    ("1) Eye distortion 2. Hair", {EYE, HAIR}),
    ("A. Eyes", {EYE}),
    ("(B) Mouth Distortions", {MOUTH}),
    ("B. Mouth Distortions\nG. Blurring / Exposure / Grain", {MOUTH, BLUR}),
    ("- Eye Distortions\n- Hair Distortions\n", {EYE, HAIR}),
    ("* **Mouth Distortions**\n* **Overlap or Blending Issues**", {MOUTH, OVERLAP}),
    ("1. **Facial Feature Distortions**: the nose is bent.", {FEATURE}),
    ("Distortions found: 1. Eye Distortions 2. Head Structure Distortions", {EYE, HEAD}),
    ("eyes, mouth, hair", {EYE, MOUTH, HAIR}),
    ("Eyes and mouth", {EYE, MOUTH}),
    ("Blurring", {BLUR}),
    ("Blurring, Grain", {BLUR}),
    ("Overlap, Accessories", {OVERLAP, CLOTH}),
    ("Eye Distortions, Blurring", {EYE, BLUR}),
    ("Eye Distortions & Mouth Distortions", {EYE, MOUTH}),
    ("Eye Distortions | Hair Distortions", {EYE, HAIR}),
    ("eye_distortions, head_structure_distortions", {EYE, HEAD}),
    # JSON and the like.
    ('["Eye Distortions", "Hair Distortions"]', {EYE, HAIR}),
    ('{"distortions": ["Mouth Distortions"]}', {MOUTH}),
    (
        '```json\n{"distortions": ["Eye Distortions", "Blurring / Exposure / Grain"]}\n```',
        {EYE, BLUR},
    ),
    (
        '{"Eye Distortions": true, "Mouth Distortions": false, "Hair Distortions": true}',
        {EYE, HAIR},
    ),
    ('{"Eye Distortions": 0, "Mouth Distortions": 1}', {MOUTH}),
    # Verdicts per category.
    ("Eye Distortions: Yes\nMouth Distortions: No\nHair Distortions: No", {EYE}),
    ("Eye Distortions: No\nMouth Distortions: No\nHair Distortions: No", {NONE}),
    ("Eye Distortions - not present\nBlurring / Exposure / Grain - present", {BLUR}),
    (
        "**Eye Distortions**: The eyes look natural.\n"
        "**Mouth Distortions**: The lips are melted together.",
        {MOUTH},
    ),
    ("Eye Distortions: None. Hair Distortions: the fringe is smeared.", {HAIR}),
    ("[x] Eye Distortions\n[ ] Mouth Distortions", {EYE}),
    ("Eye Distortions: \N{CROSS MARK}\nHair Distortions: \N{WHITE HEAVY CHECK MARK}", {HAIR}),
    ("Eye Distortions: the left eye is bigger. Everything else looks fine.", {EYE}),
    ("Eye Distortions: Present. The rest of the face looks fine.", {EYE}),
    # Names in sentences, and names denied.
    ("The video shows Eye Distortions and Mouth Distortions.", {EYE, MOUTH}),
    ("There are no Eye Distortions, but Mouth Distortions are visible.", {MOUTH}),
    ("No Eye Distortions, Mouth Distortions or Hair Distortions are visible.", {NONE}),
    ("There are no Eye Distortions. The mouth is crooked.", {MOUTH}),
    ("Hair Distortions are not present, while Head Structure Distortions are.", {HEAD}),
    ("I cannot find any Mouth Distortions; however, there are Hair Distortions.", {HAIR}),
    ("The main issue is not Eye Distortions but Facial Feature Distortions.", {FEATURE}),
    ("There are not only Eye Distortions but also Mouth Distortions.", {EYE, MOUTH}),
    (
        "The most noticeable distortion is the Overlap or Blending Issues around the hair.",
        {OVERLAP},
    ),
    ("No Distortion", {NONE}),
    ("The answer is: No Distortion.", {NONE}),
    ("There is no distortion in the eyes, but Mouth Distortions are visible.", {MOUTH}),
    ("<answer>Hair Distortions</answer>", {HAIR}),
    ("Final answer: Eye Distortions", {EYE}),
    (
        "Sure! From the video, I would choose Hair Distortions and Blurring / Exposure / Grain.",
        {HAIR, BLUR},
    ),
    # Verdicts under short names, and faces described beside their faults.
    ("Eyes: normal. Mouth: deformed. Hair: fine.", {MOUTH}),
    ("Eyes: no\nMouth: yes\nHair: no", {MOUTH}),
    ('{"eyes": false, "hair": true}', {HAIR}),
    ("A man with brown hair wearing glasses is shown. There are no visible distortions.", {NONE}),
    ("The video shows a woman with blonde hair. Her teeth are blurred.", {MOUTH, BLUR}),
    ("There doesn't appear to be any distortion in the eyes, mouth, or hair.", {NONE}),
    ("The distortion types are: eye, mouth and blurring.", {EYE, MOUTH, BLUR}),
    # The list of the question, repeated.
    (OPTIONS, set()),
    (f"Please choose from: {OPTIONS}.", set()),
    (f"Among {OPTIONS}, I see Eye Distortions.", {EYE}),
    (f"{LETTERED}\n\nAnswer: B. Mouth Distortions", {MOUTH}),
    (f"Options:\n{LETTERED}\nThe eyes are crossed.", {EYE}),
    (", ".join(DISTORTIONS[:-1]), set(DISTORTIONS[:-1])),
    # Nothing that could be read.
    ("I'm sorry, I cannot watch videos.", set()),
    ("The video shows a person turning around.", set()),
    ("A", set()),
    ("Yes", set()),
    ("", set()),
    ("\n\n", set()),
    ("这段视频", set()),
    ("\ue000", set()),
]


def test_a_reply_caught_in_a_loop_is_read():
    """Catches reading that takes minutes for a model that repeats itself to its last token."""
    assert parse_distortions("no eye " * 2000).categories == (EYE,)
    assert parse_distortions("Eye Distortions and " * 2000).categories == (EYE,)
    assert parse_distortions("The eyes are crossed. " * 300).categories == (EYE,)
    assert parse_distortions("Eye Distortions" + 5000 * " " + "(a) " * 2000).categories == (EYE,)


def test_categories_come_in_the_order_of_the_text_too():
    """For the first named one. Catches vocabulary order, repeats, and "no distortion" beside a
    category.
    """
    assert parse_distortions("Hair Distortions, Eye Distortions, Hair Distortions").named == (
        HAIR,
        EYE,
    )
    assert parse_distortions("I see Hair Distortions and Eye Distortions.").named == (HAIR, EYE)
    assert parse_distortions("No Distortion, Mouth Distortions").named == (MOUTH,)
    assert parse_distortions("I cannot tell").named == ()


def test_what_is_no_name_stays_unknown_however_it_is_read():
    """Catches label files that are read as generously as a model's reply."""
    assert parse_distortions("Eye Distortions, hair").unknown == ("hair",)
    assert parse_distortions("eyes").unknown == ("eyes",)
    assert parse_distortions("Eye Distortions, Hair Distortions").unknown == ()


@pytest.mark.parametrize(("reply", "expected"), REPLIES)
def test_free_replies_are_read_as_a_reader_would(reply, expected):
    """Catches a method marked down for the form of its answer, a denied category taken for a named
    one, an answer read out of the question's own list, and "no distortion" read from silence.
    """
    found = parse_distortions(reply)
    assert set(found.categories) == expected
    assert list(found.categories) == [name for name in DISTORTIONS if name in expected]


def test_the_table_of_replies_is_large_enough_to_mean_something():
    """Catches a table that shrinks when a reply is hard."""
    assert len(REPLIES) >= 60
    assert {name for _, names in REPLIES for name in names} == set(DISTORTIONS)
    assert NO_DISTORTION == NONE
