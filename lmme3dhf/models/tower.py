"""The vision tower on its own: which weights a folder holds, and loading the tower and its merger
without the language model, which is nine tenths of the whole.

Folders name the tower's tensors `visual.*` (as published) or `model.visual.*` (as saved), in one
file or several with an index.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
)

from lmme3dhf.models.configuration import LMME3DHFConfig, reading
from lmme3dhf.models.folder import ModelError, check_folder
from lmme3dhf.models.weights import Adapter, Weights, keep_adapter, kept_adapter

_TOWER = re.compile(r"^(?:model\.)?visual\.")
# What the hidden states of the language model do not depend on.
_NOT_LANGUAGE = re.compile(r"^(?:(?:model\.)?visual|lm_head|score_head|heads|saliency_decoder)\.")
_LANGUAGE_PREFIX = re.compile(r"^(?:model\.)?(?:language_model\.)?")


class PatchProduct(Qwen2_5_VisionPatchEmbed):
    """The patch embedding as one matrix product.

    Patches do not overlap, so the library's 3D convolution is that product; many times faster where
    the convolution has no good kernel, and equal but for the order of its sums. Weights and their
    names are the library's.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(patches, 1176) to (patches, width)."""
        rows = self.proj.weight.flatten(1)
        return nn.functional.linear(hidden_states.to(rows.dtype), rows)


def multiply_patches(tower: Qwen2_5_VisionTransformerPretrainedModel) -> None:
    """Puts a `PatchProduct` in place of a tower's patch embedding; the weights stay."""
    old = tower.patch_embed
    assert old.proj.bias is None
    tower.patch_embed = PatchProduct(
        patch_size=old.patch_size,
        temporal_patch_size=old.temporal_patch_size,
        in_channels=old.in_channels,
        embed_dim=old.embed_dim,
    )
    tower.patch_embed.proj = old.proj


class LoneTower(Qwen2_5_VisionTransformerPretrainedModel):
    """The library's tower with its merger; loads from a whole model's folder."""

    # The rest of the folder: neither read nor told of.
    _keys_to_ignore_on_load_unexpected = (
        r"^(model|language_model|lm_head|score_head|heads|saliency_decoder)\.",
    )

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        multiply_patches(self)


def load_tower(
    folder: Path, dtype: torch.dtype, attn_implementation: str, *, fold_adapter: bool = False
) -> Qwen2_5_VisionTransformerPretrainedModel:
    """Loads the vision tower with its merger, frozen, for features.

    Args:
        folder: A model folder.
        dtype: Type of its weights and of the computation.
        attn_implementation: Attention kernel, as the library names it.
        fold_adapter: Fold a kept adapter into the weights, as training another starts from it.

    Raises:
        ModelError: The folder's tower is missing, damaged or of another geometry.
    """
    check_folder(folder)
    with reading(folder):
        config = LMME3DHFConfig.from_pretrained(folder)
        kept = kept_adapter(Path(folder))
        weights: dict[str, Any] = {"pretrained_model_name_or_path": folder}
        if kept and fold_adapter:
            weights = {
                "pretrained_model_name_or_path": None,
                "state_dict": dict(_tensors(folder, dtype, _tower_name, fold=True)),
            }
        tower, info = LoneTower.from_pretrained(
            **weights,
            config=config.vision_config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            key_mapping={_TOWER.pattern: ""},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    wrong = sorted(info["missing_keys"]) + sorted(entry[0] for entry in info["mismatched_keys"])
    wrong += sorted(info["unexpected_keys"])
    if wrong:
        raise ModelError(
            f"{folder}: {len(wrong)} tensors of its vision tower are missing, left over or of "
            f"another shape than config.json says ({', '.join(wrong[:3])}); check that "
            "config.json and the weights belong together"
        )
    if kept and not fold_adapter:
        # The adapter's names are those of a whole model.
        whole = nn.Module()
        whole.model = nn.Module()
        whole.model.visual = tower
        keep_adapter(whole, kept)
    return tower.eval().requires_grad_(False)


def tower_hash(folder: Path, dtype: torch.dtype, *, fold_adapter: bool = False) -> str:
    """SHA-256 over names, shapes and values of the tower's weights, the values as `dtype`.

    Equal for folders of which one was trained from the other with the tower frozen, whatever their
    files and stored types; read tensor by tensor, no model is built. A kept adapter on the tower is
    part of it: folded into the weights as of `load_tower`, or as it is.

    Raises:
        ModelError: The folder holds no such tensors, or a file is damaged.
    """
    return _weights_hash(_tensors(folder, dtype, _tower_name, fold=fold_adapter), folder)


def language_hash(folder: Path, dtype: torch.dtype) -> str:
    """The same of all that the language model's hidden states depend on."""

    def plain(name: str) -> str | None:
        return None if _NOT_LANGUAGE.match(name) else _LANGUAGE_PREFIX.sub("", name)

    return _weights_hash(_tensors(folder, dtype, plain), folder)


def _tower_name(name: str) -> str | None:
    return _TOWER.sub("", name) if _TOWER.match(name) else None


def geometry(config: PreTrainedConfig) -> dict[str, Any]:
    """What of a configuration acts without weights, such as attention windows; JSON types."""
    # What every configuration of the library has says nothing about the architecture.
    general = PreTrainedConfig().to_dict()
    return {name: value for name, value in config.to_dict().items() if name not in general}


def _weights_hash(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path) -> str:
    digest = hashlib.sha256()
    count = 0
    for name, tensor in tensors:
        count += 1
        values = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(values)
    if not count:
        raise ModelError(
            f"{folder}: no weights of that part in its safetensors files; expected a whole model "
            "folder"
        )
    return digest.hexdigest()


def _tensors(
    folder: Path,
    dtype: torch.dtype,
    plain_name: Callable[[str], str | None],
    *,
    fold: bool = False,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors with a plain name, sorted by it, and then the kept adapter's unless it is folded."""
    weights = Weights(folder, fold=fold)
    plain = {plain_name(name): name for name in weights.keys}
    for name in sorted(plain.keys() - {None}):
        yield name, weights.read(plain[name], dtype)
    kept = kept_adapter(Path(folder))
    if kept and not fold:
        adapter = Adapter(kept)
        for module, factors in sorted(adapter.factors.items()):
            if name := plain_name(module):
                b, a = factors
                yield f"{name} B", b * adapter.scale
                yield f"{name} A", a
