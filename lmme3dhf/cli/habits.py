"""What the released scripts were told, in our words: options of ms-swift and old names of settings.

`cli.scripts` translates with these tables, and the verbs name what is meant by an unknown option.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmme3dhf.config import REMOVED_FIELDS
from lmme3dhf.errors import UserError


class OldHabitError(UserError):
    """Something that the released scripts took and that is done otherwise here."""


@dataclass(frozen=True)
class Old:
    """What became of an option of the released scripts.

    Attributes:
        ours: The same option here, with {stage} for the stage's name; "" where there is none.
        values: Old value -> ours; a value that is not in it stays as it is.
        fine: Values that need no option, for it is done so here anyway; None where all do.
        instead: How it is done here, for every other value.
        shape: What the value becomes: "{}" for itself, with {result} for the script's result.
        also: More words, where the option is given.
        many: Whether it takes several values, separated by spaces or commas.
    """

    ours: str = ""
    values: dict[str, str] = field(default_factory=dict)
    fine: tuple[str, ...] | None = ()
    instead: str = ""
    shape: str = "{}"
    also: tuple[str, ...] = ()
    many: bool = False


_SWAPPED = {"true": "false", "false": "true"}
_AS_TRAINER = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "dataloader_num_workers",
    "deepspeed",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "learning_rate",
    "logging_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "num_train_epochs",
    "optim",
    "per_device_train_batch_size",
    "report_to",
    "save_strategy",
    "save_total_limit",
    "warmup_steps",
    "weight_decay",
)
_TRAINER = "--{stage}.trainer."
_VALIDATION = (
    "each epoch is validated on the val lists beside the train lists (trainer.eval_strategy and "
    "trainer.eval_steps change when); evaluate/inference_precise.sh evaluates afterwards"
)
# ms-swift's `sft`, as train_LLM.sh and train_MLP.sh of the release called it.
TRAINING = {
    "lora_rank": Old("--lora.rank"),
    "lora_alpha": Old("--lora.alpha"),
    "lora_dropout": Old("--lora.dropout"),
    "freeze_vit": Old("--lora.vision", _SWAPPED),
    "freeze_llm": Old("--lora.language", _SWAPPED),
    "freeze_aligner": Old(fine=("true",), instead="the merger between tower and LLM is frozen"),
    "target_modules": Old(
        fine=("all-linear",),
        instead="all linear layers are adapted; choose with --lora.language, --lora.vision",
    ),
    "train_type": Old(fine=("lora",), instead="what is trained is LoRA, and the head in stage 2"),
    "tuner_type": Old(fine=("lora",), instead="what is trained is LoRA, and the head in stage 2"),
    "torch_dtype": Old("--dtype"),
    "attn_impl": Old("--attn_implementation", {"flash_attn": "flash_attention_2"}),
    "quant_bits": Old("--quantization", {"4": "4bit", "8": "8bit"}),
    "quant_method": Old(fine=("bnb",), instead="--quantization 8bit or 4bit, by bitsandbytes"),
    "max_pixels": Old("--frames.max_pixels"),
    "dataset": Old("--{stage}.lists", many=True),
    "output_dir": Old("--out", shape="{}/{result}"),
    "save_steps": Old(_TRAINER + "save_steps", also=(_TRAINER + "save_strategy", "steps")),
    "warmup_ratio": Old(_TRAINER + "warmup_steps"),
    **{name: Old(_TRAINER + name) for name in _AS_TRAINER},
    "val_dataset": Old(fine=None, instead=_VALIDATION, many=True),
    "eval_steps": Old(fine=None, instead=_VALIDATION),
    "eval_strategy": Old(fine=None, instead=_VALIDATION),
    "evaluation_strategy": Old(fine=None, instead=_VALIDATION),
    "per_device_eval_batch_size": Old(fine=None, instead=_VALIDATION),
    "split_dataset_ratio": Old(
        fine=("0", "0.0"), instead="lmme3dhf data splits writes splits that share no face"
    ),
    "max_length": Old(fine=None, instead="a sequence is never cut"),
    "system": Old(
        fine=("You are a helpful assistant.",),
        instead="the system message is Qwen2.5-VL's own, in training and in scoring",
    ),
    "model_author": Old(fine=None, instead="no card is made of it"),
    "model_name": Old(fine=None, instead="no card is made of it"),
    "overwrite_output_dir": Old(fine=("false",), instead=REMOVED_FIELDS["overwrite_output_dir"]),
    "resume_from_checkpoint": Old(instead="the same command goes on where it stopped"),
}
# ms-swift's `export`.
MERGING = {
    "adapter": Old("RUN"),
    "adapters": Old("RUN"),
    "merge_lora": Old(fine=("true",), instead="merging is all that this script does"),
    "output_dir": Old("--out"),
}
# inference_precise.py of the release.
INFERENCE = {
    "self_model": Old("--model"),
    "val_dataset": Old("--data", many=True),
    "dataset": Old("--data", many=True),
    "output_dir": Old("--out", shape="{}/{result}"),
    "max_new_tokens": Old(fine=None, instead="a reply is as long as it needs to be"),
    "temperature": Old(fine=("0", "0.0"), instead="nothing is sampled"),
}


def translated_words(
    words: Sequence[str], table: Mapping[str, Old], *, stage: str = "", result: str = ""
) -> tuple[list[str], list[str]]:
    """A released script's words in ours; ours stay.

    Args:
        words: What the script was given.
        table: Old option, without dashes -> what became of it.
        stage: Of training: text, score or saliency.
        result: Name of what the script leaves in the folder of an `--output_dir`.

    Returns:
        The words, and notes on what was left out.

    Raises:
        OldHabitError: Some have no place here, each with what is done in its place.
    """
    run: list[str] = []
    ours: list[str] = []
    idle: dict[str, list[str]] = {}
    refused: list[str] = []
    groups = list(_grouped(words))
    with_base = "--self_model" in {name for name, _ in groups}
    for name, values in groups:
        old = table.get(name[2:].replace("-", "_"))
        if name == "--model" and with_base:
            idle["the model that --self_model names is whole"] = [name]
            continue
        if old is None:
            ours += [*([name] if name else []), *values]
            continue
        if old.many:
            values, rest = [p for v in values for p in re.split(r"[,\s]+", v) if p], []
        else:
            values, rest = values[:1], values[1:]
        value = "".join(values[:1]) or "true"
        if old.ours == "RUN":  # an argument here; released with nothing after it
            run += values
        elif old.ours:
            ours += _ours(old, value, values, stage, result)
        elif old.fine is None:
            idle.setdefault(old.instead, []).append(name)
        elif not {value, value.lower()} & set(old.fine):
            refused.append(f"{name} {value}: {old.instead}")
        ours += rest
    if refused:
        raise OldHabitError("; ".join(refused))
    notes = [f"left out: {', '.join(names)} ({why})" for why, names in idle.items()]
    return [*run, *ours], notes


def _ours(old: Old, value: str, values: list[str], stage: str, result: str) -> list[str]:
    option, *also = (word.format(stage=stage) for word in (old.ours, *old.also))
    if option.endswith(".lists"):  # ours start at the data's folder, theirs where one stands
        return [option, json.dumps([str(Path(path).absolute()) for path in values])]
    if old.many:
        return [option, *values]
    value = old.values.get(value.lower(), value)
    return [option, old.shape.format(value, result=result), *also]


def _grouped(words: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Options with their values; ("", [word]) for what stands before the first one."""
    name, values = "", []
    for word in words:
        if not word.startswith("--"):
            values.append(word)
            continue
        if name or values:
            yield name, values
        name, equals, value = word.partition("=")
        values = [value] if equals else []
    if name or values:
        yield name, values


def in_our_words(name: str, known: Iterable[str]) -> str | None:
    """How to say what an option of the released scripts or of transformers 4 said; None for a name
    that neither had.

    Args:
        name: The unknown option.
        known: Options of the verb that it was given to.
    """
    plain, known = name.lstrip("-").replace("-", "_"), set(known)
    training = "--text.trainer" in known
    for table in (TRAINING,) if training else (INFERENCE, MERGING):
        old = table.get(plain)
        if old is None:
            continue
        if old.ours == "RUN":
            return "the run is given without an option" if known >= {"--out"} else None
        if "{stage}" in old.ours:
            return f"here it is {old.ours.format(stage='STAGE')}, with text, score or saliency"
        if not old.ours or old.ours in known:
            return f"here it is {old.ours}" if old.ours else old.instead
    if training and plain in REMOVED_FIELDS:
        return (
            f"transformers 5 has no such field; below --STAGE.trainer give {REMOVED_FIELDS[plain]}"
        )
    return None
