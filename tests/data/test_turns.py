"""What is noticed about how the head turns, on a sphere that is lit from its face, where every clip
can be worked out; on real clips nothing is noticed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import ClipReader
from lmme3dhf.data.pictures import clips_in_memory
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.sources import three_views
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.data.video import FrameChoice, turn_notes
from tests.conftest import shared_data

EIGHT = FrameChoice(fps=None, frames=8, min_pixels=56 * 56)
SIDE = 56


def sphere(*yaws_deg: float) -> np.ndarray:
    """(T, H, W, 3): a sphere, brightest where its face is, before a background that is brighter at
    one side.
    """
    x_HW, y_HW = np.meshgrid(*[np.linspace(-1.2, 1.2, SIDE)] * 2)
    z_HW = np.sqrt((1 - x_HW**2 - y_HW**2).clip(0))
    frames = []
    for yaw in np.deg2rad(yaws_deg):
        lit_HW = 128 + 100 * (x_HW * np.sin(yaw) + z_HW * np.cos(yaw))
        frames.append(np.where(z_HW > 0, lit_HW, 100 + 60 * x_HW))
    return np.stack(frames).round().astype(np.uint8)[..., None].repeat(3, -1)


def notes_of(yaws_deg: np.ndarray, at: tuple[float, ...] | None = None) -> tuple[str, ...]:
    """Notes of a clip in memory, the same whether its frames or its views are read."""
    clip = sphere(*yaws_deg)
    found = [
        clips_in_memory(
            clip, EIGHT, 8.0, frames=frames, views=not frames, name="it", at=three_views(at)
        ).notes
        for frames in (True, False)
    ]
    assert found[0] == found[1]
    return found[0]


def test_a_turn_from_side_to_side_has_no_note():
    """In either direction, also a narrow one, and from the front to both sides and back."""
    for ends in ((-90, 90), (90, -90), (-45, 45)):
        assert notes_of(np.linspace(*ends, 33)) == ()
    assert notes_of(90 * np.sin(np.linspace(0, 2 * np.pi, 33))) == ()


def test_outer_views_that_are_no_mirror_images_are_noted():
    """A full turn that starts at the side, whose middle view is the other side; with the places of
    its views there is nothing to note. Catches a profile that is silently taken for the front.
    """
    full = np.linspace(-90, 270, 33)
    (note,) = notes_of(full)
    assert "mirror images" in note
    assert ";" not in note
    assert notes_of(full, (0.125, 0.25, 0.375)) == ()


def test_a_static_clip_is_noted():
    """In memory and as a file, with the noise of its compression. Catches a still that is scored as
    a turntable without a word.
    """
    (note,) = notes_of(np.full(9, -30.0))
    assert "do not change" in note


def test_a_static_file_is_noted(tmp_path: Path):
    """With the noise of compression; of a file as of frames in memory."""
    rng = np.random.default_rng(0)
    frames = [sphere(20.0)[0] + rng.integers(0, 3, (SIDE, SIDE, 1), np.uint8) for _ in range(12)]
    write_clip(tmp_path / "static.mp4", frames, fps=6)
    for frames, views in ((True, True), (True, False), (False, True)):
        read = ClipReader(choice=EIGHT, frames=frames, views=views)(tmp_path / "static.mp4")
        (note,) = read.notes
        assert "do not change" in note


def test_little_change_says_nothing_about_the_turn():
    """Lights that go up, and a change that only a codec makes. Catches a note about noise."""
    still = torch.full((3, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    brighter = still + torch.tensor([0, 30, 60], dtype=torch.uint8)[:, None, None, None]
    assert turn_notes(brighter, (0, 1, 2)) == ()


@pytest.mark.parametrize(
    "name",
    ["facelit_latent_tile8", "gghead_998_tile03", "portrait4dv2_middle_id0003_drive0467_4s"],
)
def test_real_clips_have_no_note(name):
    """Those that come nearest to one: a face that becomes another, a head that nods, and one that
    hardly turns.
    """
    read = ClipReader(choice=EIGHT, views=True)(shared_data("clips", f"{name}.mp4"))
    assert not isinstance(read, VideoError)
    assert read.notes == ()


def test_views_are_three_places_in_the_clip():
    """The usual ones unless others are given. Catches angles that are taken for fractions."""
    assert three_views(None) == (0.25, 0.5, 0.75)
    assert three_views([0.875, 0, 0.125]) == (0.875, 0.0, 0.125)
    for wrong in ((0.5,), (-45, 0, 45), (0.25, 0.5, float("nan")), ()):
        with pytest.raises(DataError, match=r"in 0\.\.1.*such as 0\.25 0\.5 0\.75"):
            three_views(wrong)


def test_views_are_taken_where_they_are_given(tmp_path: Path):
    """Of a file and in memory: brightness tells which frame a view is. Catches a place that is
    read and forgotten.
    """
    clip = np.stack([np.full((SIDE, SIDE, 3), 20 * at, np.uint8) for at in range(9)])
    write_clip(tmp_path / "clip.mp4", list(clip), fps=9)
    at = (0.875, 0.0, 0.125)
    reader = ClipReader(choice=EIGHT, views=True, at=at)
    memory = clips_in_memory(clip, EIGHT, 9.0, frames=True, views=True, name="it", at=at)
    for read in (reader(tmp_path / "clip.mp4"), memory):
        assert read.views.indices == (7, 0, 1)
        assert read.frames.indices[0] == 0
        assert read.frames.indices[-1] == 8
        brightness = read.views.frames.float().mean((1, 2, 3))
        assert brightness.tolist() == pytest.approx([140, 0, 20], abs=3)
