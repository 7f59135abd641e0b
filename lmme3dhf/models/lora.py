"""Low-rank adapters on the backbone (Section 4.2; Table 5)."""

import re
from collections.abc import Sequence

from peft import LoraConfig, PeftModel, get_peft_model

from lmme3dhf.models.modeling import LMME3DHF

# Module names of transformers 5. In older layouts the same patterns would reach other modules, or
# none, without a word.
_LANGUAGE = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
_VISION = r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"


def lora_targets(*, language: bool, vision: bool) -> str:
    """Regular expression for the names of the adapted linear layers."""
    return "|".join(
        pattern for pattern, wanted in ((_LANGUAGE, language), (_VISION, vision)) if wanted
    )


def add_adapters(
    model: LMME3DHF,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    language: bool,
    vision: bool,
    heads: Sequence[str] = (),
) -> PeftModel:
    """Freezes the model and adds trainable adapters.

    Args:
        model: Changed in place.
        rank: Rank of the update; 8 at 7B adapts 196 layers with 20,185,088 parameters.
        alpha: The update is scaled by alpha / rank.
        dropout: On the adapters' input.
        language: Adapt the language model.
        vision: Adapt the vision tower.
        heads: Names of heads to train along; they are saved, resumed and merged with the adapters.

    Raises:
        ValueError: No layer has an expected name, or the model has an adapter already.
    """
    if getattr(model, "peft_config", None):
        raise ValueError(
            f"{model.name_or_path}: has a kept adapter; load it with fold_adapter=True to train "
            "another"
        )
    if not (language or vision):
        raise ValueError("neither the language model nor the vision tower is to be adapted")
    pattern = lora_targets(language=language, vision=vision)
    if not any(re.fullmatch(pattern, name) for name, _ in model.named_modules()):
        raise ValueError(
            f"no layer of {type(model).__name__} matches {pattern}: this is not transformers 5's "
            "Qwen2.5-VL"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=pattern,
        modules_to_save=[f"heads.{name}" for name in heads] or None,
        bias="none",
    )
    return get_peft_model(model, config)
