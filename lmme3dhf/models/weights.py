"""The weights of a model folder, read tensor by tensor, and the low-rank update of an adapter.

A model folder comes in two forms. `merged`: the updates of its stages are folded into its weights.
`adapter`: the update of the last stage is kept beside them, in `adapter/`, and added in each
forward pass; `metric.adapter` in config.json says so. Folding one adds B A * scale to a weight in
float32 and casts the sum last. Whoever needs that sum takes it from here: merging, training that
starts from a folder of the second form, and the hashes of stored features.
"""

import copy
import json
import math
import re
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lmme3dhf.models.folder import (
    ADAPTER,
    ADAPTER_CONFIGURATION,
    ADAPTER_WEIGHTS,
    CONFIGURATION,
    ModelError,
    weight_files,
)

# Checkpoints name their parts `visual.*` and `model.layers.*`; the modules are `model.visual.*` and
# `model.language_model.*`. The library renames for its own classes only.
KEY_MAPPING = {
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual))": "model.language_model",
    # Folders of versions that had one head.
    r"^score_head\.": "heads.score.",
}
NEW_PARTS = ("heads", "saliency_decoder")
_PEFT_PREFIX = "base_model.model."
# Fields of an adapter's configuration that do not change what a finished one computes.
_NO_COMPUTATION = (
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "target_modules", "modules_to_save", "peft_version"),
)


def _plain_lora(folder: Path) -> LoraConfig:
    """Configuration of an adapter whose update is scale * B A and that changes nothing else.

    Raises:
        ModelError: It is missing or damaged, or sets more.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        plain = LoraConfig(r=config.r, lora_alpha=config.lora_alpha)
        whole = config.r >= 1 and math.isfinite(config.lora_alpha)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, error) from error
    values, usual = config.to_dict(), plain.to_dict()
    more = [k for k in values if k not in _NO_COMPUTATION and values[k] != usual.get(k)]
    if more or not whole:
        raise ModelError(
            f"{folder / ADAPTER_CONFIGURATION}: {more[0] if more else 'r or lora_alpha'} is set to "
            "something that lmme3dhf does not train; only plain LoRA (r, lora_alpha, "
            "target_modules) can be read, merge the run again"
        )
    return config


def _damaged(folder: Path, error: Exception) -> ModelError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ModelError(
        f"{folder}: not a whole adapter ({reason}); restore the folder, or merge the run again"
    )


class Adapter:
    """A LoRA adapter's update of each weight that it adapts.

    Args:
        folder: In PEFT's layout, as `add_adapters` and PEFT write it.

    Attributes:
        factors: Name of a module -> B (out, rank) and A (rank, in), float32.
        scale: Factor of the product B A.

    Raises:
        ModelError: A file is missing or damaged, or the update is not the plain scale * B A.
    """

    def __init__(self, folder: Path) -> None:
        config = _plain_lora(folder)
        try:
            tensors = load_file(folder / ADAPTER_WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise _damaged(folder, error) from error
        self.scale = config.lora_alpha / config.r
        self.factors = {}
        for key, a in tensors.items():
            if key.endswith(".lora_A.weight"):
                module = key.removeprefix(_PEFT_PREFIX).removesuffix(".lora_A.weight")
                b = tensors.get(key.replace(".lora_A.", ".lora_B."))
                if b is None:
                    raise ModelError(f"{folder}: {key} has no lora_B; merge the run again")
                self.factors[module] = (b.float(), a.float())  # as PEFT multiplies them

    def update(self, name: str) -> torch.Tensor | None:
        """What is added to a weight, float32; None where it is not adapted.

        Args:
            name: Name of the weight in the model.
        """
        module = name.removesuffix(".weight")
        if module not in self.factors or module == name:
            return None
        b, a = self.factors[module]
        return b @ a * self.scale


class Weights:
    """The tensors in a folder's safetensors files, by their names in the model; the files are
    mapped into memory and read when asked for.

    Args:
        folder: A model folder.
        fold: Add the kept adapter's update where the folder has one.

    Attributes:
        keys: Name in the model -> name in the files.
        adapter: The kept adapter that is folded in; None without one.

    Raises:
        ModelError: A file is missing or damaged.
    """

    def __init__(self, folder: Path, *, fold: bool = False) -> None:
        self.folder = Path(folder)
        self.keys: dict[str, str] = {}
        self._files = {}
        try:
            for shard in weight_files(self.folder):
                file = safe_open(self.folder / shard, framework="pt")
                for key in file.keys():  # noqa: SIM118 (not a dictionary)
                    self.keys[model_name(key)] = key
                    self._files[model_name(key)] = file
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{self.folder}: a weights file is damaged ({error}); restore it"
            ) from error
        kept = kept_adapter(self.folder)
        self.adapter = Adapter(kept) if fold and kept else None

    def shape(self, name: str) -> list[int]:
        """Shape of a tensor, without reading it."""
        return self._files[name].get_slice(self.keys[name]).get_shape()

    def read(self, name: str, dtype: torch.dtype, update: Adapter | None = None) -> torch.Tensor:
        """A tensor in the type that it has in the model: `dtype`, the new parts float32.

        Args:
            name: Its name in the model.
            dtype: Type of the backbone.
            update: An adapter that was trained on the result (see above), folded in too.
        """
        try:
            tensor = self._files[name].get_tensor(self.keys[name])
        except SafetensorError as error:
            raise ModelError(
                f"{self.folder}: {self.keys[name]} cannot be read ({error}); restore its file"
            ) from error
        dtype = type_of(name, dtype)
        for adapter in (self.adapter, update):
            delta = adapter.update(name) if adapter else None
            tensor = (tensor if delta is None else tensor.float() + delta).to(dtype)
        return tensor


def kept_adapter(folder: Path) -> Path | None:
    """Folder of the adapter that a model folder keeps beside its weights; None without one.

    Raises:
        ModelError: The adapter and `metric.adapter` in config.json contradict each other.
    """
    kept, config = folder / ADAPTER, folder / CONFIGURATION
    try:
        section = json.loads(config.read_bytes()).get("metric") if config.is_file() else None
        wanted = bool((section or {}).get("adapter"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{config}: cannot be read ({error}); restore it") from error
    if wanted != kept.is_dir():
        what = "is missing" if wanted else "stands beside weights that need none"
        raise ModelError(
            f"{kept}: the adapter {what} by {CONFIGURATION} (metric.adapter is {wanted}); "
            "config.json and weights are of different merges, merge the run again"
        )
    return kept if wanted else None


def model_name(key: str) -> str:
    """Name in the model of a tensor in a checkpoint's files."""
    for pattern, name in KEY_MAPPING.items():
        key = re.sub(pattern, name, key)
    return key


def type_of(name: str, dtype: torch.dtype) -> torch.dtype:
    """Type of a tensor in a model whose backbone is of `dtype`: the new parts are float32."""
    return torch.float32 if name.split(".")[0] in NEW_PARTS else dtype


def part_of(name: str) -> str | None:
    """The new part of a tensor, "heads.NAME" or "saliency_decoder"; None for the backbone's."""
    first, _, rest = name.partition(".")
    if first not in NEW_PARTS:
        return None
    return f"heads.{rest.partition('.')[0]}" if first == "heads" else first


def base_name(key: str) -> str | None:
    """Name that a tensor of a model with adapters has without them; None for what is an adapter's
    alone.
    """
    if ".lora_" in key or ".original_module." in key:
        return None
    return key.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")


def keep_adapter(model: nn.Module, folder: Path) -> None:
    """Puts the kept adapter of a model folder onto its model, frozen and in float32 as it was
    trained.

    Args:
        model: The model, perhaps without its vision tower; changed in place.
        folder: The adapter.

    Raises:
        ModelError: It is damaged, or does not fit in every tensor.
    """
    config = _plain_lora(folder)
    try:
        tensors = {
            key.removeprefix(_PEFT_PREFIX): tensor
            for key, tensor in load_file(folder / ADAPTER_WEIGHTS).items()
        }
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, error) from error
    modules = {name for name, module in model.named_modules() if module is not None}
    # A model without its tower, or a tower alone, has no place for the rest.
    tensors = {k: t for k, t in tensors.items() if ".".join(k.split(".")[:2]) in modules}
    if not tensors:
        return
    config.inference_mode = True
    try:
        inject_adapter_in_model(config, model)
        placed = {name: p for name, p in model.named_parameters() if ".lora_" in name}
        for parameter in placed.values():
            # PEFT gives them the type of the weights beside them, which would round what is loaded.
            parameter.data = parameter.data.float()
            parameter.requires_grad_(False)
        set_peft_model_state_dict(model, dict(tensors))
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: adapter and weights do not belong together ({str(error).splitlines()[0]})"
        ) from error
    named = {_PEFT_PREFIX + name: tensor for name, tensor in tensors.items()}
    if wrong := differing(named, adapter_tensors(model)):
        raise ModelError(
            f"{folder}: {len(wrong)} tensors have no place in the model, are missing or did not "
            f"load (such as {wrong[0]}); adapter and weights do not belong together"
        )


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that only one has, or whose shapes or values differ."""
    return sorted(
        name
        for name in a.keys() | b.keys()
        if name not in a or name not in b or not torch.equal(a[name].float(), b[name].float())
    )


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapter of a model under the names that PEFT gives it in a file, on the CPU."""
    return {
        _PEFT_PREFIX + name.replace(".default.", "."): parameter.data.cpu().contiguous()
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Writes the adapter of a model alone, without the head that was trained along and without the
    path of what it was trained on.

    Args:
        model: A model with PEFT adapters on it.
        folder: To write, in PEFT's layout.
    """
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path = config.modules_to_save = config.auto_mapping = None
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(adapter_tensors(model), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
