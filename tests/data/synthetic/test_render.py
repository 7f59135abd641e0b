"""The renderer against closed forms (silhouettes, positions and shading of spheres and elliptic
cylinders), and the clips it writes.
"""

import dataclasses
import os
import subprocess
import sys

import av
import numpy as np
import pytest

from lmme3dhf.data.synthetic.bust import PART, Bust, Frame
from lmme3dhf.data.synthetic.clips import ClipRenderer, turntable_yaws
from lmme3dhf.data.synthetic.distortions import IMAGE, Distortion
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.render import SUPERSAMPLING, Scene, Turntable, to_srgb, write_clip
from tests.data.synthetic.test_bust import average_bust, average_face

SIZE = 64
ROWS = SIZE * SUPERSAMPLING
GREY = np.array([0.5, 0.4, 0.3])


def solid(radius_of, frame: Frame | None = None) -> Bust:
    """A bust of one colour without shine; `radius_of(y, theta)` on arrays (Y, 1) and (1, A)."""
    frame = frame or Frame(centre_y=0.0, half=1.0)
    y = ((np.arange(ROWS) + 0.5) / ROWS * 2 - 1) * frame.half + frame.centre_y
    theta = (np.arange(3 * ROWS) + 0.5) / (3 * ROWS) * 2 * np.pi - np.pi
    shape = (ROWS, 3 * ROWS)
    return Bust(
        y_Y=y.astype(np.float32),
        theta_A=theta.astype(np.float32),
        radius_YA=np.broadcast_to(radius_of(y[:, None], theta[None, :]), shape).astype(np.float32),
        colour_YA3=np.full((*shape, 3), GREY, np.float32),
        part_YA=np.full(shape, PART["skin"], np.uint8),
        shine_YA=np.zeros(shape, np.float32),
        identity=average_face(),
        frame=frame,
    )


def scene(light=(0.0, 0.0, 1.0), ambient=0.3, background=(0.1, 0.2, 0.3)) -> Scene:
    return Scene(
        light=np.array(light) / np.linalg.norm(light),
        ambient=ambient,
        warmth=np.ones(3),
        background_HW3=np.broadcast_to(np.float32(background), (SIZE, SIZE, 3)).copy(),
    )


def sphere(y, theta):
    return np.sqrt(np.maximum(0.6**2 - y**2, 0)) + 0 * theta


def elliptic(y, theta):
    """Half-axes 0.4 sideways and 0.7 in depth."""
    return 1 / np.sqrt((np.sin(theta) / 0.4) ** 2 + (np.cos(theta) / 0.7) ** 2) + 0 * y


def plane() -> tuple[np.ndarray, np.ndarray]:
    """x and y of the supersampled pixels' centres, shapes (1, R) and (R, 1), for half = 1."""
    centre = (np.arange(ROWS) + 0.5) / ROWS * 2 - 1
    return centre[None, :], centre[:, None]


def test_the_silhouette_of_a_sphere_is_a_disc():
    """Closed form x^2 + y^2 < r^2, from every angle. Catches holes in the z-buffer, and a picture
    that is stretched or shifted.
    """
    turntable = Turntable(solid(sphere), scene())
    x, y = plane()
    distance = np.hypot(x, y)
    for yaw in (-90, -37, 0, 90):
        seen = turntable.view(yaw).cell_RC >= 0
        # Pixels on the edge itself may fall on either side.
        assert seen[distance < 0.6 - 0.03].all()
        assert not seen[distance > 0.6 + 0.03].any()


@pytest.mark.parametrize("yaw", [-90, -60, -20, 0, 45, 80])
def test_a_turned_elliptic_cylinder_has_the_width_of_a_turned_ellipse(yaw):
    """Closed form: half width sqrt(a^2 cos^2 + b^2 sin^2). Catches a rotation by another angle, or
    a squeezed picture in place of a rotation.
    """
    seen = Turntable(solid(elliptic), scene()).view(yaw).cell_RC >= 0
    half_width = np.hypot(0.4 * np.cos(np.deg2rad(yaw)), 0.7 * np.sin(np.deg2rad(yaw)))
    widths = seen.sum(axis=1) / ROWS
    # What lies more than 90 degrees from the viewer's side is not drawn, which takes up to 6 % of
    # an oblique ellipse.
    assert (widths <= half_width + 2 / ROWS).all()
    assert (widths >= 0.94 * half_width - 2 / ROWS).all()


def test_a_spot_moves_as_a_point_on_a_turning_cylinder():
    """x = r sin(theta + yaw); positive yaw turns the face towards the right edge. Catches the
    opposite sense of rotation, and spots that show through from the back.
    """
    bust = solid(lambda y, theta: 0.5 + 0 * y + 0 * theta)
    spot = np.zeros(bust.radius_YA.shape)
    spot[np.ix_(np.abs(bust.y_Y) < 0.08, np.abs(bust.theta_A - 0.3) < 0.08)] = 1
    turntable = Turntable(bust, scene())
    x = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    for yaw in (-80, -40, -17, 0, 30, 60):
        seen = turntable.view(yaw).gather(spot)
        found = (seen.sum(axis=0) * x).sum() / seen.sum()
        assert found == pytest.approx(0.5 * np.sin(0.3 + np.deg2rad(yaw)), abs=0.02)
    back = np.roll(spot, bust.theta_A.size // 2, axis=1)
    assert not turntable.view(0).gather(back).any()


def test_a_frame_beside_and_closer_shifts_and_magnifies():
    """By hand: a cylinder of radius 0.2 about x = 0, seen by a square of half 0.5 about x = 0.1.
    Catches a shift with the wrong sign.
    """
    frame = Frame(centre_y=0.0, centre_x=0.1, half=0.5)
    view = Turntable(solid(lambda y, t: 0.2 + 0 * y + 0 * t, frame), scene()).view(0)
    columns = np.flatnonzero((view.cell_RC >= 0)[ROWS // 2])
    edges = [
        (columns[0] / ROWS * 2 - 1) * 0.5 + 0.1,
        ((columns[-1] + 1) / ROWS * 2 - 1) * 0.5 + 0.1,
    ]
    assert edges == pytest.approx([-0.2, 0.2], abs=0.02)


@pytest.mark.parametrize("light", [(0, 0, 1), (0.7, 0, 1), (-0.7, -0.5, 1), (0.2, 0.4, 1)])
def test_a_sphere_is_shaded_as_lambert_says(light):
    """Closed form: the normal of a sphere is its position over the radius. Catches normals with a
    wrong sign in any of the three directions.
    """
    view = Turntable(solid(sphere), scene(light)).view(25)
    x = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = x[None, :], x[:, None]
    z = np.sqrt(np.maximum(0.36 - x**2 - y**2, 0))
    inner = np.hypot(x, y) < 0.45
    unit = np.array(light) / np.linalg.norm(light)
    lambert = np.clip((x * unit[0] + y * unit[1] + z * unit[2]) / 0.6, 0, 1)
    expected = to_srgb((0.3 + 0.75 * lambert)[..., None] * GREY)
    assert view.colour_HW3[inner] == pytest.approx(expected[inner], abs=0.02)


def test_a_cylinder_with_flanks_is_shaded_by_their_slope():
    """An elliptic cylinder's normal is (x / a^2, z / b^2), normalised. Catches slopes around the
    axis that are left out or inverted: a sphere has none.
    """
    view = Turntable(solid(elliptic), scene((0.7, 0, 1))).view(0)
    x = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1)[None, :]
    z = 0.7 * np.sqrt(np.maximum(1 - (x / 0.4) ** 2, 0))
    nx, nz = x / 0.4**2, z / 0.7**2
    lambert = np.clip((0.7 * nx + nz) / np.hypot(nx, nz) / np.hypot(0.7, 1), 0, 1)
    expected = to_srgb((0.3 + 0.75 * lambert)[0, :, None] * GREY)
    inner = np.abs(x[0]) < 0.36
    assert view.colour_HW3[SIZE // 2][inner] == pytest.approx(expected[inner], abs=0.025)


def test_the_background_is_untouched():
    """Pixels that no part of the head covers are the scene's own, gamma 2.2. Catches light on the
    background, and bleeding beyond the edge.
    """
    rng = np.random.default_rng(0)
    lit = scene()
    lit.background_HW3[:] = rng.uniform(0, 1, lit.background_HW3.shape)
    view = Turntable(solid(sphere), lit).view(10)
    covered = (view.cell_RC >= 0).reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING).any((1, 3))
    assert 0.2 < covered.mean() < 0.5
    expected = lit.background_HW3 ** (1 / 2.2)
    assert view.colour_HW3[~covered] == pytest.approx(expected[~covered], abs=1e-5)
    assert not np.isclose(view.colour_HW3[covered], expected[covered]).all()


def test_a_symmetric_head_turned_left_mirrors_the_head_turned_right():
    """Catches a rotation about another axis than the picture's middle, and a visible half that is
    off by some columns. The texture, the one asymmetry, is mirrored first.
    """
    bust = average_bust()
    for name in ("radius_YA", "colour_YA3", "shine_YA"):
        grid = getattr(bust, name)
        setattr(bust, name, (grid + grid[:, ::-1]) / 2)
    turntable = Turntable(bust, scene((0.0, -0.3, 1.0)))
    for yaw in (20, 45, 90):
        left, right = turntable.view(-yaw).colour_HW3, turntable.view(yaw).colour_HW3
        difference = np.abs(left - right[:, ::-1]).mean()
        assert difference < 0.01
        # Not because the picture is one that any turn mirrors.
        assert np.abs(left - right).mean() > 4 * difference


def test_the_face_turns_and_each_profile_shows_its_own_side():
    """Catches pictures that only slide or stay: the left eye goes from left to right as the yaw
    grows, and at +90 degrees the subject's right side is seen, at -90 the left.
    """
    bust = average_bust()
    turntable = Turntable(bust, scene())
    eye = bust.part_YA == PART["eye"]
    left, right = eye & (bust.theta_A > 0), eye & (bust.theta_A < 0)
    x = np.arange(SIZE)
    places = []
    for yaw in range(-90, 46, 15):
        seen = turntable.view(yaw).gather(left)
        places.append((seen.sum(axis=0) * x).sum() / seen.sum())
    assert (np.diff(places) > 0).all()
    assert places[-1] - places[0] > SIZE / 4
    for yaw, near, far in ((90, right, left), (-90, left, right)):
        view = turntable.view(yaw)
        assert view.gather(near).sum() > 2
        assert view.gather(far).sum() == 0


def test_equal_plans_give_equal_pictures():
    """Bit for bit, in any order of the frames. Catches ambient chance, and grain that depends on
    what was rendered before.
    """
    # Seed 0 draws grain.
    grain = Distortion(kind=IMAGE, severity=0.8, seed=0)
    plan = dataclasses.replace(clip_plan(3, 1, 0), distortions=(grain,))
    first, again = ClipRenderer(plan, 48), ClipRenderer(plan, 48)
    forwards = {i: first.picture(yaw, i)[0] for i, yaw in enumerate((-45, 0, 45))}
    backwards = {i: again.picture(yaw, i)[0] for i, yaw in ((2, 45), (0, -45), (1, 0))}
    for index, picture in forwards.items():
        assert picture.shape == (48, 48, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, backwards[index])
    # The same view, another frame: other grain.
    assert not np.array_equal(again.picture(0, 7)[0], forwards[1])
    other = ClipRenderer(dataclasses.replace(plan, scene_seed=plan.scene_seed + 1), 48)
    assert not np.array_equal(other.picture(0, 1)[0], forwards[1])


def test_masks_are_projected_with_the_pictures():
    """Mean of the four supersamples, background 0. Catches masks at another resolution than the
    picture, or with background counted in.
    """
    view = Turntable(solid(sphere), scene()).view(0)
    ones = view.gather(np.ones((ROWS, 3 * ROWS)))
    covered = (view.cell_RC >= 0).reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING).mean((1, 3))
    assert ones == pytest.approx(covered)
    assert view.gather(np.zeros((ROWS, 3 * ROWS)), background=1.0) == pytest.approx(1 - covered)


def test_a_clip_turns_from_minus_to_plus_ninety_degrees():
    """The views of the strip stand at a quarter, a half and three quarters (Section 3.1)."""
    yaws = turntable_yaws(9)
    assert yaws[[0, 2, 4, 6, 8]] == pytest.approx([-90, -45, 0, 45, 90])


def test_scenes_vary_and_stay_possible():
    """Catches light from behind the head, and backgrounds outside 0..1."""
    drawn = [Scene.draw(np.random.default_rng(seed), 32) for seed in range(40)]
    for one in drawn:
        assert np.linalg.norm(one.light) == pytest.approx(1)
        assert one.light[2] > 0.5
        assert one.background_HW3.shape == (32, 32, 3)
        assert one.background_HW3.min() >= 0
        assert one.background_HW3.max() <= 1
    assert len({round(float(one.background_HW3.mean()), 6) for one in drawn}) == len(drawn)
    assert {one.light[0] > 0 for one in drawn} == {True, False}


def test_a_written_clip_decodes_to_what_was_written(tmp_path):
    """Through another path than the writer's: FFmpeg's reader. Catches lost or doubled frames, a
    wrong rate or size, swapped channels, and heavy compression.
    """
    turntable = Turntable(average_bust(), scene())
    frames = [
        np.round(255 * turntable.view(yaw).colour_HW3).astype(np.uint8)
        for yaw in np.linspace(-60, 60, 7)
    ]
    path = tmp_path / "clip.mp4"
    write_clip(path, frames, fps=12)
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.codec_context.codec.canonical_name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (SIZE, SIZE)
        assert float(stream.average_rate) == 12
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(read) == 7
    for written, decoded in zip(frames, read, strict=True):
        error = np.mean((written.astype(float) - decoded) ** 2)
        assert 10 * np.log10(255**2 / error) > 30


def test_equal_frames_give_equal_files(tmp_path):
    """The same bytes in every process, whatever lay in the memory before: two interpreters, in
    which the C library fills fresh memory with another byte. Catches an encoder that reads memory
    it never wrote (x264's macroblock tree does so for small pictures), and time stamps.
    """
    code = """
import sys
from pathlib import Path
from lmme3dhf.data.synthetic.clips import ClipRenderer, turntable_yaws
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.files import file_hash
for size_px in (64, 96, 112):
    renderer = ClipRenderer(clip_plan(1, 1, 0), size_px)
    frames = [renderer.picture(yaw, i)[0] for i, yaw in enumerate(turntable_yaws(9))]
    write_clip(Path(sys.argv[1]), frames, fps=2)
    print(file_hash(Path(sys.argv[1])))
"""
    written = {}
    for fill in ("1", "170"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{fill}.mp4")],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "MALLOC_PERTURB_": fill},
        )
        assert done.returncode == 0, done.stderr
        written[fill] = done.stdout.split()
    assert len(written["1"]) == 3
    assert written["1"] == written["170"]


def test_clips_of_other_shape_and_rate_are_written_as_asked(tmp_path):
    """Catches height and width swapped, and the release's 60 frames per second rounded."""
    frames = [np.full((32, 48, 3), value, np.uint8) for value in (40, 90, 200)]
    write_clip(tmp_path / "clip.mp4", frames, fps=60)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        (stream,) = container.streams
        assert (stream.width, stream.height, float(stream.average_rate)) == (48, 32, 60)
        means = [f.to_ndarray(format="rgb24").mean() for f in container.decode(stream)]
    assert means == pytest.approx([40, 90, 200], abs=3)
