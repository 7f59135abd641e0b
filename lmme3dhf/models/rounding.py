"""What folding an adapter into weights of a half-precision type changes, in what matters: scores,
levels and rank order on real samples.

Both sides are computed in float32 arithmetic, so that the differences show the rounding of the
weights alone. The weights stay in their type and are widened one module at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.models.tower import PatchProduct

Batch = dict[str, torch.Tensor]
Outputs = dict[str, torch.Tensor]
# Largest difference that a stored model may have from the trained one. `relative` is that of any
# output, relative to the output's largest value. In float32 it is what the order of sums explains.
# In half precision it is a hundredth; a score may besides move by at most half a point of MOS and
# no level may change (docs/merging.md has the study behind these).
LIMITS: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"relative_difference": 1e-5},
    torch.bfloat16: {"relative_difference": 1e-2, "score_points_max": 0.5, "level_changes": 0},
    torch.float16: {"relative_difference": 1e-2, "score_points_max": 0.5, "level_changes": 0},
}


@torch.no_grad()
def text_outputs(model: nn.Module, batch: Batch, level_tokens: Sequence[int] = ()) -> Outputs:
    """What a model says about a batch: the logits wherever it is read, the scores when its head is
    trained, and the logits of the level words where one is predicted.

    Args:
        model: `LMME3DHF`, with or without adapters around it.
        batch: Arguments of its forward pass, without targets; `levels` are the reads (indices into
            the flattened reads) at which a level word is predicted, `aspects` say which dimension
            each score is of.
        level_tokens: The tokens of the level words.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    batch = {name: tensor.to(base.device) for name, tensor in batch.items()}
    scored, levels = batch.pop("scored", None), batch.pop("levels", None)
    aspects = batch.pop("aspects", None)
    if "video_embeds" not in batch:
        batch["video_embeds"] = base.encode_video(
            batch.pop("pixel_values_videos"), batch["video_grid_thw"]
        )
    hidden = base.hidden_at(**batch).flatten(0, 1)
    outputs = {"logits": base.lm_head(hidden).float()}
    if levels is not None and level_tokens:
        outputs["levels"] = outputs["logits"][levels][:, list(level_tokens)]
    values = {} if scored is None else base.head_values({base.metric.read: hidden[scored]})
    for head, found in values.items():
        # A head that nobody trained says nothing.
        if f"heads.{head}" not in base.missing_parts:
            outputs |= {f"{head}.{name}": value for name, value in found.items()}
    # The figures on scores are those of the first output.
    if first := next((name for name in outputs if "." in name), None):
        outputs["scores"] = outputs.pop(first)
        if aspects is not None:
            outputs["aspects"] = aspects
    return outputs


@torch.no_grad()
def saliency_outputs(model: LMME3DHF, batch: Batch) -> Outputs:
    """The maps of a batch of views with pixels."""
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    tokens, taps = model.encode_views(batch.pop("pixel_values_videos"), batch["video_grid_thw"])
    states = model.view_states(**batch, video_embeds=tokens)
    return {"maps": model.saliency_decoder(states, taps)}


def all_outputs(
    model: nn.Module,
    probe: Sequence[Batch],
    outputs: Callable[[nn.Module, Batch], Outputs],
    *,
    folded: bool = False,
) -> Outputs:
    """Outputs on several batches, one after the other, in float32 arithmetic; on the CPU.

    Args:
        model: In any type.
        probe: The batches.
        outputs: What is computed of one.
        folded: Compute with each adapter folded into its weight, rounded to the weight's type;
            the model itself stays as it is.
    """
    found: dict[str, list[torch.Tensor]] = {}
    with in_float32(model, folded=folded):
        for batch in probe:
            for name, tensor in outputs(model, batch).items():
                rows = tensor.cpu()
                found.setdefault(name, []).append(rows if name == "levels" else rows.flatten())
    return {name: torch.cat(parts) for name, parts in found.items()}


@contextmanager
def in_float32(model: nn.Module, *, folded: bool = False) -> Iterator[None]:
    """Forward passes in float32, on weights that are widened only while their module runs.

    Args:
        model: Not quantised.
        folded: As in `all_outputs`.
    """
    updates = {}
    adapted = [m for m in model.modules() if isinstance(m, LoraLayer)] if folded else []
    for layer in adapted:
        layer.enable_adapters(False)
        updates[layer.get_base_layer()] = layer

    def widen(module: nn.Module, inputs: tuple) -> None:
        module.narrow = [(p, p.data) for p in module.parameters(recurse=direct(module))]
        for parameter, data in module.narrow:
            parameter.data = data.float()
        if layer := updates.get(module):
            weight = module.weight.data + layer.get_delta_weight("default")
            module.weight.data = weight.to(module.narrow[0][1].dtype).float()

    def restore(module: nn.Module, inputs: tuple, output: Any) -> None:
        for parameter, data in module.__dict__.pop("narrow"):
            parameter.data = data

    handles = []
    for module in model.modules():
        if direct(module) or next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_pre_hook(widen))
            handles.append(module.register_forward_hook(restore, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in adapted:
            layer.enable_adapters(True)


def direct(module: nn.Module) -> bool:
    """Whether a module computes with its child's weights without running the child."""
    return isinstance(module, PatchProduct)


def largest_difference(a: Outputs, b: Outputs) -> float:
    """Largest difference between two sets of outputs, relative to each output's largest value; NaN
    when an output is.
    """
    relative = [(a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-12) for n in b]
    return float(torch.stack(relative).max())


def differences(stored: Outputs, trained: Outputs) -> dict[str, Any]:
    """How a stored model's outputs differ from the trained one's.

    Args:
        stored: Outputs of the stored model, from `all_outputs`.
        trained: Outputs of the trained model, from `all_outputs`.

    Returns:
        `relative_difference` as of `largest_difference`. With scores also `scores` (how many),
        `score_points_max`, `score_points_mean` (of the absolute differences) and
        `score_points_bias`, in points of MOS (0-100), and of the `pairs` of scores of one dimension
        the `swapped_pairs` whose order is reversed. With levels `level_changes` of `level_reads`.
    """
    named = [name for name in trained if name not in ("levels", "aspects")]
    found: dict[str, Any] = {
        "relative_difference": largest_difference(
            {name: stored[name] for name in named}, {name: trained[name] for name in named}
        )
    }
    if "scores" in trained:
        a, b = 100 * stored["scores"].double(), 100 * trained["scores"].double()
        aspects = trained.get("aspects", torch.zeros(len(a)))
        pairs = (aspects[:, None] == aspects).triu(1)
        swapped = (a[:, None] - a) * (b[:, None] - b) < 0
        found |= {
            "scores": len(a),
            "score_points_max": float((a - b).abs().max()),
            "score_points_mean": float((a - b).abs().mean()),
            "score_points_bias": float((a - b).mean()),
            "pairs": int(pairs.sum()),
            "swapped_pairs": int((swapped & pairs).sum()),
        }
    if "levels" in trained:
        changed = stored["levels"].argmax(-1) != trained["levels"].argmax(-1)
        found |= {"level_reads": len(changed), "level_changes": int(changed.sum())}
    return found


def within(found: dict[str, Any], limits: dict[str, float]) -> bool:
    """Whether differences are within limits; NaN never is."""
    return all(found[name] <= limit for name, limit in limits.items() if name in found)
