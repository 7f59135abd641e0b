"""Remarks, marks and scores of a video against each other."""

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.conflicts import conflicts
from lmme3dhf.vocabulary import NO_DISTORTION

EYES, HAIR, MOUTH = "Eye Distortions", "Hair Distortions", "Mouth Distortions"
GRAIN = "Blurring / Exposure / Grain"


def test_only_what_contradicts_is_named():
    """By hand, one video for each row. Catches a blur without a place taken for a lost mark, and
    a video that nobody looked at taken for one without marks.
    """
    categories = {
        "lost": [EYES],
        "blur": [GRAIN],
        "unmarked": [EYES],
        "fine but dotted": [NO_DISTORTION],
        "low": [NO_DISTORTION],
        "best": [EYES, HAIR, MOUTH],
        "best of the set": [EYES],
    }
    dots = {"lost": 0, "blur": 0, "fine but dotted": 2, "low": 0, "best": 9, "best of the set": 1}
    words = dict.fromkeys(categories, "fair") | {"low": "bad"}
    words |= {"best": "excellent", "best of the set": "excellent"}
    found = conflicts(categories, dots, {"quality": words, "authenticity": words}, GEN3DHF)
    assert sorted(found.values()) == [["best"], ["fine but dotted"], ["lost"], ["low"]]
    assert conflicts(None, None, {}, GEN3DHF) == {}
