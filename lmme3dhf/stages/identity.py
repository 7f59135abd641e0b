"""Whether a run folder is the run that is asked for: which settings decide a result, and what the
training data hold.
"""

import hashlib
import json
from typing import Any

from lmme3dhf.aspects import aspects_from, aspects_of
from lmme3dhf.config import Config
from lmme3dhf.data.readers import list_samples
from lmme3dhf.files import Hashes
from lmme3dhf.stages.provenance import scrubbed

_BATCH, _SPLIT = "per_device_train_batch_size", "gradient_accumulation_steps"
_STEP = "clips or questions in a step (micro-batch x accumulation x processes)"
_COMPARED = "its content is compared instead"
_ROUNDING = "up to rounding"

# Settings that do not decide the result of a stage -> why. Every other setting decides, also one
# that this table does not know. A section's name stands for all that is in it.
HARMLESS = {
    "model": _COMPARED,
    "data.root": _COMPARED,
    "data.video_root": _COMPARED,
    "data.features": "a store holds what the model and the clips give",
    "data.workers": "clips are decoded alike in any process",
    "synthetic": "the clips and labels that it draws are compared instead",
    "verify": "a check",
    "threads": _ROUNDING,
    "batch_size": _ROUNDING,
}
# The same of fields of TrainingArguments.
HARMLESS_FIELDS = {
    _BATCH: "up to rounding and dropout's draws; its product with accumulation is compared",
    _SPLIT: "see per_device_train_batch_size",
    "gradient_checkpointing": "computes activations again in place of keeping them",
    "gradient_checkpointing_kwargs": "see gradient_checkpointing",
    "dataloader_num_workers": "batches are the same from any process",
    "dataloader_prefetch_factor": "see dataloader_num_workers",
    "dataloader_persistent_workers": "see dataloader_num_workers",
    "dataloader_pin_memory": "where batches lie in memory",
    "logging_steps": "what is written",
    "logging_strategy": "what is written",
    "logging_first_step": "what is written",
    "report_to": "what is written",
    "run_name": "what is written",
    "save_total_limit": "what is kept",
    "per_device_eval_batch_size": _ROUNDING,
}
# Likewise, unless the best checkpoint is kept (`load_best_model_at_end`).
_HARMLESS_UNSELECTED = {
    "save_steps": "what is written",
    "save_strategy": "what is written",
    "eval_strategy": "when it is validated",
    "eval_steps": "when it is validated",
    "eval_delay": "when it is validated",
    "eval_on_start": "when it is validated",
    "metric_for_best_model": "no checkpoint is selected",
    "greater_is_better": "no checkpoint is selected",
}
STAGES = ("text", "score", "saliency")


def trainer_settings(settings: dict[str, Any], stage: str) -> dict[str, Any]:
    """Fields of `TrainingArguments` that a stage trains with, by the settings as plain values;
    `hardware` is for stages that train adapters.
    """
    adapted = settings["lora"]["language"] or settings["lora"]["vision"]
    hardware = settings["hardware"] if stage != "saliency" and adapted else {}
    return settings[stage]["trainer"] | hardware


def changes(
    old: dict[str, Any], new: dict[str, Any], stage: str, processes: tuple[int, int] = (1, 1)
) -> tuple[dict[str, str], dict[str, str]]:
    """What differs between two settings (as plain values) for a stage: dotted name -> "old -> new",
    first what decides its result, then what does not. Other stages' sections are not compared.
    `processes` is how many train together, before and now.
    """
    before, now = (
        _flat(settings, stage, ranks) for settings, ranks in zip((old, new), processes, strict=True)
    )
    fields = HARMLESS_FIELDS
    if not any(side.get("trainer.load_best_model_at_end") for side in (before, now)):
        fields = fields | _HARMLESS_UNSELECTED
    deciding: dict[str, str] = {}
    harmless: dict[str, str] = {}
    for name in sorted(before.keys() | now.keys()):
        was, becomes = before.get(name), now.get(name)
        if was != becomes:
            section, _, field = name.partition(".")
            if section == "trainer":
                reason = fields.get(field)
            else:
                reason = HARMLESS.get(name) or HARMLESS.get(section)
            change = f"{was} -> {becomes}"
            if reason:
                harmless[name] = f"{change} (the result is the same: {reason})"
            else:
                deciding[name] = change
    return deciding, harmless


def data_content(config: Config, stage: str, lists: list[str]) -> dict[str, Any]:
    """What a stage learns from, wherever it is stored: `lists` (name -> `rows` and SHA-256 of the
    `questions` and the `labels`, in order), and SHA-256 of the `clips` (names and sizes), of
    `levels.json` where the stage reads it, and of the `maps` (None where there are none).
    """
    data = config.data.resolved()
    aspects = aspects_of(data.root, config.aspects and aspects_from(config.aspects))
    listed, clips, videos = {}, {}, set()
    for number, name in enumerate(lists):
        samples = list_samples(
            [name], folder=data.root, root=data.video_root, aspects=aspects, allow_outside=True
        )
        for sample in samples:
            videos.add(sample.video)
            clips[sample.video] = sample.path.stat().st_size if sample.path.is_file() else None
        # The record is published with the model, so it holds no folder of this machine.
        shown = scrubbed(str(name))
        listed[f"{shown} ({number})" if shown in listed else shown] = {
            "rows": len(samples),
            "questions": _sha256([[s.video, s.task, s.prompt] for s in samples]),
            "labels": _sha256([[s.reply, s.mos, s.level] for s in samples]),
        }
    files = []
    if stage == "score":
        files = [data.root / "levels.json"]
    elif stage == "saliency":
        files = [data.root / config.saliency.maps / f"{video}.png" for video in sorted(videos)]
    hashes = Hashes().of(path for path in files if path.is_file())
    extra = _sha256([[path.name, sha256] for path, sha256 in hashes.items()]) if hashes else None
    return {
        "lists": listed,
        "clips": _sha256(sorted(clips.items())),
        "levels": extra if stage == "score" else None,
        "maps": extra if stage == "saliency" else None,
    }


def content_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two `data_content`, as short sentences."""
    found = []
    for name in sorted(old["lists"].keys() & new["lists"].keys()):
        was, now = old["lists"][name], new["lists"][name]
        if was["rows"] != now["rows"]:
            found.append(f"{name}: {was['rows']} rows before, {now['rows']} now")
        elif was["questions"] != now["questions"]:
            found.append(f"{name}: {now['rows']} rows as before, with other clips or questions")
        elif was["labels"] != now["labels"]:
            found.append(f"{name}: {now['rows']} rows as before, with other labels")
    named = {
        "clips": "clips: other names or sizes",
        "levels": "levels.json: other content",
        "maps": "saliency maps: other content",
    }
    return found + [words for key, words in named.items() if old.get(key) != new.get(key)]


def _flat(settings: dict[str, Any], stage: str, processes: int) -> dict[str, Any]:
    """Dotted name -> value; what is trained with stands below `trainer`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key in STAGES or key == "hardware":
            continue
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    own = {name: item for name, item in settings[stage].items() if name != "trainer"}
    flat |= {f"{stage}.{name}": item for name, item in own.items()}
    fields = trainer_settings(settings, stage)
    # The defaults are those of TrainingArguments.
    flat[_STEP] = fields.get(_BATCH, 8) * fields.get(_SPLIT, 1) * processes
    return flat | {f"trainer.{name}": item for name, item in fields.items()}


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
