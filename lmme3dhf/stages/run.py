"""What the stages share: the run folder, the model to start from, dialogues with their visual
tokens, training adapters on them, and merging a run.

A run folder records what it started from (`run.json`, with a hash of the weights) and with which
settings (`config.yaml`), so that stages are chained by folders, and a folder is never continued
with other settings or merged into another model.
"""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import ProcessorMixin, TrainingArguments, set_seed

from lmme3dhf.aspects import Aspect, Aspects, aspects_from, aspects_of
from lmme3dhf.config import Config, dump_config, read_settings, to_plain
from lmme3dhf.data.collation import FACTS, Collator, Item, Media, Question, packed_item
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.readers import list_samples, split_entry
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.distributed import barrier, is_main, on_main, start, whole, world_size
from lmme3dhf.errors import UserError
from lmme3dhf.files import MANIFEST, damage, file_hash, read_object, replace_file, write_json
from lmme3dhf.models import loading
from lmme3dhf.models.card import CARD, write_card
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.flops import batch_work
from lmme3dhf.models.folder import (
    REPORT,
    check_adapter,
    model_damage,
    model_hash,
    verify_folder,
)
from lmme3dhf.models.hub import model_folder
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.merge import merge_adapter, merge_decoder, merge_heads
from lmme3dhf.models.modeling import LMME3DHF, load_configuration
from lmme3dhf.stages.identity import (
    changes,
    content_changes,
    data_content,
    trainer_settings,
)
from lmme3dhf.stages.media import clip_media, frame_choice
from lmme3dhf.stages.provenance import card_record, data_facts, stage_lists
from lmme3dhf.training import (
    StageLoss,
    TrainingError,
    is_validated,
    refuse_selection,
    train,
    training_arguments,
)

# Fields of TrainingArguments that act where they are read.
_SETS_UP = ("deepspeed", "fsdp", "fsdp_config")
RUN, SETTINGS, PROBE = "run.json", "config.yaml", "probe.safetensors"
ADAPTER, HEAD, DECODER = "adapter", "head.safetensors", "decoder.safetensors"
MERGED = "merged"
# Merging is verified on so many clips, spread over the data set, so many in a batch.
PROBE_CLIPS, PROBE_BATCH = 16, 4
# Whose versions a run records: a score may depend on them.
_LIBRARIES = ("lmme3dhf", "torch", "transformers", "peft", "numpy")


def base_folder(config: Config) -> Path:
    """Folder of the model that a stage starts from, verified by rank 0 unless the settings skip it.

    Raises:
        ModelError: See `models.folder`.
        HubError: It is not to be had.
    """
    folder = model_folder(config.model)
    if config.verify:
        on_main(lambda: verify_folder(folder))
    return folder


def load_model(config: Config, folder: Path) -> LMME3DHF:
    """Loads the model for a stage; missing parts start from the run's seed.

    The vision tower is left out where its features are stored. Where adapters are trained, one that
    the folder keeps is folded in first.
    """
    set_seed(config.seed)
    model = loading.load_model(
        folder,
        dtype=config.dtype,
        attn_implementation=config.attn_implementation,
        quantization=config.quantization,
        tower=config.lora.vision or not config.data.store,
        fold_adapter=config.lora.trained,
    )
    if model.missing_parts and is_main():
        print(f"{folder}: {', '.join(model.missing_parts)} not there yet, started from the seed")
    return model


def open_run(run: Path, stage: str, config: Config, model: Path, facts: dict[str, Any]) -> None:
    """Creates the run folder, or checks that it is this run.

    Args:
        run: The folder.
        stage: Name of the stage.
        config: The resolved settings.
        model: Folder of the model that the run starts from.
        facts: More to record, such as the metric's configuration.

    Raises:
        TrainingError: The folder belongs to a run with other settings or another model.
    """
    key = on_main(lambda: model_hash(model))
    record = {
        "stage": stage,
        "model": str(model),
        "model_key": key,
        "dtype": config.dtype,
        "processes": world_size(),
        "versions": {"python": platform.python_version()}
        | {library: version(library) for library in _LIBRARIES},
        **facts,
    }
    lists = stage_lists(to_plain(config), stage)
    content = on_main(lambda: data_content(config, stage, _compared_lists(config, stage)))
    check_run(run, stage, config, model, key, content)
    barrier()  # every rank has looked before the first one writes
    if is_main():
        data = config.data.resolved()
        record["data"] = data_facts(data.root, data.video_root, lists, aspects_at(config)) | {
            "content": content
        }
        run.mkdir(parents=True, exist_ok=True)
        replace_file(run / SETTINGS, dump_config(config))
        write_json(run / RUN, record)


def finish_part(run: Path, part: nn.Module, name: str) -> None:
    """Saves a part that was trained alone, head or decoder, and marks the run as finished."""
    weights = whole(part.state_dict(keep_vars=True))
    if is_main():
        save_file(weights, run / name)
        finish_run(run)
    barrier()


def read_record(run: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        DamagedError: It is damaged.
    """
    return read_object(run / RUN, "restore it, or give another --out")


def check_run(
    run: Path, stage: str, config: Config, model: Path, key: str, content: dict[str, Any]
) -> None:
    """Checks that a folder, where it is a run, is this one; prints what changed without deciding
    its result.

    Args:
        run: The folder.
        stage: Name of the stage.
        config: The resolved settings.
        model: Folder of the model to start from.
        key: Its hash.
        content: From `identity.data_content`.

    Raises:
        TrainingError: The stage, a setting that decides its result, the model or the data differ,
            or the run's records are damaged.
    """
    if not (run / SETTINGS).exists() or not (run / RUN).exists():
        return
    old = read_record(run)
    if old.get("stage") != stage:
        raise TrainingError(f"{run} is a run of stage {old.get('stage')!r}; give another --out")
    ranks = world_size()
    # A run of an earlier version did not record how many processes trained it.
    before = old["processes"] if isinstance(old.get("processes"), int) else ranks
    settings = read_settings(run / SETTINGS)
    deciding, harmless = changes(settings, to_plain(config), stage, (before, ranks))
    if deciding:
        raise TrainingError(
            f"{run} was started with other settings; give another --out. Changed:\n  "
            + "\n  ".join(f"{name}: {change}" for name, change in deciding.items())
        )
    if old.get("model_key") != key:
        raise TrainingError(
            f"{run} was started from another model than {model}; give another --out"
        )
    known = (old.get("data") or {}).get("content")
    if known and (other := content_changes(known, content)):
        raise TrainingError(
            f"{run} was started on other data; restore them, or give another --out. Changed:\n  "
            + "\n  ".join(other)
        )
    if is_main():
        if not known:
            print(f"{run}: of a version that did not record its data, which are not compared")
        for name, change in harmless.items():
            print(f"{run}: {name}: {change}")


def check_trainer(config: Config, stage: str) -> None:
    """Validates the fields of `TrainingArguments` of a stage before anything is read.

    Raises:
        TrainingError: A field is unknown or its value impossible.
    """
    fields = trainer_settings(to_plain(config), stage)
    for name, value in fields.items():
        default = getattr(TrainingArguments, name, None)
        if type(default) in (int, float) and isinstance(value, str):
            raise TrainingError(f"{stage}.trainer.{name}: a number is expected, got {value!r}")
    # Building them sets up this process for training as well: the process group, with a shorter
    # patience than ours unless it is open, DeepSpeed and FSDP, and variables for accelerate.
    start()
    checked = {name: value for name, value in fields.items() if name not in _SETS_UP}
    variables = dict(os.environ)
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    try:
        training_arguments(checked, Path("checkpoints"), config.seed)
    except (UserError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{stage}.trainer or hardware: {error}") from error
    finally:
        os.environ.clear()
        os.environ.update(variables)


def is_done(run: Path, stage: str, config: Config, model: Path) -> bool:
    """Whether the run is finished, after checking that it is the one that is asked for.

    Raises:
        TrainingError: See `check_run`.
    """
    if not is_finished(run):
        return False
    lists = _compared_lists(config, stage)
    listed_samples(config, lists)  # says which list is missing
    content = on_main(lambda: data_content(config, stage, lists))
    check_run(run, stage, config, model, on_main(lambda: model_hash(model)), content)
    return True


def _compared_lists(config: Config, stage: str) -> list[str]:
    """The lists whose content decides a stage's result: those to validate on where the best
    checkpoint is kept.
    """
    settings = to_plain(config)
    lists = stage_lists(settings, stage)
    if not trainer_settings(settings, stage).get("load_best_model_at_end"):
        return lists
    root = config.data.resolved().root
    return lists + [name for name in validation_lists(lists) if (root / name).is_file()]


def is_finished(run: Path) -> bool:
    """Whether the run's trained weights are there and whole."""
    return (run / MANIFEST).exists() and damage(run) is None


def finish_run(run: Path) -> None:
    """Marks the run as finished; checkpoints and merged folders have manifests of their own."""
    files = [
        path
        for path in run.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST
    ]
    files += [path for path in (run / ADAPTER).glob("*") if path.is_file()]
    listed = {
        p.relative_to(run).as_posix(): {"bytes": p.stat().st_size, "sha256": file_hash(p)}
        for p in sorted(files)
    }
    write_json(run / MANIFEST, {"files": listed})


class ClipQuestions(Dataset):
    """Clips with their questions as items for the collator.

    Args:
        samples: The questions.
        question: Encodes one.
        media: Reads a clip, from a store or as pixels.
        packed: Whether all questions on a clip are one item; otherwise each is one. Items stand in
            the order of their first question.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        question: Callable[[Sample], Question],
        media: Callable[[Path], Media],
        *,
        packed: bool,
    ) -> None:
        self.question, self.media, self.packed = question, media, packed
        self.groups: list[list[Sample]] = []
        of_clip: dict[Path, list[Sample]] = {}
        for sample in samples:
            if packed and sample.path in of_clip:
                of_clip[sample.path].append(sample)
            else:
                of_clip[sample.path] = [sample]
                self.groups.append(of_clip[sample.path])

    def on(self, samples: Sequence[Sample]) -> "ClipQuestions":
        """The same for other samples, whose clips `media` can read."""
        return ClipQuestions(samples, self.question, self.media, packed=self.packed)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Item:
        group = self.groups[index]
        return packed_item([self.question(sample) for sample in group], self.media(group[0].path))


def clip_questions(
    config: Config,
    folder: Path,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    question: Callable[[Sample], Question],
    name: str,
    validation: Sequence[Sample] = (),
) -> ClipQuestions:
    """Builds the stage's data set; what is frozen is computed first, once (`stages.media`), for the
    clips to validate on as well.

    Args:
        config: Settings.
        folder: Folder of the model that the stage starts from.
        processor: Of this folder.
        samples: The questions.
        question: Encodes one.
        name: For progress lines.
        validation: Samples for `ClipQuestions.on`.
    """
    clips = [sample.path for sample in (*samples, *validation)]
    media = clip_media(config, folder, processor, clips, name)
    return ClipQuestions(samples, question, media, packed=config.packed)


def aspects_at(config: Config) -> dict[str, Aspect]:
    """What is rated: by the settings, else by the data set (`aspects.aspects_of`)."""
    given = aspects_from(config.aspects) if config.aspects else None
    return aspects_of(config.data.resolved().root, given)


def metric_of(
    folder: Path,
    processor: ProcessorMixin,
    config: Config,
    aspects: Aspects | None = None,
    **changes: Any,
) -> MetricConfig:
    """The metric's configuration after a stage: where levels and scores are read, and how clips
    become frames.

    Args:
        folder: Folder of the model that the stage starts from.
        processor: Of this folder.
        config: Settings.
        aspects: What is rated; None for what the folder has.
        **changes: Other fields that the stage decides.
    """
    metric = load_configuration(folder).get_metric()
    return metric.replace(
        aspects=with_tokens(aspects or metric.aspects, processor.tokenizer),
        frames=frame_choice(config.frames).to_dict(),
        **changes,
    )


def spread(items: Sequence[Any], count: int = PROBE_CLIPS) -> list[Any]:
    """At most `count` items at equal distances."""
    taken = min(count, len(items))
    return [items[i * len(items) // taken] for i in range(taken)]


def probe_batches(
    dataset: ClipQuestions, collator: Collator, metric: MetricConfig
) -> list[dict[str, Any]]:
    """Real batches of a stage with which merging is verified, each with its `levels` (the reads
    that predict a level word) and `aspects` (index of the aspect of each score).
    """
    items = [dataset[i] for i in spread(range(len(dataset)))]
    batches = [collator(items[i : i + PROBE_BATCH]) for i in range(0, len(items), PROBE_BATCH)]
    for batch in batches:
        levels = [batch["scored"]] if "scored" in batch and metric.read == "answer" else []
        if "learnt" in batch:
            words = torch.tensor(metric.level_tokens)
            levels.append(batch["learnt"][torch.isin(batch["targets"], words)])
        if levels:
            batch["levels"] = torch.cat(levels).unique()
        if "asked" in batch:
            batch["aspects"] = batch["asked"]
    return batches


def save_probe(run: Path, batches: Sequence[dict[str, Any]]) -> None:
    """Keeps real batches, without targets, with which merging is verified."""
    left_out = (*FACTS, "learnt", "targets")
    tensors = {
        f"{number}.{name}": tensor.contiguous()
        for number, batch in enumerate(batches)
        for name, tensor in batch.items()
        if name not in left_out
    }
    if is_main():
        replace_file(run / PROBE, save(tensors))


def read_probe(run: Path) -> list[dict[str, torch.Tensor]]:
    """The batches of `save_probe`; one in a run of a version that kept no more."""
    batches: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(run / PROBE).items():
        number, _, key = name.rpartition(".")
        batches.setdefault(number, {})[key] = tensor
    return [batches[number] for number in sorted(batches)]


def listed_samples(config: Config, names: list[str]) -> list[Sample]:
    """The samples of some lists of the data set, with their labels.

    Raises:
        DataError: A list is missing; see also `data.readers.list_samples`.
    """
    data = config.data.resolved()
    missing = [name for name in names if not (data.root / split_entry(name)[1]).is_file()]
    if missing:
        raise DataError(
            f"{data.root}: {', '.join(missing)} not there; check --data.root, or take it off the "
            "stage's lists"
        )
    return list_samples(names, folder=data.root, root=data.video_root, aspects=aspects_at(config))


def validation_lists(lists: Sequence[str]) -> list[str]:
    """The val lists beside train lists: "text/val_quality.json" for "text/train_quality.json"."""
    return [
        str(path.with_name(path.name.replace("train", "val", 1)))
        for path in map(PurePosixPath, lists)
        if "train" in path.name
    ]


def validation_samples(
    config: Config, lists: Sequence[str], settings: dict[str, Any], name: str
) -> list[Sample]:
    """The samples of a stage's val lists; none, with a line that says why, where the data set has
    no such lists; none where the settings switch validation off.

    Args:
        config: Settings.
        lists: The stage's train lists.
        settings: Fields of `TrainingArguments`.
        name: For the line.

    Raises:
        DataError: Clips of the lists are missing.
        TrainingError: The settings select by validation, and there is none.
    """
    data = config.data.resolved()
    wanted = validation_lists(lists) if is_validated(settings) else []
    there = [name for name in wanted if (data.root / name).is_file()]
    samples = listed_samples(config, there)
    if not samples:
        refuse_selection(settings)
    if len(there) < len(wanted) and is_main():
        absent = ", ".join(name for name in wanted if name not in there)
        found = f"validation on {', '.join(there)} alone" if there else "no validation"
        print(f"{name}: {found}, {data.root} has no {absent}", flush=True)
    missing = [sample.path for sample in samples if not sample.path.is_file()]
    if missing:
        raise DataError(
            f"{data.root}: {len(missing)} of {len(samples)} questions of {', '.join(there)} have "
            f"no clip, the first is {missing[0]}; check data.video_root, or switch validation off "
            "with trainer.eval_strategy: no"
        )
    return samples


def train_adapters(
    config: Config,
    run: Path,
    model: LMME3DHF,
    dataset: ClipQuestions,
    collator: Collator,
    *,
    name: str,
    loss: StageLoss,
    settings: dict[str, Any],
    heads: Sequence[str] = (),
    metric: MetricConfig,
    validation: Sequence[Sample] = (),
) -> None:
    """Trains adapters (and heads) on dialogues, and leaves the finished run folder.

    Args:
        config: Settings, for the adapters' and the seed.
        run: The opened run folder.
        model: The model to adapt, changed in place.
        dataset: From `clip_questions`.
        collator: Makes its batches.
        name: For progress lines.
        loss: The stage's loss.
        settings: Fields of `TrainingArguments`.
        heads: Names of heads that are trained along.
        metric: The metric's configuration after the stage.
        validation: Samples to validate on, which `clip_questions` had as well.
    """
    save_probe(run, probe_batches(dataset, collator, metric))
    flops = partial(
        batch_work,
        model.config,
        language_rank=config.lora.rank if config.lora.language else 0,
        tower_rank=config.lora.rank if config.lora.vision else 0,
    )
    adapted = add_adapters(model, **asdict(config.lora), heads=heads)
    train(
        name=name,
        model=adapted,
        loss=loss,
        dataset=dataset,
        collator=collator,
        settings=settings | config.hardware,
        run=run,
        seed=config.seed,
        flops=flops,
        validation=dataset.on(validation) if validation else None,
    )
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    weights = whole(trained)
    if is_main():
        adapted.save_pretrained(run / ADAPTER, state_dict=weights)
        finish_run(run)
    barrier()


def merge_run(
    run: Path,
    out: Path | None = None,
    form: str = "auto",
    *,
    base: Path | None = None,
    verify: bool = True,
) -> dict[str, Any]:
    """Makes one loadable folder of a finished run (`run/merged` by default) and verifies it.

    Args:
        run: The run folder.
        out: Folder to write; None for `run/merged`.
        form: Whether an adapter is folded into the weights, as of `models.merge.merge_adapter`.
        base: Where the model that was trained on is now; None for where it was.
        verify: Compare every file of the base with its manifest first. False also takes the base of
            a run that an earlier version started, whose recorded hash is of another kind.

    Returns:
        The report (see `models.merge`), with `folder` and whether it was there `already`.

    Raises:
        TrainingError: The run is not finished, its base model changed since, or it has no adapter
            for which a form could be chosen.
        ModelError: The base is not as it was written, or the adapter could run code.
        MergeError: See `models.merge`.
    """
    out = out or run / MERGED
    if (run / REPORT).exists():
        raise TrainingError(f"{run}: a merged model, not a run; give the folder of its run")
    if not is_finished(run):
        why = damage(run) if run.exists() else "there is no such folder"
        raise TrainingError(
            f"{run}: not a finished run ({why}); train it first, the same command goes on where "
            "it stopped"
        )
    record = read_record(run)
    base = base or Path(record["model"])
    way = "restore it, or say where it is now (--base FOLDER)"
    if not base.is_dir():
        raise TrainingError(f"{run}: its base {base} is not there; {way}")
    if "model_key" in record and model_hash(base) != record["model_key"]:
        raise TrainingError(f"{run}: its base {base} is not the model that was trained on; {way}")
    if "model_key" not in record and verify:
        raise TrainingError(
            f"{run}: an earlier version of lmme3dhf started it, whose hash of the base {base} is "
            "of another kind; if that folder has not changed since, merge with --verify false"
        )
    if verify:
        verify_folder(base)
    check_adapter(run / ADAPTER)
    # A folder without a card was merged before there were any.
    if (out / REPORT).exists() and (out / CARD).exists() and model_damage(out) is None:
        report = read_object(out / REPORT, f"delete {out}, and the same command merges again")
        # A report without a form is of a version that knew one alone.
        if report.get("run_sha256") == file_hash(run / MANIFEST) and report.get("form") in (
            ("merged", "adapter") if form == "auto" else (form,)
        ):
            return report | {"folder": str(out), "already": True}
    metric = MetricConfig.from_dict(record["metric"])
    if form != "auto" and not (run / ADAPTER).is_dir():
        raise TrainingError(
            f"{run}: trained no adapter, so that there is no --form to choose; its folder has that "
            f"of its base {base}"
        )
    probe, dtype = read_probe(run), getattr(torch, record["dtype"])
    card = card_record(run, record, base)

    def finish(folder: Path, report: dict[str, Any]) -> None:
        card["stages"][-1]["merge"] = dict(report)
        write_card(folder, card)
        report["run_sha256"] = file_hash(run / MANIFEST)

    if record["stage"] == "saliency":
        report = merge_decoder(base, run / DECODER, out, metric, probe, dtype, finish)
    elif (run / HEAD).exists():
        report = merge_heads(base, run / HEAD, out, metric, probe, dtype, finish)
    else:
        report = merge_adapter(base, run / ADAPTER, out, metric, probe, dtype, finish, form)
    return report | {"folder": str(out), "already": False}
