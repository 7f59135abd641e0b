"""How a model is loaded to be trained or to score: type, device, attention kernel, quantisation.

Quantisation is that of the language model's linear layers alone (QLoRA: NF4 with double
quantisation, or LLM.int8). The vision tower, its merger, the LM head, the score head and the
saliency decoder keep their types: they are small, and scores and stored features must not depend on
it. The adapters that are trained on a quantised model are merged into the unquantised one.

peft's `prepare_model_for_kbit_training` is not called: it casts whatever is not quantised to
float32 (3.5 GB more at 7B) and makes embeddings require gradients, which hooks the vision tower's
input too. Adapters and heads are float32 without it, and the rest is frozen by the adapters.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig

from lmme3dhf import distributed
from lmme3dhf.models.folder import ModelError
from lmme3dhf.models.modeling import LMME3DHF, load_configuration

QUANTIZATIONS = ("none", "8bit", "4bit")
# How a scorer loads a model -> the backbone's type, and the quantisation.
_LOADS = {
    None: (None, "none"),
    "bf16": ("bfloat16", "none"),
    "8bit": (None, "8bit"),
    "4bit": (None, "4bit"),
}
_DTYPES = ("auto", "float32", "bfloat16", "float16")
UNQUANTIZED = ("model.visual", "lm_head", "heads", "saliency_decoder")


def load_model(
    folder: str | Path,
    *,
    dtype: str = "auto",
    attn_implementation: str = "auto",
    quantization: str = "none",
    tower: bool = True,
    device: str = "auto",
    fold_adapter: bool = False,
) -> LMME3DHF:
    """Loads a model, ready for evaluation, onto its device.

    Parts that the folder does not have start from torch's random state (see `missing_parts`).

    Args:
        folder: The model.
        dtype: Of the backbone: float32, bfloat16, float16, or "auto" for the stored one; heads are
            float32 always.
        attn_implementation: The vision tower's attention kernel: sdpa, flash_attention_2, or "auto"
            for flash attention where it is installed and works. Which one it is, is told on
            standard error where there was a choice. The language model's is always sdpa.
        quantization: Of the language model: none, 8bit or 4bit.
        tower: False leaves the vision tower out, for what is done on stored features.
        device: "auto" takes a GPU where there is one: with several ranks each its own.
        fold_adapter: Fold a kept adapter into the weights, for training another (see
            `models.weights`).

    Raises:
        ModelError: The folder is no model, there is no such device, or a kernel or quantisation
            does not work here.
    """
    target = chosen_device(device)
    if dtype == "auto":
        dtype = str(load_configuration(folder).dtype or torch.float32).removeprefix("torch.")
    type_ = getattr(torch, dtype)
    options = {}
    if quantization != "none":
        options = {
            "quantization_config": _quantization(quantization, type_),
            "device_map": {"": target},
        }
    vision = tower_attention(attn_implementation, target, type_) if tower else "sdpa"
    model = LMME3DHF.from_pretrained(
        folder,
        dtype=type_,
        attn_implementation={"": "sdpa", "vision_config": vision, "text_config": "sdpa"},
        tower=tower,
        fold_adapter=fold_adapter,
        **options,
    )
    if not options:
        model.to(target)
    return model.eval()


def loading_options(load: str | None, dtype: str) -> tuple[str, str]:
    """Type and quantisation, as `load_model` takes them.

    Args:
        load: bf16, 8bit, 4bit, or None for what the type says.
        dtype: Of the backbone, or auto.

    Raises:
        ModelError: An unknown word, or two that contradict each other.
    """
    if load not in _LOADS:
        raise ModelError(f"load={load!r}, expected bf16, 8bit, 4bit, or None for the stored type")
    if dtype not in _DTYPES:
        raise ModelError(f"dtype={dtype!r}, expected one of {', '.join(_DTYPES)}")
    wanted, quantization = _LOADS[load]
    if wanted is not None and dtype not in ("auto", wanted):
        raise ModelError(f"load={load!r} means {wanted}, and dtype is {dtype}; give one of the two")
    return wanted or dtype, quantization


def chosen_device(name: str = "auto") -> torch.device:
    """The device of this rank, as of `load_model`."""
    distributed.start()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # "cuda" becomes this rank's "cuda:3".
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name}: {reason}; give auto or cpu") from error
    return device


def _quantization(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if kind not in QUANTIZATIONS:
        raise ModelError(f"quantization must be one of {', '.join(QUANTIZATIONS)}, got {kind!r}")
    if not importlib.util.find_spec("bitsandbytes"):
        raise ModelError(
            f"quantization {kind} needs bitsandbytes, which is not installed: pip install "
            "'lmme3dhf[quant]', or set quantization to none"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(UNQUANTIZED))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(UNQUANTIZED),
    )


def tower_attention(wanted: str, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel that is taken: what is wanted and works."""
    if wanted not in ("auto", "flash_attention_2"):
        return wanted
    problem = flash_attention_problem(device, dtype)
    if problem and wanted != "auto":
        raise ModelError(f"attn_implementation {wanted}: {problem}; give auto or sdpa")
    if device.type == "cuda" and distributed.is_main():
        taken = f"sdpa ({problem})" if problem else "flash_attention_2"
        print(f"attention of the vision tower: {taken}", file=sys.stderr)
    return "sdpa" if problem else "flash_attention_2"


def flash_attention_problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why flash attention does not work here; None when it does.

    It is tried: a build for another torch or another GPU imports and fails, or does not import.
    """
    if device.type != "cuda":
        return f"flash attention needs an NVIDIA GPU, and the model is on {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"flash attention computes in bfloat16 or float16, and the model is {dtype}"
    try:
        from flash_attn import flash_attn_varlen_func

        # Two windows of 4 patches, one head as wide as the 7B's.
        qkv = torch.zeros(8, 1, 80, device=device, dtype=dtype)
        ends = torch.tensor([0, 4, 8], device=device, dtype=torch.int32)
        flash_attn_varlen_func(qkv, qkv, qkv, ends, ends, 4, 4)
        torch.cuda.synchronize(device)
    except (ImportError, OSError, RuntimeError) as error:
        return f"flash_attn does not work: {str(error).splitlines()[0]}"
    return None
