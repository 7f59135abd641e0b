"""Planted distortions: each kind shows, shows more when it is more severe, and shows where its mask
says.
"""

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from lmme3dhf.data.synthetic.bust import EYE_ANGLE, EYE_Y, PART, Frame
from lmme3dhf.data.synthetic.clips import ClipPlan, ClipRenderer
from lmme3dhf.data.synthetic.distortions import (
    BLENDING,
    CLOTH,
    EYE,
    FEATURE,
    HAIR,
    HEAD,
    IMAGE,
    MOUTH,
    Distortion,
    distorted_bust,
    filter_frame,
)
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION
from tests.data.synthetic.test_bust import average_face

SIZE = 64
YAWS = (-45, 0, 45)
SEVERITIES = (0.05, 0.3, 0.6, 1.0)
# Seeds that between them draw every variant of a kind (shift, fade, bump, dent, ...).
VARIANTS = {
    EYE: (0, 1, 2, 4, 8),
    MOUTH: (0, 1, 3, 11, 12, 21),
    HAIR: (0, 1, 2, 3, 4, 5),
    FEATURE: (0, 1, 4, 11, 21),
    HEAD: (0, 1, 4, 11, 21),
    BLENDING: (0, 1, 2),
    IMAGE: (0, 2, 4, 5),
    CLOTH: (0, 1, 2),
}
LOCAL = (EYE, MOUTH, HAIR, FEATURE, BLENDING, CLOTH)
CASES = [(kind, seed) for kind, seeds in VARIANTS.items() for seed in seeds]


def plan(*distortions: Distortion, **identity) -> ClipPlan:
    return ClipPlan(
        identity=average_face(**identity),
        distortions=distortions,
        frame=Frame(),
        scene_seed=1,
        softness=0.0,
        grain_seed=2,
    )


def pictures(renderer: ClipRenderer) -> np.ndarray:
    return np.hstack([renderer.picture(yaw, 0)[0].astype(float) for yaw in YAWS])


def mask_of(renderer: ClipRenderer, kind: int) -> np.ndarray:
    views = [renderer.turntable.view(yaw) for yaw in YAWS]
    return np.hstack([view.gather(renderer.masks[kind]) for view in views])


@pytest.fixture(scope="module")
def changes() -> dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]]:
    """(kind, seed) -> for each severity what changed in the strip against the clean face (mean over
    the channels, 0..255), and the mask.
    """
    clean = pictures(ClipRenderer(plan(), SIZE))
    found = {}
    for kind, seed in CASES:
        found[kind, seed] = []
        for severity in SEVERITIES:
            planted = Distortion(kind=kind, severity=severity, seed=seed)
            renderer = ClipRenderer(plan(planted), SIZE)
            change = np.abs(pictures(renderer) - clean).mean(axis=2)
            found[kind, seed].append((change, mask_of(renderer, kind)))
    return found


def test_kinds_are_numbered_as_in_the_vocabulary():
    """Catches a kind that is planted as one category and labelled as another."""
    names = {
        EYE: "Eye",
        MOUTH: "Mouth",
        HAIR: "Hair",
        FEATURE: "Facial Feature",
        HEAD: "Head Structure",
        BLENDING: "Overlap or Blending",
        IMAGE: "Blurring",
        CLOTH: "Accessories or Cloth",
    }
    assert sorted(names) == list(range(8))
    assert all(DISTORTIONS[kind].startswith(name) for kind, name in names.items())
    assert DISTORTIONS[8:] == (NO_DISTORTION,)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_every_variant_shows_and_grows(changes, kind, seed):
    """Catches a variant without effect, and severities that are ignored or inverted. A feature that
    has moved beyond its own size changes no more pixels when it moves on, hence no strict growth.
    """
    amounts = [change.mean() for change, _ in changes[kind, seed]]
    assert amounts[0] < amounts[1]
    assert max(amounts) > 1.3 * amounts[0]
    assert min(amounts[2:]) > 0.8 * max(amounts[:2])
    # Enough that a viewer can see it: over 20 pixels by more than 12 of 255.
    assert (changes[kind, seed][-1][0] > 12).sum() > 20


def test_every_kind_changes_more_of_the_picture_when_more_severe(changes):
    """Averaged over its variants, each step of severity changes more."""
    for kind, seeds in VARIANTS.items():
        means = np.mean([[c.mean() for c, _ in changes[kind, seed]] for seed in seeds], axis=0)
        assert (np.diff(means) > 0).all(), DISTORTIONS[kind]


@pytest.mark.parametrize(("kind", "seed"), [case for case in CASES if case[0] in LOCAL])
def test_masks_lie_where_the_picture_changed(changes, kind, seed):
    """Most of the change lies in the mask or within 4 pixels of it, far more than the mask's share
    of the picture. Catches masks of the wrong side, place or angle, and masks of everything.
    """
    looked_at = 0
    for change, mask in changes[kind, seed]:
        near = maximum_filter(mask, size=9) > 0.05
        assert mask.max() <= 1
        assert mask.min() >= 0
        covered = change[near].sum() / change.sum()
        assert covered > 0.7
        assert covered > 1.6 * near.mean()
        looked_at += 1
    assert looked_at == len(SEVERITIES)


def test_a_changed_head_is_marked_at_its_outline(changes):
    """The whole head changes its shape, so the mask covers a good part only. Catches a mask that is
    empty or on the background.
    """
    for seed in VARIANTS[HEAD]:
        for change, mask in changes[HEAD, seed]:
            near = maximum_filter(mask, size=9) > 0.05
            assert change[near].sum() / change.sum() > 0.4
            assert near.mean() < 0.6


def test_a_filtered_picture_is_marked_at_the_features(changes):
    """Viewers point at what suffers. Catches a mask of the whole picture, or of none of it."""
    for seed in VARIANTS[IMAGE]:
        for _, mask in changes[IMAGE, seed]:
            assert 0.02 < (mask > 0.2).mean() < 0.3


def test_a_clean_plan_has_no_mask():
    """Catches marks on clean faces."""
    assert ClipRenderer(plan(), SIZE).masks == {}


def test_the_same_face_stands_behind_every_distortion():
    """Away from an eye nothing changes at all. Catches chance that is shared between the face and
    the distortion, so that planting one redraws the other.
    """
    identity = average_face()
    clean, _ = distorted_bust(identity, 128, Frame(), ())
    planted, masks = distorted_bust(
        identity, 128, Frame(), (Distortion(kind=EYE, severity=0.8, seed=8),)
    )
    changed = (clean.colour_YA3 != planted.colour_YA3).any(axis=2)
    y, theta = clean.y_Y[:, None], np.abs(clean.theta_A)[None, :]
    near_eyes = (np.abs(y - EYE_Y) < 0.3) & (np.abs(theta - EYE_ANGLE) < 0.6)
    assert changed.any()
    assert not changed[~near_eyes].any()
    assert set(masks) == {EYE}


def test_several_distortions_keep_masks_of_their_own():
    """Catches masks that are shared or lost when kinds meet."""
    alone = {
        kind: distorted_bust(
            average_face(), 128, Frame(), (Distortion(kind=kind, severity=0.5, seed=3),)
        )[1][kind]
        for kind in (EYE, MOUTH)
    }
    both = tuple(Distortion(kind=kind, severity=0.5, seed=3) for kind in (EYE, MOUTH))
    _, masks = distorted_bust(average_face(), 128, Frame(), both)
    assert set(masks) == {EYE, MOUTH}
    for kind, mask in alone.items():
        assert mask.any()
        assert np.array_equal(mask, masks[kind])


def test_broken_accessories_are_glasses_where_there_are_any():
    """Catches torn cloth on a face whose glasses are already broken, and glasses broken on a face
    without any.
    """
    planted = Distortion(kind=CLOTH, severity=0.9, seed=2)
    for glasses in (True, False):
        clean = ClipRenderer(plan(glasses=glasses), SIZE)
        broken = ClipRenderer(plan(planted, glasses=glasses), SIZE)
        change = np.abs(pictures(broken) - pictures(clean)).mean(axis=2)
        upper = change[: int(0.6 * SIZE)].sum() / change.sum()
        assert (upper > 0.9) == glasses
        assert mask_of(broken, CLOTH).max() > 0.3


def test_hair_distortions_stay_in_the_hair():
    """Catches patches on the face: only cells of hair change their colour."""
    identity = average_face()
    clean, _ = distorted_bust(identity, 128, Frame(), ())
    hair = clean.part_YA == PART["hair"]
    for seed in VARIANTS[HAIR]:
        planted, _ = distorted_bust(
            identity, 128, Frame(), (Distortion(kind=HAIR, severity=1.0, seed=seed),)
        )
        changed = (clean.colour_YA3 != planted.colour_YA3).any(axis=2)
        assert changed.any()
        assert not changed[~hair].any()


def filtered(picture: np.ndarray, seed: int, severity: float = 0.5, frame: int = 0) -> np.ndarray:
    planted = (Distortion(kind=IMAGE, severity=severity, seed=seed),)
    return filter_frame(picture, planted, np.random.default_rng(frame)).astype(float)


def test_only_distortions_of_the_picture_filter_it():
    """By hand: display values times 255, rounded. Catches a filter on clean clips or by another
    kind.
    """
    picture = np.random.default_rng(0).uniform(-0.1, 1.1, (24, 24, 3)).astype(np.float32)
    expected = np.round(np.clip(picture, 0, 1) * 255)
    others = tuple(Distortion(kind=k, severity=1.0, seed=0) for k in range(8) if k != IMAGE)
    for planted in ((), others):
        out = filter_frame(picture, planted, np.random.default_rng(0))
        assert out.dtype == np.uint8
        assert np.abs(out - expected).max() <= 1
        assert (out == expected).mean() > 0.99


def test_blur_grain_and_exposure_do_what_their_names_say():
    """Seeds 0, 2, 4 and 5 draw grain, blur, dark and bright. Catches variants that are swapped,
    blur that grows with nothing, and grain that is frozen from frame to frame.
    """
    y, x = np.mgrid[0:64, 0:64]
    board = np.repeat((0.3 + 0.4 * ((x // 8 + y // 8) % 2))[..., None], 3, 2).astype(np.float32)
    plain = np.round(board * 255)

    def steps(picture: np.ndarray) -> float:
        return np.abs(np.diff(picture, axis=1)).max()

    grainy = [filtered(board, 0, s) for s in (0.2, 0.9)]
    assert grainy[0].std() < grainy[1].std()
    assert grainy[1].mean() == pytest.approx(plain.mean(), abs=2)
    assert not np.array_equal(filtered(board, 0, frame=1), filtered(board, 0, frame=2))
    blurred = [filtered(board, 2, s) for s in (0.2, 0.9)]
    assert steps(plain) > steps(blurred[0]) > steps(blurred[1])
    assert blurred[1].mean() == pytest.approx(plain.mean(), abs=2)
    assert np.array_equal(filtered(board, 2, frame=1), filtered(board, 2, frame=2))
    dark = [filtered(board, 4, s).mean() for s in (0.2, 0.9)]
    assert plain.mean() > dark[0] > dark[1]
    bright = [filtered(board, 5, s).mean() for s in (0.2, 0.9)]
    assert plain.mean() < bright[0] < bright[1]


def test_a_soft_generator_blurs_every_picture():
    """Catches softness that is ignored without a planted blur, or not a share of the width."""
    board = np.repeat((np.arange(64) // 8 % 2)[None, :, None], 64, 0).repeat(3, 2)
    step = [
        np.abs(
            np.diff(
                filter_frame(
                    board.astype(np.float32), (), np.random.default_rng(0), softness
                ).astype(float),
                axis=1,
            )
        ).max()
        for softness in (0.0, 0.01, 0.03)
    ]
    assert step[0] == 255
    assert step[0] > step[1] > step[2]
