"""What features depend on beside the clip's bytes."""

from typing import Any

from transformers import BaseVideoProcessor

from lmme3dhf.data.container import DECODER
from lmme3dhf.data.video import FrameChoice
from lmme3dhf.vocabulary import VIEWS

# Sizes and sampling are our own (`data.video`); these the processor adds.
_CONSTANTS = (
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
)


def pictures(choice: FrameChoice, *, views: bool) -> dict[str, Any]:
    """Which pictures of a clip are read, at which size and by which decoder.

    Args:
        choice: How clips become frames.
        views: Whether the three views are read in place of the frames; of the choice only the size
            counts for them.
    """
    if not views:
        return {"frames": choice.to_dict(), "decoder": DECODER}
    sizes = {"min_pixels": choice.min_pixels, "max_pixels": choice.max_pixels}
    return {"views": [view.clip_fraction for view in VIEWS], "sizes": sizes, "decoder": DECODER}


def patches(processor: BaseVideoProcessor) -> dict[str, Any]:
    """How pictures become patches."""
    constants = {name: getattr(processor, name) for name in _CONSTANTS}
    return {
        name: list(value) if isinstance(value, (list, tuple)) else value
        for name, value in constants.items()
    }
