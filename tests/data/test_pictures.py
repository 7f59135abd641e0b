"""Pictures in memory and strips: the clips that a file of the same pictures gives, and what is
refused.
"""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import ClipReader
from lmme3dhf.data.pictures import MEMORY, clips_in_memory, pictures_of, rate_of
from lmme3dhf.data.strips import DECODER, read_views, views_of_strip
from lmme3dhf.data.video import Clips, FrameChoice
from tests.conftest import shared_data
from tests.data.test_video import noise, write_clip

FOUR = FrameChoice(frames=4, min_pixels=28 * 28)
BY_RATE = FrameChoice(fps=6, min_pixels=28 * 28)


def read(clip, choice: FrameChoice = FOUR, fps: float | None = None) -> Clips:
    return clips_in_memory(clip, choice, fps, frames=True, views=True, name="these")


def decoded_pictures(path: Path) -> np.ndarray:
    """All pictures of a file, by PyAV alone."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("choice", [FOUR, BY_RATE])
@pytest.mark.parametrize("count", [7, 30])
def test_decoded_pictures_give_what_their_file_gives(tmp_path, choice, count):
    """As bytes, as floats, as a tensor. Catches another choice of pictures, resizing before
    rounding, and views that are others than those of the file.
    """
    path = write_clip(tmp_path / "clip.mp4", noise(count, 96, 120), rate=15)
    expected = ClipReader(choice=choice, views=True)(path)
    pictures = decoded_pictures(path)
    halves = (pictures / 255).astype(np.float16)
    ways = (
        pictures,
        torch.from_numpy(pictures),
        pictures / 255,
        np.float32(pictures) / 255,
        halves,
    )
    for way in ways:
        found = read(way, choice, 15)
        for name in ("frames", "views"):
            one, other = getattr(found, name), getattr(expected, name)
            assert torch.equal(one.frames, other.frames)
            assert (one.indices, one.width, one.height) == (other.indices, 120, 96)
        assert found.frames.sample_fps == expected.frames.sample_fps
        assert (found.frames.decoder, expected.frames.decoder) == (MEMORY, "pyav2")


def test_only_what_is_asked_for_is_made(tmp_path):
    """Catches views that are resized for nobody."""
    clip = np.stack(noise(5))
    frames = clips_in_memory(clip, FOUR, None, frames=True, views=False, name="these")
    views = clips_in_memory(clip, FOUR, None, frames=False, views=True, name="these")
    assert (frames.views, views.frames) == (None, None)


def test_odd_arrays_are_taken_as_they_are_seen():
    """Mirrored, read-only, of the other byte order. Catches torch's refusals as tracebacks."""
    clip = np.stack(noise(5))
    assert torch.equal(
        pictures_of(clip[:, :, ::-1], "these"), torch.tensor(clip[:, :, ::-1].copy())
    )
    clip.flags.writeable = False
    assert torch.equal(pictures_of(clip, "these"), torch.tensor(clip))
    swapped = (clip / 255).astype(">f8")
    assert torch.equal(pictures_of(swapped, "these"), torch.tensor(clip))
    learnt = torch.tensor(clip / 255, requires_grad=True)
    assert torch.equal(pictures_of(learnt, "these"), torch.tensor(clip))


ZEROS = np.zeros((4, 32, 32, 3), np.float32)


def with_one(value: float) -> np.ndarray:
    changed = ZEROS.copy()
    changed[1, 2, 3, 0] = value
    return changed


@pytest.mark.parametrize(
    ("clip", "reason", "words"),
    [
        (ZEROS[..., 0], "not_a_video", "(4, 32, 32); expected (T, H, W, 3)"),
        (ZEROS[..., :1], "not_a_video", "grey is given as three equal colours"),
        (np.zeros((4, 32, 32, 4), np.uint8), "not_a_video", "leave the alpha channel out"),
        (torch.zeros(4, 3, 32, 32), "not_a_video", "the colours come last, permute(0, 2, 3, 1)"),
        (torch.zeros(3, 32, 96), "not_a_video", "the colours come last, permute(1, 2, 0)"),
        (np.stack([ZEROS, ZEROS]), "not_a_video", "several clips are given as a list"),
        (np.zeros((0, 32, 32, 3), np.uint8), "too_short", "fewer than 2 pictures"),
        (np.zeros((0, 32, 32, 3)), "too_short", "fewer than 2 pictures"),
        (ZEROS[:1], "too_short", "fewer than 2 pictures"),
        (with_one(np.nan), "not_a_video", "values from nan to nan; expected floats in 0..1"),
        (with_one(np.inf), "not_a_video", "values from 0 to inf; expected floats in 0..1"),
        (with_one(-0.01), "not_a_video", "values from -0.01 to 0; expected floats in 0..1"),
        (with_one(255), "not_a_video", "values from 0 to 255; expected floats in 0..1, or uint8"),
        (np.zeros((4, 32, 32, 3), np.int64), "not_a_video", "values of type int64"),
        (torch.zeros(4, 32, 32, 3, dtype=torch.int32), "not_a_video", "values of type int32"),
        (np.zeros((4, 32, 32, 3), bool), "not_a_video", "values of type bool"),
        (np.zeros((4, 32, 32, 3), object), "not_a_video", "values of type object"),
        (np.zeros((4, 32, 27, 3), np.uint8), "too_small", "pictures of 27x32"),
        (np.zeros((2, 28, 4097, 3), np.uint8), "too_large", "pictures of 4097x28"),
        (np.zeros((64, 64, 3), np.uint8), "still_image", "stack the pictures of a clip to one"),
        (np.zeros((20, 60, 3), np.uint8), "too_small", "pictures of 20x20"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_sentence(clip, reason, words):
    """Catches scores of something that is no video, and tracebacks from inside a library."""
    with pytest.raises(VideoError) as caught:
        read(clip)
    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert str(caught.value).startswith("these")


def test_a_clip_without_a_rate():
    """Four seconds, as those of Gen3DHF, where the model takes a fixed number of pictures;
    otherwise it is asked for. Catches 240 pictures that are taken for two minutes.
    """
    assert rate_of(240, None, FOUR) == 60
    assert rate_of(240, 24, FOUR) == rate_of(240, 24, BY_RATE) == 24
    clip = np.stack(noise(8))
    assert read(clip).frames.sample_fps == 1
    with pytest.raises(ValueError, match=r"these pictures need fps.*takes 6 a second"):
        read(clip, BY_RATE)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected pictures per second above 0"):
            read(clip, BY_RATE, fps)


# Strips


@pytest.mark.parametrize("name", ["strip.png", "strip.bmp", "strip.webp", "STRIP.TIFF"])
def test_a_strip_is_its_three_views(tmp_path, name):
    """From a file, from memory, and as the views of a clip that shows just them: three pictures a
    quarter of it apart, and a clip of six at two a second. Catches columns of the neighbour's view,
    and views in another order.
    """
    views = noise(3, 64, 64)
    Image.fromarray(np.hstack(views)).save(tmp_path / name, lossless=True)
    found = ClipReader(choice=FOUR, views=True)(tmp_path / name)
    again = read(np.hstack(views))
    other = read(Image.open(tmp_path / name))
    at_views = read(np.stack([views[0], *views, views[2]])).views
    six = FrameChoice(frames=6, min_pixels=28 * 28)
    as_clip = read(np.stack(views).repeat(2, axis=0), six, 2).frames
    for clips in (found, again, other):
        assert torch.equal(clips.views.frames, at_views.frames)
        assert torch.equal(clips.frames.frames, as_clip.frames)
        assert clips.frames.sample_fps == as_clip.sample_fps == 2
        assert (clips.views.width, clips.views.height) == (64, 64)
    assert (found.views.decoder, again.views.decoder) == (DECODER, MEMORY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["strip.png", "strip.tiff", "strip.webp"])
def test_a_turned_strip_is_read_as_shown(tmp_path, name, orientation):
    """As image viewers turn it. Catches a strip that is refused for the shape in which it is
    stored.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.hstack(noise(3, 64, 64))
    stored = stored.transpose(1, 0, 2) if orientation > 4 else stored
    Image.fromarray(stored).save(tmp_path / name, lossless=True, exif=exif)
    with Image.open(tmp_path / name) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(np.hstack(read_views(tmp_path / name)[0]), shown)


def test_a_strip_of_gen3dhf_and_one_from_a_figure():
    """1536x512 in the release; figures are cut by hand. Catches a view that holds the separator's
    other side."""
    strip = np.arange(3).repeat(512)[None, :, None].repeat(512, 0).repeat(3, 2).astype(np.uint8)
    views = views_of_strip(strip, "strip")
    assert views.shape == (3, 512, 512, 3)
    assert [np.unique(view).tolist() for view in views] == [[0], [1], [2]]
    figure = shared_data("strips", "gen3dhf_fig_saliency_overlay_3views.png")
    assert read_views(figure)[0].shape == (3, 643, 652, 3)
    for other in ("gen3dhf_fig_filmstrip_8views.png", "spherehead_fig_row_a_5views.png"):
        with pytest.raises(VideoError, match="expected a clip, or a strip of 3 views"):
            read_views(shared_data("strips", other))


def test_bad_strips_have_reasons(tmp_path):
    """Catches tracebacks from the picture library, 16 bits that are cut to 8 without a word, and a
    bomb that is decoded before its size is looked at.
    """
    good = np.hstack(noise(3, 64, 64))
    Image.fromarray(good).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(good[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((4200, 12600), np.uint8)).save(tmp_path / "large.png")
    # 768 MB of black in a few kilobytes.
    Image.new("1", (48000, 16000)).save(tmp_path / "bomb.png")
    Image.fromarray(np.zeros((27, 81), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(good[:, :64]).save(tmp_path / "face.png")
    Image.fromarray(good).save(tmp_path / "strip.gif")
    reasons = {}
    for path in tmp_path.iterdir():
        error = ClipReader(choice=FOUR)(path)
        assert str(error).startswith(str(path))
        reasons[path.name] = error.reason
    assert reasons == {
        "cut.png": "decode_error",
        "deep.png": "unsupported_codec",
        "large.png": "too_large",
        "bomb.png": "too_large",
        "small.png": "too_small",
        "face.png": "still_image",
        "strip.gif": "still_image",
    }


def test_odd_pictures_are_refused_or_read():
    """All odd still pictures that are here, whatever their format. Catches an error of the picture
    library that is no `VideoError`.
    """
    pictures = [p for p in shared_data("odd").iterdir() if p.suffix not in (".mp4", ".mov", ".avi")]
    assert len(pictures) > 30
    for path in pictures:
        result = ClipReader(choice=FOUR, views=True)(path)
        assert isinstance(result, Clips | VideoError), path
