"""Raster order, against the installed library's window index and against pictures whose patches
carry their own coordinates.
"""

import pytest
import torch

from lmme3dhf.models.grid import to_raster, window_order

PATCH, MERGE, WINDOW = 14, 2, 56  # of the tiny base: windows of 2 x 2 merged blocks


def library_window_index(tower: torch.nn.Module, grid_thw: torch.Tensor) -> torch.Tensor:
    """The installed library's own order, wherever this version keeps it."""
    if hasattr(tower, "get_window_index"):
        return torch.as_tensor(tower.get_window_index(grid_thw)[0])
    from transformers import vision_utils

    config = tower.config
    return vision_utils.get_vision_window_index(
        grid_thw,
        spatial_merge_size=config.spatial_merge_size,
        window_size=config.window_size,
        patch_size=config.patch_size,
    )[0]


def coordinate_patches(processor, frames: int, rows: int, columns: int) -> torch.Tensor:
    """(patches, 3): what the processor makes of pictures whose colour tells the temporal patch, the
    patch row and the patch column.
    """
    t, y, x = torch.meshgrid(
        torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    coloured = torch.stack([t, y, x], 1).to(torch.uint8)  # (frames, 3, rows, columns)
    pictures = (
        coloured.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).repeat_interleave(2, 0)
    )
    video = processor.video_processor
    out = video(videos=[pictures], do_resize=False, do_sample_frames=False, return_tensors="pt")
    assert out["video_grid_thw"].tolist() == [[frames, rows, columns]]
    patches = out["pixel_values_videos"].view(-1, 3, 2 * PATCH * PATCH).mean(2)
    colour = (patches * torch.tensor(video.image_std) + torch.tensor(video.image_mean)) * 255
    return colour.round()


def in_tower_order(tower: torch.nn.Module, patches: torch.Tensor, grid: torch.Tensor):
    """Sorts the processor's patches as the tower does on entry: whole merged blocks, by window."""
    blocks = patches.view(-1, MERGE * MERGE, patches.shape[-1])
    return blocks[library_window_index(tower, grid)].flatten(0, 1)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_window_order_is_the_librarys(model, window):
    """Catches windows that run down instead of across, and wrong cuts at the right and lower border
    (7 and 9 divide into neither 2 nor 4).
    """
    tower = model.model.visual
    sizes = [(rows, columns) for rows in (1, 2, 3, 4, 7, 9) for columns in (1, 3, 4, 8, 9)]
    assert sizes
    before = tower.window_size, tower.config.window_size
    tower.window_size = tower.config.window_size = window * MERGE * PATCH
    try:
        for rows, columns in sizes:
            grid = torch.tensor([[1, rows * MERGE, columns * MERGE]])
            expected = library_window_index(tower, grid)
            assert window_order(rows, columns, window).tolist() == expected.tolist()
    finally:
        tower.window_size, tower.config.window_size = before


@pytest.mark.parametrize(
    "grids",
    [
        [(1, 8, 8)],  # windows divide
        [(3, 6, 10)],  # neither 3 nor 5 blocks divide into windows of 2; several frames
        [(2, 2, 14)],  # one row of blocks
        [(1, 2, 2)],  # a single block, smaller than a window
        [(2, 6, 4), (1, 10, 6), (3, 4, 8)],  # several videos in one call
    ],
)
def test_to_raster_gives_every_patch_its_place(model, processor, grids):
    """The picture tells where each patch belongs. Catches rows and columns swapped, the 2 x 2 merge
    order or the window order left in, and frames or videos that run into each other.
    """
    tower = model.model.visual
    patches = torch.cat([coordinate_patches(processor, *grid) for grid in grids])
    grid_thw = torch.tensor(grids)
    rasters = to_raster(
        in_tower_order(tower, patches, grid_thw),
        grid_thw,
        merge=MERGE,
        window_px=WINDOW,
        patch_px=PATCH,
    )
    assert len(rasters) == len(grids)
    for raster, (frames, rows, columns) in zip(rasters, grids, strict=True):
        where = torch.meshgrid(
            torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij"
        )
        assert torch.equal(raster, torch.stack(where, -1).float())


def test_plain_reshape_would_scramble(model, processor):
    """The test above must be able to fail: a plain reshape of the tower's output, and one that
    undoes the windows only, put patches in wrong places.
    """
    tower, grid = model.model.visual, torch.tensor([[1, 8, 8]])
    patches = coordinate_patches(processor, 1, 8, 8)
    tower_output = in_tower_order(tower, patches, grid)
    right = to_raster(tower_output, grid, merge=MERGE, window_px=WINDOW, patch_px=PATCH)[0]
    assert not torch.equal(tower_output.view(1, 8, 8, 3), right)
    assert not torch.equal(patches.view(1, 8, 8, 3), right)
    assert (tower_output.view(8, 8, 3) != right[0]).any(-1).float().mean() > 0.5
