"""Frames as patches: against the library's processors, and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmme3dhf.data.pixels import clip_pixels, read_pixels, view_pixels
from lmme3dhf.data.video import Clip, FrameChoice, read_clip
from tests.conftest import random_frames
from tests.data.test_video import write_clip

SMALL = FrameChoice(min_pixels=28 * 28)


@pytest.fixture(scope="module")
def grey_clip(tmp_path_factory) -> Path:
    """41 pictures at 10 a second, losslessly coded; the grey value is 6 times the index."""
    pictures = [np.full((56, 84, 3), 6 * index, dtype=np.uint8) for index in range(41)]
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(folder / "grey.mkv", pictures, codec="ffv1", rate=10)


def greys(values: torch.Tensor, processor) -> torch.Tensor:
    """(patches, 2): grey value of both pictures of each patch, 0 to 255."""
    video = processor.video_processor
    colour = values.view(-1, 3, 2, 14 * 14).mean(3)
    mean, std = (torch.tensor(x).view(1, 3, 1) for x in (video.image_mean, video.image_std))
    return ((colour * std + mean) * 255).mean(1)


@pytest.mark.parametrize("shape", [(4, 84, 112), (2, 28, 28), (6, 140, 56)])
def test_patches_are_the_processors(processor, shape):
    """Catches frames that are resized or sampled again, and another normalisation."""
    frames = random_frames(0, *shape)
    message = {"role": "user", "content": [{"type": "video"}]}
    text = processor.apply_chat_template([message], tokenize=False)
    expected = processor(
        text=[text], videos=[frames], do_resize=False, do_sample_frames=False, return_tensors="pt"
    )
    values, grid = clip_pixels(frames, processor.video_processor)
    assert values.dtype == torch.float32
    assert torch.equal(values, expected["pixel_values_videos"])
    assert list(grid) == expected["video_grid_thw"][0].tolist()
    assert grid == (shape[0] // 2, shape[1] // 14, shape[2] // 14)


def test_first_and_last_patch_by_hand(processor):
    """Colours, pictures, rows, columns, in this order, normalised by CLIP's constants. Catches a
    layout that the library changes, and one that only an equal mistake on both sides would pass.
    """
    frames = random_frames(1, 4, 56, 84)
    values, _ = clip_pixels(frames, processor.video_processor)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1, 1)
    for patch, corner in ((0, frames[:2, :, :14, :14]), (-1, frames[2:, :, -14:, -14:])):
        expected = (corner.transpose(0, 1) / 255 - mean) / std
        torch.testing.assert_close(values[patch].view(3, 2, 14, 14), expected)


def clip_of(frames: torch.Tensor) -> Clip:
    return Clip(
        frames=frames,
        indices=tuple(range(len(frames))),
        total_frames=len(frames),
        source_fps=1.0,
        sample_fps=1.0,
        decoder="pyav2",
        width=frames.shape[3],
        height=frames.shape[2],
    )


def test_each_view_is_a_temporal_patch_like_a_still(processor):
    """Qwen2.5-VL shows a still picture to the tower twice. Catches three views that are paired with
    each other (the frontal one with a side view) or padded to four.
    """
    frames = random_frames(2, 3, 84, 56)
    pixels = view_pixels(clip_of(frames), processor.video_processor)
    values = pixels.values
    assert pixels.grid_thw == (3, 6, 4)
    still = processor.image_processor(images=list(frames), do_resize=False, return_tensors="pt")
    assert still["image_grid_thw"].tolist() == [[1, 6, 4]] * 3
    torch.testing.assert_close(values, still["pixel_values"], atol=1e-6, rtol=0)
    pairs = values.view(-1, 3, 2, 14, 14)
    assert torch.equal(pairs[:, :, 0], pairs[:, :, 1])


def test_clip_of_known_length(processor, grey_clip):
    """By hand: 41 pictures at 10 a second, read at 2: 8 of them, evenly spaced, 4 temporal patches,
    8 / 41 * 10 pictures a second. Catches a time base that counts pictures instead of patches.
    """
    pixels = read_pixels(grey_clip, SMALL, processor.video_processor, views=False)
    assert pixels.grid_thw == (4, 4, 6)
    assert pixels.tokens == 4 * 2 * 3
    assert pixels.size == (84, 56)
    assert pixels.decoder == "pyav2"
    assert pixels.second_per_grid == pytest.approx(2 / (8 / 41 * 10))
    indices = (greys(pixels.values, processor) / 6).round().view(4, -1, 2)
    assert torch.equal(indices, indices[:, :1].expand_as(indices))
    assert indices[:, 0].flatten().tolist() == [0, 6, 11, 17, 23, 29, 34, 40]


def test_time_base_is_the_processors(processor, grey_clip):
    """Catches seconds between temporal patches that differ from what stock inference would use."""
    clip = read_clip(grey_clip, SMALL)
    metadata = {
        "total_num_frames": clip.total_frames,
        "fps": clip.source_fps,
        "frames_indices": list(clip.indices),
    }
    message = {"role": "user", "content": [{"type": "video"}]}
    expected = processor(
        text=[processor.apply_chat_template([message], tokenize=False)],
        videos=[clip.frames],
        video_metadata=[[metadata]],
        do_resize=False,
        do_sample_frames=False,
    )
    pixels = read_pixels(grey_clip, SMALL, processor.video_processor, views=False)
    assert pixels.second_per_grid == pytest.approx(float(expected["second_per_grid_ts"][0]))


def test_views_stand_at_the_quarters(processor, grey_clip):
    """By hand: -45, 0 and 45 degrees of a turn from -90 to 90 are pictures 10, 20 and 30 of 41.
    Catches views in another order or at other angles, and two pictures in one patch.
    """
    pixels = read_pixels(grey_clip, SMALL, processor.video_processor, views=True)
    assert pixels.grid_thw == (3, 4, 6)
    assert pixels.tokens == 3 * 2 * 3
    assert pixels.second_per_grid == 1.0
    indices = (greys(pixels.values, processor) / 6).round().view(3, -1)
    assert torch.equal(indices, torch.tensor([10.0, 20.0, 30.0])[:, None].expand_as(indices))
