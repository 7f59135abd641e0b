"""What is a clip: one rule on length, which every door keeps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qwen_vl_utils.vision_process import FRAME_FACTOR

from lmme3dhf.data.check import check
from lmme3dhf.data.container import MIN_FRAMES, VideoError, probe, read_strip, verify
from lmme3dhf.data.decoding import ClipReader
from lmme3dhf.data.marks import write_strips
from lmme3dhf.data.pictures import clips_in_memory
from lmme3dhf.data.verify import verdicts
from lmme3dhf.data.video import FrameChoice
from tests.data.test_video import noise, write_clip

SMALL = 4 * 28 * 28
CHOICES = {
    "eight": FrameChoice(frames=8, min_pixels=SMALL),
    "by rate": FrameChoice(min_pixels=SMALL),
}
KINDS = {
    "mp4": {"codec": "libx264"},
    "mkv": {"codec": "ffv1"},
    "avi": {"codec": "mpeg4"},
    "webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "gif": {"codec": "gif"},
}


def reason_given(door, *arguments, **options) -> str | None:
    """Why a door refuses; None where it does not."""
    try:
        result = door(*arguments, **options)
    except VideoError as error:
        return error.reason
    return result.reason if isinstance(result, VideoError) else None


@pytest.mark.parametrize("kind", [*KINDS, "memory"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_all_doors_agree_on_what_is_a_clip(tmp_path, kind, count):
    """Two frames are one; fewer are not. Catches a clip that `verify` calls good and a model that
    takes eight frames, or the one that cuts strips, refuses.
    """
    said: dict[str, str | None] = {}
    if kind == "memory":
        for name, choice in CHOICES.items():
            said[name] = reason_given(
                clips_in_memory,
                np.stack(noise(count)),
                choice,
                30.0,
                frames=True,
                views=True,
                name="it",
            )
    else:
        path = write_clip(tmp_path / f"a.{kind}", noise(count), **KINDS[kind])
        said = {door.__name__: reason_given(door, path) for door in (probe, verify)}
        said["the verb verify"] = next(verdicts([path])).reason
        said["strips"] = reason_given(read_strip, path, (0.25, 0.5, 0.75))
        for name, choice in CHOICES.items():
            said[f"frames {name}"] = reason_given(ClipReader(choice=choice), path)
            said[f"views {name}"] = reason_given(
                ClipReader(choice=choice, frames=False, views=True), path
            )
        for decode in ("views", "headers"):
            assert bool(check(path, decode=decode).errors) == (count < MIN_FRAMES)
        _, failed = write_strips(tmp_path / "strips", {"a": path}, tmp_path)
        said["the verb strips"] = failed["a"].reason if failed else None
    short = "still_image" if kind == "gif" else "too_short"
    assert set(said.values()) == {None if count >= MIN_FRAMES else short}, said


@pytest.mark.parametrize(
    ("count", "indices"),
    [
        (2, (0, 1)),
        (3, (0, 2)),
        (5, (0, 1, 3, 4)),
        (7, (0, 1, 2, 4, 5, 6)),
        (8, (0, 1, 2, 3, 4, 5, 6, 7)),
        (9, (0, 1, 2, 3, 5, 6, 7, 8)),
    ],
)
def test_a_short_clip_gives_the_frames_that_it_has(tmp_path, count, indices):
    """An even number, for the model joins pairs, evenly spaced by hand; a note where they are fewer
    than the model takes. Catches frames that are shown twice to fill up.
    """
    path = write_clip(tmp_path / "a.mkv", noise(count), codec="ffv1")
    memory = clips_in_memory(
        np.stack(noise(count)), CHOICES["eight"], 30.0, frames=True, views=True, name="it"
    )
    for clips in (ClipReader(choice=CHOICES["eight"], views=True)(path), memory):
        assert clips.frames.indices == indices
        notes = (
            ()
            if count >= 8
            else (f"the clip has {count} frames, fewer than the 8 that the model takes",)
        )
        assert clips.frames.notes == notes
        assert clips.views.notes == ()


def test_pairs_are_the_librarys():
    """Its constant is not imported, since torch would come with it."""
    assert MIN_FRAMES == FRAME_FACTOR


def one_broken_image(path: Path) -> Path:
    """A GIF of one image whose codes are longer (15 bits) than GIF allows (12)."""
    Image.fromarray(noise(1)[0]).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x2c\0\0\0\0\x80\0\x60\0") + 9  # the flags in the image descriptor
    colours = 3 * 2 ** ((content[at] & 7) + 1) if content[at] & 0x80 else 0
    content[at + 1 + colours] = 15
    path.write_bytes(content)
    return path


def test_a_gif_of_one_broken_image_is_called_the_same_everywhere(tmp_path):
    """No clip, whatever the image holds. Catches a door that decodes it first and says damaged."""
    path = one_broken_image(tmp_path / "a.gif")
    said = {reason_given(door, path) for door in (probe, verify)}
    said |= {next(verdicts([path])).reason}
    said |= {reason_given(ClipReader(choice=choice), path) for choice in CHOICES.values()}
    assert said == {"still_image"}
