"""Folding a run's adapters, head or decoder into one loadable folder, and proving that nothing
changed.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from lmme3dhf.errors import UserError
from lmme3dhf.files import write_json, write_manifest
from lmme3dhf.models.card import NO_RECORD, write_card
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.modeling import LMME3DHF, load_processor

REPORT = "merge_report.json"
# Adds to a verified folder what explains it, and to its report, before the manifest is written.
Finish = Callable[[Path, dict], None]
# Largest relative difference between the merged and the unmerged model's outputs.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


class MergeError(UserError, RuntimeError):
    """What was merged is not what was trained; nothing is left that could be taken for it."""


@torch.no_grad()
def text_outputs(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a model says about a batch: the logits wherever it is read, and the scores when its head
    is trained.

    Args:
        model: `LMME3DHF`, with or without adapters around it.
        batch: Arguments of its forward pass, without targets.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    batch = dict(batch)
    scored = batch.pop("scored", None)
    if "video_embeds" not in batch:
        batch["video_embeds"] = base.encode_video(
            batch.pop("pixel_values_videos"), batch["video_grid_thw"]
        )
    hidden = base.hidden_at(**batch).flatten(0, 1)
    outputs = {"logits": base.lm_head(hidden).float()}
    # A head that nobody trained says nothing.
    if scored is not None and "score_head" not in base.missing_parts:
        outputs["scores"] = base.score_head(hidden[scored])
    return outputs


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference between two sets of outputs, relative to each output's largest value; NaN
    when an output is.
    """
    relative = [(a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-12) for n in b]
    return float(torch.stack(relative).max())


def merge_adapter(
    base: Path,
    adapter: Path,
    out: Path,
    metric: MetricConfig,
    probe: dict[str, torch.Tensor],
    dtype: torch.dtype,
    finish: Finish | None = None,
) -> dict:
    """Merges adapters (and a trained head) into their base and verifies the folder.

    Merging is computed in float32 and cast to `dtype` last; what that rounds is what the
    comparison, itself in float32, sees.

    Args:
        base: Folder of the model that was adapted.
        adapter: Folder that PEFT wrote.
        out: Folder to write; it appears with its report and manifest only when it was verified.
        metric: The metric's section of the merged configuration.
        probe: A real batch of the run, without targets.
        dtype: Type in which the backbone was trained and is saved.
        finish: See `Finish`; None writes a card that knows of no run.

    Returns:
        The report: largest relative difference, its limit, samples compared, type.

    Raises:
        MergeError: The adapter does not fit the base in every tensor, or the merged model differs
            beyond the limit.
    """
    model = LMME3DHF.from_pretrained(base, dtype=torch.float32).eval()
    try:
        adapted = PeftModel.from_pretrained(model, adapter).eval()
    except (KeyError, RuntimeError) as error:
        raise MergeError(
            f"{adapter}: adapter and base {base} do not belong together: {error}"
        ) from error
    _check_adapter(adapted, adapter)
    trained = adapted.peft_config["default"].modules_to_save or ()
    model.missing_parts = [part for part in model.missing_parts if part not in trained]
    before = text_outputs(adapted, probe)
    merged = adapted.merge_and_unload(safe_merge=True)
    merged.config.set_metric(metric)
    return _save_verified(
        merged,
        base,
        out,
        dtype,
        torch.float32,
        lambda m: largest_difference(text_outputs(m, probe), before),
        len(probe["input_ids"]),
        finish,
    )


def merge_head(
    base: Path,
    head: Path,
    out: Path,
    metric: MetricConfig,
    probe: dict[str, torch.Tensor],
    dtype: torch.dtype,
    finish: Finish | None = None,
) -> dict:
    """Puts a head that was trained alone into its base and verifies the folder.

    Args:
        base: Folder of the model whose hidden states the head was trained on.
        head: Its weights, a safetensors file.
        out: Folder to write.
        metric: The metric's section of the merged configuration.
        probe: A real batch of the run, without targets.
        dtype: Type of the backbone in the run.
        finish: As of `merge_adapter`.

    Returns:
        The report, as of `merge_adapter`.

    Raises:
        MergeError: The head does not fit in every tensor, or the scores differ beyond the limit.
    """
    model = LMME3DHF.from_pretrained(base, dtype=dtype).eval()
    weights = load_file(head)
    if set(weights) != set(model.score_head.state_dict()):
        raise MergeError(f"{head}: its tensors are not those of the model's score head")
    model.score_head.load_state_dict(weights)
    model.missing_parts = [part for part in model.missing_parts if part != "score_head"]
    model.config.set_metric(metric)
    before = text_outputs(model, probe)
    return _save_verified(
        model,
        base,
        out,
        dtype,
        dtype,
        lambda m: largest_difference(text_outputs(m, probe), before),
        len(probe["input_ids"]),
        finish,
    )


def merge_decoder(
    base: Path,
    decoder: Path,
    out: Path,
    metric: MetricConfig,
    probe: dict[str, torch.Tensor],
    dtype: torch.dtype,
    finish: Finish | None = None,
) -> dict:
    """Puts a trained saliency decoder into its base and verifies the folder.

    Args:
        base: Folder of the model whose features the decoder was trained on.
        decoder: Its weights, a safetensors file.
        out: Folder to write.
        metric: The metric's section of the configuration, with the decoder's geometry.
        probe: A real batch of views: of `data.collation.view_batch`, with pixels.
        dtype: Type of the backbone in the run.
        finish: As of `merge_adapter`.

    Returns:
        The report, as of `merge_adapter`.

    Raises:
        MergeError: The decoder does not fit its configuration in every tensor, or the maps differ
            beyond the limit.
    """
    model = LMME3DHF.from_pretrained(base, dtype=dtype).eval()
    model.config.set_metric(metric)
    model.add_saliency_decoder(metric.saliency)
    weights = load_file(decoder)
    if set(weights) != set(model.saliency_decoder.state_dict()):
        raise MergeError(
            f"{decoder}: its tensors are not those of the decoder in the run's configuration"
        )
    model.saliency_decoder.load_state_dict(weights)
    before = saliency_outputs(model, probe)
    return _save_verified(
        model,
        base,
        out,
        dtype,
        dtype,
        lambda m: largest_difference(saliency_outputs(m, probe), before),
        len(probe["input_ids"]),
        finish,
    )


@torch.no_grad()
def saliency_outputs(model: LMME3DHF, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The maps of a batch of views with pixels."""
    batch = dict(batch)
    tokens, taps = model.encode_views(batch.pop("pixel_values_videos"), batch["video_grid_thw"])
    return {"maps": model.saliency_decoder(model.view_states(**batch, video_embeds=tokens), taps)}


def _check_adapter(adapted: PeftModel, adapter: Path) -> None:
    # PEFT loads what fits and only warns of the rest: an adapter of another layout would be a
    # silent no-op.
    stored = load_file(adapter / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(adapted)
    foreign, missing = sorted(set(stored) - set(loaded)), sorted(set(loaded) - set(stored))
    changed = [
        name
        for name in set(stored) & set(loaded)
        if not torch.equal(stored[name].float(), loaded[name].float())
    ]
    if foreign or missing or changed:
        raise MergeError(
            f"{adapter}: {len(foreign)} tensors have no place in the base, {len(missing)} are "
            f"missing, {len(changed)} did not load (such as {(foreign + missing + changed)[0]}); "
            "adapter and base do not belong together"
        )


def _save_verified(
    model: LMME3DHF,
    base: Path,
    out: Path,
    dtype: torch.dtype,
    compared_in: torch.dtype,
    compare: Callable[[LMME3DHF], float],
    samples: int,
    finish: Finish | None,
) -> dict:
    if out.exists() and not (out / REPORT).exists():
        raise MergeError(
            f"{out} exists and was not written by a merge; give another --out or move it away"
        )
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    try:
        # The new parts stay in float32.
        model.model.to(dtype)
        model.lm_head.to(dtype)
        model.config.dtype = dtype
        # A part that nobody trained is left out: the folder says by its absence what is to come.
        weights = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if name.split(".")[0] not in model.missing_parts
        }
        model.save_pretrained(partial, state_dict=weights)
        load_processor(base).save_pretrained(partial)
        difference = compare(LMME3DHF.from_pretrained(partial, dtype=compared_in).eval())
        limit = LIMITS[dtype]
        if not difference <= limit:
            raise MergeError(
                f"{out}: the merged model differs from the trained one by {difference:.3g} (limit "
                f"{limit:g}); not kept"
            )
        report = {
            "relative_difference": difference,
            "limit": limit,
            "samples": samples,
            "dtype": str(dtype).removeprefix("torch."),
        }
        if finish is None:
            write_card(partial, NO_RECORD)
        else:
            finish(partial, report)
        write_json(partial / REPORT, report)
        write_manifest(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return report
