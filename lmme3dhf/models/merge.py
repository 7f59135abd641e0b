"""A run's adapter, head or decoder and their base in one loadable folder, proved to be what was
trained.

Two things are verified apart. What is written is compared tensor by tensor with the trained model
in memory: any difference is a mistake, and nothing is kept. What folding the adapter into weights
of a half-precision type rounds away is measured on real samples (`models.rounding`), and decides
the folder's form (`models.weights`): the adapter is folded in where that is within the limits, and
kept beside the weights, exactly, where it is not (departure D13). Weights are read and written
shard by shard; one model is in memory at a time.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from lmme3dhf.errors import UserError
from lmme3dhf.files import write_json, write_manifest
from lmme3dhf.models.card import NO_RECORD, merge_figures, merge_limits, write_card
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.folder import ADAPTER, ADAPTER_WEIGHTS, REPORT
from lmme3dhf.models.loading import chosen_device
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.models.rounding import (
    LIMITS,
    Batch,
    Outputs,
    all_outputs,
    differences,
    largest_difference,
    saliency_outputs,
    text_outputs,
    within,
)
from lmme3dhf.models.weights import (
    Adapter,
    Weights,
    adapter_tensors,
    base_name,
    differing,
    part_of,
    save_adapter,
    type_of,
)

FORMS = ("auto", "merged", "adapter")
SHARD = "2GB"
# Adds to a verified folder what explains it, and to its report, before the manifest is written.
Finish = Callable[[Path, dict], None]


class MergeError(UserError, RuntimeError):
    """What was merged is not what was trained; nothing is left that could be taken for it."""


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """The trained model in memory, and what its folder is made of.

    Attributes:
        model: The model, wrapped in the run's adapter if the run trained one.
        base: Weights of the folder that the run started from.
        dtype: Type of the backbone in the run.
        metric: The metric's section of the configuration.
        new: Tensors that take the place of the base's, or are new: a head or a decoder.
        adapter: Folder of the run's adapter; None without one.
        outputs: What is compared.
    """

    model: LMME3DHF | PeftModel
    base: Weights
    dtype: torch.dtype
    metric: MetricConfig
    new: dict[str, torch.Tensor] = field(default_factory=dict)
    adapter: Path | None = None
    outputs: Callable[[Any, Batch], Outputs]

    @property
    def plain(self) -> LMME3DHF:
        """The model without what PEFT puts around it."""
        return self.model.get_base_model() if self.adapter else self.model


def merge_adapter(
    base: Path,
    adapter: Path,
    out: Path,
    metric: MetricConfig,
    probe: Sequence[Batch],
    dtype: torch.dtype,
    finish: Finish | None = None,
    form: str = "auto",
) -> dict:
    """Merges adapters (and a trained head) with their base and verifies the folder.

    Args:
        base: Folder of the model that was adapted.
        adapter: Folder that PEFT wrote.
        out: Folder to write; it appears with its report and manifest only when it was verified.
        metric: The metric's section of the merged configuration.
        probe: Real batches of the run, without targets (see `text_outputs`).
        dtype: Type in which the backbone was trained and is saved.
        finish: See `Finish`; None writes a card that knows of no run.
        form: "merged": the adapter is folded into the weights. "adapter": it is kept beside them.
            "auto": folded in where the measured difference is within `rounding.LIMITS`.

    Returns:
        The report: `form`, `samples`, `dtype`, `limits`, the differences between the folder's
        model and the trained one (see `rounding.differences`), and in `folded` those that folding
        the adapter in makes.

    Raises:
        MergeError: The adapter does not fit the base in every tensor, an output is no number, the
            folder is not what was trained, or `form` is "merged" and rounds too much.
    """
    if form not in FORMS:
        raise MergeError(f"form {form!r}: one of {', '.join(FORMS)} is expected")
    model = LMME3DHF.from_pretrained(base, dtype=dtype, fold_adapter=True).eval()
    model.set_heads(metric.heads)
    try:
        adapted = PeftModel.from_pretrained(model, adapter).eval()
    except (KeyError, RuntimeError) as error:
        raise MergeError(
            f"{adapter}: adapter and base {base} do not belong together: {error}"
        ) from error
    _check_adapter(adapted, adapter)
    parts = adapted.peft_config["default"].modules_to_save or ()
    model.missing_parts = [part for part in model.missing_parts if part not in parts]
    trained = _Trained(
        model=adapted,
        base=Weights(base, fold=True),
        dtype=dtype,
        metric=metric,
        new={
            name: tensor
            for key, tensor in model.state_dict().items()
            if (name := base_name(key)) and part_of(name) in parts
        },
        adapter=adapter,
        outputs=lambda m, batch: text_outputs(m, batch, metric.level_tokens),
    )
    return _save_verified(trained, base, out, probe, finish, form)


def merge_heads(
    base: Path,
    heads: Path,
    out: Path,
    metric: MetricConfig,
    probe: Sequence[Batch],
    dtype: torch.dtype,
    finish: Finish | None = None,
) -> dict:
    """Puts heads that were trained alone into their base and verifies the folder.

    Args:
        base: Folder of the model whose hidden states they were trained on.
        heads: Their weights, a safetensors file.
        out: Folder to write, of the base's form.
        metric: The metric's section of the merged configuration.
        probe: Real batches of the run, without targets.
        dtype: Type of the backbone in the run.
        finish: As of `merge_adapter`.

    Returns:
        The report, as of `merge_adapter`.

    Raises:
        MergeError: The heads do not fit in every tensor, or the folder is not what was trained.
    """
    model = LMME3DHF.from_pretrained(base, dtype=dtype).eval()
    model.set_heads(metric.heads)
    weights = load_file(heads)
    if set(weights) != set(model.heads.state_dict()):
        raise MergeError(
            f"{heads}: its tensors are not those of the run's heads; merge a run of an earlier "
            "version with the version that trained it"
        )
    model.heads.load_state_dict(weights)
    model.missing_parts = [part for part in model.missing_parts if part == "saliency_decoder"]
    trained = _Trained(
        model=model,
        base=Weights(base),
        dtype=dtype,
        metric=metric,
        new={f"heads.{name}": tensor for name, tensor in weights.items()},
        outputs=lambda m, batch: text_outputs(m, batch, metric.level_tokens),
    )
    return _save_verified(trained, base, out, probe, finish)


def merge_decoder(
    base: Path,
    decoder: Path,
    out: Path,
    metric: MetricConfig,
    probe: Sequence[Batch],
    dtype: torch.dtype,
    finish: Finish | None = None,
) -> dict:
    """Puts a trained saliency decoder into its base and verifies the folder.

    Args:
        base: Folder of the model whose features the decoder was trained on.
        decoder: Its weights, a safetensors file.
        out: Folder to write, of the base's form.
        metric: The metric's section of the configuration, with the decoder's geometry.
        probe: Real batches of views: of `data.collation.view_batch`, with pixels.
        dtype: Type of the backbone in the run.
        finish: As of `merge_adapter`.

    Returns:
        The report, as of `merge_adapter`.

    Raises:
        MergeError: The decoder does not fit its configuration in every tensor, or the folder is not
            what was trained.
    """
    model = LMME3DHF.from_pretrained(base, dtype=dtype).eval()
    model.add_saliency_decoder(metric.saliency)
    weights = load_file(decoder)
    if set(weights) != set(model.saliency_decoder.state_dict()):
        raise MergeError(
            f"{decoder}: its tensors are not those of the decoder in the run's configuration"
        )
    model.saliency_decoder.load_state_dict(weights)
    model.missing_parts = [part for part in model.missing_parts if part != "saliency_decoder"]
    trained = _Trained(
        model=model,
        base=Weights(base),
        dtype=dtype,
        metric=metric,
        new={f"saliency_decoder.{name}": tensor for name, tensor in weights.items()},
        outputs=saliency_outputs,
    )
    return _save_verified(trained, base, out, probe, finish)


def _check_adapter(adapted: PeftModel, adapter: Path) -> None:
    # PEFT loads what fits and only warns of the rest: an adapter of another layout would be a
    # silent no-op.
    if wrong := differing(load_file(adapter / ADAPTER_WEIGHTS), get_peft_model_state_dict(adapted)):
        raise MergeError(
            f"{adapter}: {len(wrong)} tensors have no place in the base, are missing or did not "
            f"load (such as {wrong[0]}); adapter and base do not belong together"
        )


def _save_verified(
    trained: _Trained,
    base: Path,
    out: Path,
    probe: Sequence[Batch],
    finish: Finish | None,
    form: str = "auto",
) -> dict:
    if out.exists() and not (out / REPORT).exists():
        raise MergeError(
            f"{out} exists and was not written by a merge; give another --out or move it away"
        )
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    limits = LIMITS[trained.dtype]
    device = chosen_device()
    try:
        trained.model.to(device)
        expected = all_outputs(trained.model, probe, trained.outputs)
        if not all(tensor.isfinite().all() for tensor in expected.values()):
            raise MergeError(f"{out}: the trained model's outputs are not numbers; train it again")
        folded = None
        kept = trained.plain.metric.adapter
        if trained.adapter:
            rounded = all_outputs(trained.model, probe, trained.outputs, folded=True)
            folded = differences(rounded, expected)
            kept = form == "adapter" or (form == "auto" and not within(folded, limits))
            if not kept and not within(folded, limits):
                raise MergeError(
                    f"{out}: folded into {_type_name(trained.dtype)} weights the adapter rounds "
                    f"too much: {merge_figures(folded)} (limits: {merge_limits(limits)}); not "
                    "kept, --form adapter keeps it beside them, exactly"
                )
        trained.model.to("cpu")
        _write(trained, base, partial, kept)
        if wrong := _wrongly_written(trained, partial, kept):
            raise MergeError(
                f"{out}: {len(wrong)} tensors were written other than trained (such as "
                f"{wrong[0]}); not kept, merge again"
            )
        trained.model.to("meta")  # its memory is free from here on
        model = LMME3DHF.from_pretrained(partial, dtype=trained.dtype).eval().to(device)
        found = all_outputs(model, probe, trained.outputs)
        was, type_ = (expected, torch.float32) if kept or not folded else (rounded, trained.dtype)
        again = largest_difference(found, was)
        if not again <= LIMITS[type_]["relative_difference"]:
            raise MergeError(
                f"{out}: the model that was written reads back differently (by {again:.3g}, "
                "relative); not kept"
            )
        report = {
            "form": "adapter" if kept else "merged",
            "samples": sum(len(batch["input_ids"]) for batch in probe),
            "dtype": _type_name(trained.dtype),
            **differences(found, expected),
            "limits": limits,
            "folded": folded,
        }
        if finish is None:
            write_card(partial, NO_RECORD)
        else:
            finish(partial, report)
        write_json(partial / REPORT, report)
        write_manifest(partial)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = " ".join(str(error).split())[:300]
        raise MergeError(
            f"{out}: not written ({reason}); make room or check the folder, or give another --out"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return report


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write(trained: _Trained, base: Path, folder: Path, kept: bool) -> None:
    """Writes the model folder, one shard of the weights in memory at a time."""
    model, dtype = trained.plain, trained.dtype
    model.config.set_metric(trained.metric.replace(adapter=kept))
    model.config.dtype = dtype
    model.config.architectures = [type(model).__name__]
    folder.mkdir(parents=True)
    # A report without a manifest says that the folder was not finished, also after a kill.
    write_json(folder / REPORT, {"form": None})
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    load_processor(base).save_pretrained(folder)
    # A model without a decoder, or without a head, may come from a folder with one.
    there = {part_of(key) for key in map(base_name, model.state_dict()) if key}
    names = {
        key: name
        for name, key in trained.base.keys.items()
        if name not in trained.new and part_of(name) in there
    } | {name: name for name in trained.new}

    def size(key: str) -> int:
        new = trained.new.get(names[key])
        shape = trained.base.shape(names[key]) if new is None else new.shape
        return math.prod(shape) * type_of(names[key], dtype).itemsize

    plan = split_state_dict_into_shards_factory(
        {key: size(key) for key in names},
        get_storage_size=lambda size: size,
        filename_pattern=SAFE_WEIGHTS_NAME.replace(".safetensors", "{suffix}.safetensors"),
        max_shard_size=SHARD,
    )
    need, free = sum(map(size, names)), shutil.disk_usage(folder).free
    if need > free:
        raise MergeError(
            f"{folder.parent}: the weights need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free; make room, or give another --out"
        )
    update = Adapter(trained.adapter) if trained.adapter and not kept else None
    for file, keys in plan.filename_to_tensors.items():
        tensors = {}
        for key in keys:
            new = trained.new.get(names[key])
            read = trained.base.read(names[key], dtype, update) if new is None else new.float()
            tensors[key] = read.contiguous()
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, index)
    if kept:
        save_adapter(model, folder / ADAPTER)


def _wrongly_written(trained: _Trained, folder: Path, kept: bool) -> list[str]:
    """Names of tensors in a written folder that are not the trained model's, with PEFT's own
    update.
    """
    model, written = trained.plain, Weights(folder)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer) and not kept}
    expected = {}
    for key, tensor in model.state_dict().items():
        name = base_name(key)
        if name and part_of(name) not in model.missing_parts:
            expected[name] = tensor
    absent = expected.keys() ^ written.keys.keys()
    if model.config.tie_word_embeddings:
        absent -= {"lm_head.weight"}
    wrong = sorted(absent)
    for name in expected.keys() & written.keys.keys():
        tensor = expected[name]
        if layer := layers.get(name.removesuffix(".weight")):
            tensor = (tensor.float() + layer.get_delta_weight("default")).to(tensor.dtype)
        if not torch.equal(written.read(name, trained.dtype), tensor):
            wrong.append(name)
    if kept:
        wrong += differing(load_file(folder / ADAPTER / ADAPTER_WEIGHTS), adapter_tensors(model))
    return wrong
