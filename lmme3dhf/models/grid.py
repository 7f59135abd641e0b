"""Where each visual token stands: from the tower's inner order back to raster order.

Inside the vision tower the patches are ordered twice: four neighbours that will be merged stand
together, and these blocks are sorted by attention window. A plain reshape to (rows, columns)
scrambles a block's output; these functions undo both orders.
"""

import torch


def window_order(rows: int, columns: int, window: int) -> torch.Tensor:
    """Order in which the tower holds the merged blocks of one frame.

    Args:
        rows: Merged blocks down a frame.
        columns: Merged blocks across a frame.
        window: Merged blocks along a window's side.

    Returns:
        (rows * columns,) long: position i of the tower holds the block with this raster index.
        Windows go row by row, the last ones are cut at the border.
    """
    index = torch.arange(rows * columns).view(rows, columns)
    return torch.cat(
        [
            index[top : top + window, left : left + window].reshape(-1)
            for top in range(0, rows, window)
            for left in range(0, columns, window)
        ]
    )


def to_raster(
    tower_output: torch.Tensor, grid_thw: torch.Tensor, *, merge: int, window_px: int, patch_px: int
) -> list[torch.Tensor]:
    """Puts the output of a vision block (before the merger) into raster order.

    Args:
        tower_output: (patches of all videos, channels), in the tower's order.
        grid_thw: (videos, 3) frames, patch rows and patch columns of each video.
        merge: Patches along a merged block's side (Qwen2.5-VL: 2).
        window_px: Side of an attention window in pixels (Qwen2.5-VL: 112).
        patch_px: Side of a patch in pixels (14).

    Returns:
        One tensor (frames, patch rows, patch columns, channels) a video.
    """
    out = []
    start = 0
    for frames, height, width in grid_thw.tolist():
        rows, columns = height // merge, width // merge
        count = frames * height * width
        # Windows never cross frames, so each frame is ordered alike.
        order = window_order(rows, columns, window_px // merge // patch_px).to(tower_output.device)
        blocks = tower_output[start : start + count].view(frames, rows * columns, merge * merge, -1)
        raster = torch.empty_like(blocks)
        raster[:, order] = blocks
        out.append(
            raster.view(frames, rows, columns, merge, merge, -1)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(frames, height, width, -1)
        )
        start += count
    return out
