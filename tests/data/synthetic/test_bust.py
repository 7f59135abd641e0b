"""The bust: the same face from the same seed, features on both sides and where they are said to
be, edits that move them.
"""

import dataclasses

import numpy as np
import pytest

from lmme3dhf.data.synthetic.bust import (
    EYE_ANGLE,
    EYE_Y,
    MOUTH_Y,
    PART,
    PARTS,
    Bust,
    Frame,
    Identity,
    make_bust,
    smooth_noise,
    soft,
)

ROWS = 128


def average_face(**changes) -> Identity:
    """A face without anything lopsided: hair parted in the middle, no accessories."""
    return Identity(
        **{
            "width": 1.0,
            "depth": 1.0,
            "jaw": 1.0,
            "nose_length": 1.0,
            "nose_width": 1.0,
            "eye_size": 1.0,
            "eye_open": 1.0,
            "mouth_width": 1.0,
            "lip": 1.0,
            "smile": 0.3,
            "brow": 1.0,
            "ear": 1.0,
            "skin": (0.8, 0.6, 0.48),
            "iris": (0.12, 0.28, 0.45),
            "lips": (0.78, 0.35, 0.3),
            "hair": (0.22, 0.12, 0.06),
            "cloth": (0.1, 0.3, 0.6),
            "trim": (0.7, 0.6, 0.1),
            "hairline": -0.52,
            "hair_volume": 0.06,
            "hair_length": -0.12,
            "parting": 0.0,
            "cloth_pattern": 0,
            "neckline": 0.66,
            "glasses": False,
            "hat": False,
            "earrings": False,
            "texture_seed": 3,
        }
        | changes
    )


def average_bust(features: dict | None = None, **changes) -> Bust:
    return make_bust(average_face(**changes), ROWS, Frame(), features)


def cells_of(bust: Bust, part: str) -> np.ndarray:
    return bust.part_YA == PART[part]


def middle_of(bust: Bust, cells: np.ndarray) -> tuple[float, float]:
    """Mean height and angle of some cells."""
    rows, columns = np.nonzero(cells)
    return float(bust.y_Y[rows].mean()), float(bust.theta_A[columns].mean())


def test_the_same_face_comes_from_the_same_seed_only():
    """Catches ambient chance in drawing or building, and draws that ignore their generator."""
    first, again, other = (Identity.draw(np.random.default_rng(s)) for s in (7, 7, 8))
    assert first == again
    assert first != other
    a, b, c = (make_bust(identity, 64, Frame()) for identity in (first, again, other))
    for name in ("radius_YA", "colour_YA3", "part_YA", "shine_YA"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
    assert not np.array_equal(a.radius_YA, c.radius_YA)
    assert not np.array_equal(a.colour_YA3, c.colour_YA3)


def test_drawn_faces_are_possible_and_varied():
    """Catches colours outside 0..1, holes in the head, numbers that are not finite, and a trait
    that never (or always) occurs.
    """
    drawn = [Identity.draw(np.random.default_rng(seed)) for seed in range(150)]
    for identity in drawn:
        for name in ("skin", "iris", "lips", "hair", "cloth", "trim"):
            assert all(0 <= value <= 1 for value in getattr(identity, name))
    for trait in ("glasses", "hat", "earrings", "long_hair"):
        assert 3 < sum(getattr(identity, trait) for identity in drawn) < 147
    for identity in drawn[:12]:
        bust = make_bust(identity, 64, Frame())
        below_crown = bust.y_Y > -0.7
        assert np.isfinite(bust.radius_YA).all()
        assert np.isfinite(bust.colour_YA3).all()
        assert (bust.radius_YA[below_crown] > 0.05).all()
        assert bust.part_YA.max() < len(PARTS)


def test_features_stand_on_both_sides_of_the_face():
    """The grid is mirrored about theta = 0 and so is an average face. Catches an eye, brow or ear
    that is painted on one side only, or at another height.
    """
    bust = average_bust()
    assert bust.theta_A == pytest.approx(-bust.theta_A[::-1], abs=1e-6)
    for part in ("eye", "brow", "nose", "mouth", "ear"):
        cells = cells_of(bust, part)
        assert cells.sum() > 20, part
        differing = (cells != cells[:, ::-1]).sum()
        assert differing <= 0.1 * cells.sum(), part
    # Skin texture differs from side to side; the shape of the face does not.
    face = (bust.y_Y > -0.3) & (bust.y_Y < 0.4)
    front = np.abs(bust.theta_A) < 0.7
    radius = bust.radius_YA[np.ix_(face, front)]
    assert radius == pytest.approx(radius[:, ::-1], abs=1e-4)


def test_features_stand_in_the_order_of_a_face():
    """From top to bottom hair, brow, eye, nose, mouth, neck, cloth; the subject's left at positive
    angles. Catches y or theta with the wrong sign.
    """
    bust = average_bust()
    front = np.abs(bust.theta_A)[None, :] < 0.9
    order = ("hair", "brow", "eye", "nose", "mouth", "neck", "cloth")
    heights = [middle_of(bust, cells_of(bust, part) & front)[0] for part in order]
    assert heights == sorted(heights)
    left = middle_of(bust, cells_of(bust, "eye") & (bust.theta_A > 0)[None, :])
    assert left == pytest.approx((EYE_Y, EYE_ANGLE), abs=0.03)
    assert bust.landmarks["left eye"] == (EYE_Y, EYE_ANGLE)
    assert bust.landmarks["right eye"] == (EYE_Y, -EYE_ANGLE)


def test_the_nose_is_the_foremost_point_and_long_noses_reach_further():
    """Catches a nose that is only painted, and an identity whose numbers have no effect."""
    reach = {}
    for length in (0.8, 1.25):
        bust = average_bust(nose_length=length)
        face = (bust.y_Y > -0.3) & (bust.y_Y < 0.2)
        forward = (bust.radius_YA * np.cos(bust.theta_A))[face]
        row, column = np.unravel_index(forward.argmax(), forward.shape)
        assert bust.part_YA[face][row, column] == PART["nose"]
        assert abs(bust.theta_A[column]) < 0.1
        reach[length] = forward.max()
    assert reach[1.25] > reach[0.8] + 0.02


def test_edited_features_go_where_they_are_sent():
    """Catches a shift in the wrong unit or direction, and landmarks that stay behind."""
    plain = average_bust()
    moved = average_bust({"left eye": {"dy": 0.08, "dtheta": 0.1}, "mouth": {"dy": -0.05}})
    left = plain.theta_A[None, :] > 0
    before = middle_of(plain, cells_of(plain, "eye") & left)
    after = middle_of(moved, cells_of(moved, "eye") & left)
    assert np.subtract(after, before) == pytest.approx((0.08, 0.1), abs=0.015)
    assert moved.landmarks["left eye"] == pytest.approx((EYE_Y + 0.08, EYE_ANGLE + 0.1))
    assert moved.landmarks["mouth"] == pytest.approx((MOUTH_Y - 0.05, 0.0))
    assert np.array_equal(cells_of(plain, "eye") & ~left, cells_of(moved, "eye") & ~left)


def test_faded_features_are_not_there():
    """Alpha 0 is bare skin. Catches a fade that leaves the white, the lips or their part behind."""
    gone = average_bust({"left eye": {"alpha": 0.0}, "mouth": {"alpha": 0.0}})
    assert not (cells_of(gone, "eye") & (gone.theta_A > 0)[None, :]).any()
    assert not cells_of(gone, "mouth").any()
    assert cells_of(gone, "eye").any()


def test_accessories_appear_only_on_those_who_wear_them():
    """Catches flags without effect."""
    assert not cells_of(average_bust(), "accessory").any()
    for trait in ("glasses", "hat", "earrings"):
        assert cells_of(average_bust(**{trait: True}), "accessory").any(), trait
    assert cells_of(average_bust(), "ear").any()
    assert not cells_of(average_bust(hair_length=0.55), "ear").any()


def test_rows_of_the_grid_are_those_of_the_picture():
    """Row centres of a square of 2 half units around centre_y, by hand. Catches an offset of half a
    row, which would shift every mask.
    """
    bust = make_bust(average_face(), 40, Frame(centre_y=0.1, half=0.8))
    assert bust.y_Y[[0, 1, -1]] == pytest.approx([-0.68, -0.64, 0.88], abs=1e-6)
    assert bust.radius_YA.shape == (40, 120)


def test_windows_hold_the_cells_around_a_point():
    """Against a comparison over the whole grid. Catches offsets that belong to other cells."""
    bust = average_bust()
    where, dy, dtheta = bust.window(0.1, -0.5, 0.2, 0.3)
    inside = (np.abs(bust.y_Y - 0.1)[:, None] < 0.2) & (np.abs(bust.theta_A + 0.5)[None, :] < 0.3)
    marked = np.zeros(inside.shape, bool)
    marked[where] = True
    assert inside.any()
    assert np.array_equal(marked, inside)
    assert dy[:, 0] == pytest.approx(bust.y_Y[where[0]] - 0.1)
    assert dtheta[0] == pytest.approx(bust.theta_A[where[1]] + 0.5)


def test_soft_edges_are_one_half_on_the_line():
    """By hand. Catches an edge that is inverted or shifted."""
    distance = np.array([-9.0, -0.1, 0.0, 0.1, 9.0])
    assert soft(distance, 0.4) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_noise_has_the_stated_mean_deviation_and_smoothness():
    """Catches noise that is not scaled, and correlation lengths that are swapped."""
    noise = smooth_noise(np.random.default_rng(0), (120, 90), (12.0, 3.0))
    assert noise.shape == (120, 90)
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.5 * np.abs(np.diff(noise, axis=1)).mean()
    again = smooth_noise(np.random.default_rng(0), (120, 90), (12.0, 3.0))
    assert np.array_equal(noise, again)


def test_an_identity_is_changed_by_replacement_only():
    """Catches a face that an edit of one clip changes for the next."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        average_face().width = 2.0
