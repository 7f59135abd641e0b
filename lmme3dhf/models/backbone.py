"""How Qwen2.5-VL takes what it looks at: the placeholders, token types, grids and positions of
videos and images. Another backbone is another such file.

Data knows this module alone of the models; it needs no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

END = "<|im_end|>"  # of what the user or the assistant says


@dataclass(frozen=True, kw_only=True)
class MediaKind:
    """A kind of input beside text.

    Attributes:
        placeholder: The token that stands for it, once in the chat template, then once a visual
            token.
        token_type: What `mm_token_type_ids` hold there; 0 is text.
        grids: Name of the argument of the library that holds its grids.
    """

    placeholder: str
    token_type: int
    grids: str


# A strip of views and frames in memory are videos to the backbone.
MEDIA = {
    "image": MediaKind(placeholder="<|image_pad|>", token_type=1, grids="image_grid_thw"),
    "video": MediaKind(placeholder="<|video_pad|>", token_type=2, grids="video_grid_thw"),
}


def library_arguments(
    kinds: Sequence[str | None], grid_thw: torch.Tensor, second_per_grid: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Grids and times of a batch as the library's own methods take them, by kind.

    Args:
        kinds: Keys of `MEDIA`, one a row; None for text alone.
        grid_thw: (rows, 3) temporal patches, patch rows, patch columns.
        second_per_grid: (rows,) seconds between temporal patches; images have none.
    """
    arguments = {}
    for kind, about in MEDIA.items():
        rows = [row for row, own in enumerate(kinds) if own == kind]
        if rows:
            arguments[about.grids] = grid_thw[rows]
    videos = [row for row, kind in enumerate(kinds) if kind == "video"]
    return arguments | {"second_per_grid_ts": second_per_grid[videos]} if videos else arguments


def positions(
    model: nn.Module,
    input_ids: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    grid_thw: torch.Tensor,
    second_per_grid: torch.Tensor,
) -> torch.Tensor:
    """Positions (3, rows, length) of the tokens in time, height and width.

    Args:
        model: The library's model below the language-model head.
        input_ids: (rows, length); each row has one video or one image.
        mm_token_type_ids: (rows, length) token types, see `MediaKind`. Without them the library
            silently falls back to text positions.
        grid_thw: (rows, 3).
        second_per_grid: (rows,).
    """
    by_type = {about.token_type: kind for kind, about in MEDIA.items()}
    # A row of text alone has no kind.
    kinds = [by_type.get(token_type) for token_type in mm_token_type_ids.amax(1).tolist()]
    position_ids, _ = model.get_rope_index(
        input_ids,
        mm_token_type_ids=mm_token_type_ids,
        **library_arguments(kinds, grid_thw, second_per_grid),
    )
    return position_ids
