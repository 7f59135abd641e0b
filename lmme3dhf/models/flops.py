"""Floating-point operations of the model: what the training log's TFLOP/s are counted in.

The rule (model FLOPs, not hardware FLOPs): a multiply-add is two operations; a linear layer costs
2 x parameters a token forward and 2 x again for the gradient of its input; frozen weights have no
gradient; adapters cost 2 x forward and 4 x backward. Attention costs 4 x width for each pair of a
token and one that it sees, a layer, and twice that backward. What is recomputed under gradient
checkpointing is not counted, nor is padding, nor what the model leaves out on purpose: the last
layer's MLP counts where it is read, the LM head at the learnt tokens. Norms, softmaxes, embeddings
and the score head are not counted (below 0.1 %).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

Count = float | torch.Tensor


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one forward pass, by what their gradient costs.

    Attributes:
        linear: In frozen linear layers.
        attention: In attention products.
        adapters: In low-rank adapters.
    """

    linear: Count = 0.0
    attention: Count = 0.0
    adapters: Count = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.linear + other.linear,
            self.attention + other.attention,
            self.adapters + other.adapters,
        )

    @property
    def forward(self) -> Count:
        """One forward pass."""
        return self.linear + self.attention + self.adapters

    @property
    def training(self) -> Count:
        """One forward and one backward pass."""
        return 2 * self.linear + 3 * self.attention + 3 * self.adapters


def language_work(
    config: PretrainedConfig, *, tokens: Count, pairs: Count, reads: Count, rank: int = 0
) -> Work:
    """The language model without its head.

    Args:
        config: Its configuration (`text_config`).
        tokens: Tokens in all sequences.
        pairs: Pairs of a token and one that it sees; S (S + 1) / 2 for a causal sequence of S.
        reads: Positions whose last hidden state is read.
        rank: Of the adapters on all its linear layers; 0 without.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    head = width // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    attention = ((width, queries), (width, keys), (width, keys), (queries, width))
    mlp = 3 * ((width, config.intermediate_size),)
    last = _layers(mlp, reads, rank)
    others = _layers(layers * attention + (layers - 1) * mlp, tokens, rank)
    return last + others + Work(attention=4.0 * layers * queries * pairs)


def head_work(config: PretrainedConfig, learnt: Count) -> Work:
    """The LM head at the learnt tokens; `config` as of `language_work`."""
    return _layers(((config.hidden_size, config.vocab_size),), learnt, 0)


def tower_work(
    config: PretrainedConfig, grids: Iterable[tuple[int, int, int]], rank: int = 0
) -> Work:
    """The vision tower with its merger.

    Args:
        config: Its configuration (`vision_config`).
        grids: Of each clip: temporal patches, patch rows, patch columns.
        rank: Of the adapters on the blocks' linear layers; 0 without.
    """
    width, merged = config.hidden_size, config.spatial_merge_size**2
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    attention = ((width, 3 * width), (width, width))
    block = attention + 3 * ((width, config.intermediate_size),)
    merger = (
        (merged * width, merged * width),
        (merged * width, config.out_hidden_size),
    )
    whole = len(config.fullatt_block_indexes)
    work = Work()
    for t, h, w in grids:
        patches = t * h * w
        in_windows = t * _window_pairs(h, w, config.window_size // config.patch_size)
        work += (
            _layers(config.depth * block, patches, rank)
            + _layers(((patch, width),), patches, 0)
            + _layers(merger, patches / merged, 0)
            + Work(
                attention=4.0
                * width
                * (whole * t * (h * w) ** 2 + (config.depth - whole) * in_windows)
            )
        )
    return work


def _window_pairs(rows: int, columns: int, side: int) -> int:
    """Pairs of patches that see each other within windows; those at the edge are smaller."""

    def lengths(extent: int) -> list[int]:
        return [min(side, extent - start) for start in range(0, extent, side)]

    return sum((a * b) ** 2 for a in lengths(rows) for b in lengths(columns))


def _layers(shapes: tuple[tuple[int, int], ...], tokens: Count, rank: int) -> Work:
    """Linear layers of the given (inputs, outputs), with adapters of a rank beside each."""
    return Work(
        linear=2.0 * tokens * sum(math.prod(shape) for shape in shapes),
        adapters=2.0 * tokens * rank * sum(sum(shape) for shape in shapes),
    )


def batch_work(
    config: PretrainedConfig,
    batch: dict[str, Any],
    *,
    language_rank: int = 0,
    tower_rank: int = 0,
) -> Count:
    """Model FLOPs of a training step on a collated batch, forward and backward.

    Args:
        config: The model's configuration.
        batch: As the collator makes it. With pixels the tower's work counts too.
        language_rank: Rank of the language model's adapters; 0 without.
        tower_rank: Rank of the tower's adapters; 0 when it is frozen: it then has no backward pass.

    Returns:
        A number, or a tensor on the batch's device that nobody has to wait for.
    """
    seen_until = batch["seen_until"]
    index = torch.arange(seen_until.shape[1], device=seen_until.device)
    text = config.text_config
    work = language_work(
        text,
        tokens=batch["tokens"],
        # A padding token sees itself.
        pairs=(seen_until - index).sum() - (seen_until.numel() - batch["tokens"]),
        reads=batch["reads"].numel(),
        rank=language_rank,
    )
    if batch.get("learnt") is not None:
        work += head_work(text, len(batch["learnt"]))
    flops = work.training
    if batch.get("pixel_values_videos") is not None:
        grids = [tuple(grid) for grid in batch["video_grid_thw"].tolist()]
        tower = tower_work(config.vision_config, grids, tower_rank)
        flops += tower.training if tower_rank else tower.forward
    return flops
