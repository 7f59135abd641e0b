"""What the stages share: the run folder, the model to start from, dialogues with their visual
tokens, training adapters on them, and merging a run.

A run folder records what it started from (`run.json`, with a hash of the weights) and with which
settings (`config.yaml`), so that stages are chained by folders, and a folder is never continued
with other settings or merged into another model.
"""

import difflib
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import ProcessorMixin, set_seed

from lmme3dhf.config import Config, FrameSettings, dump_config
from lmme3dhf.data.collation import Collator, Item
from lmme3dhf.data.dialogue import Encoded, level_token_ids
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.pixels import Pixels, read_pixels
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.video import FrameChoice
from lmme3dhf.features import FeatureStore, recipe
from lmme3dhf.files import MANIFEST, damage, file_hash, replace_file, write_json, write_manifest
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.merge import REPORT, merge_adapter, merge_decoder, merge_head
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.training import LossFunction, TrainingError, train
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS

RUN, SETTINGS, PROBE = "run.json", "config.yaml", "probe.safetensors"
ADAPTER, HEAD, DECODER = "adapter", "head.safetensors", "decoder.safetensors"
MERGED = "merged"
PROBE_SAMPLES = 4
# Whose versions a run records: a score may depend on them.
_LIBRARIES = ("lmme3dhf", "torch", "transformers", "peft", "numpy")
PROJECT = Path(__file__).resolve().parents[2]


def frame_choice(settings: FrameSettings) -> FrameChoice:
    """The settings as the reader of clips takes them."""
    return FrameChoice(
        fps=None if settings.frames else settings.fps,
        frames=settings.frames or None,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
    )


def local_model(name: str) -> Path:
    """Folder of a model: a path (from here, or from the project's root), or a downloaded hub id."""
    for folder in (Path(name), PROJECT / name):
        if folder.is_dir():
            return folder
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise TrainingError(
            f"model {name}: no such folder; give a folder with config.json, or a hub id such as "
            "Qwen/Qwen2.5-VL-7B-Instruct"
        )
    return Path(snapshot_download(name))


def model_hash(folder: Path) -> str:
    """One hash for a model folder's configuration and weights."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(file_hash(path) for path in files).encode()).hexdigest()


def load_model(config: Config, folder: Path) -> tuple[LMME3DHF, ProcessorMixin]:
    """Loads the model and its processor; missing parts start from the run's seed."""
    set_seed(config.seed)
    model = LMME3DHF.from_pretrained(
        folder, dtype=getattr(torch, config.dtype), attn_implementation=config.attn_implementation
    )
    if model.missing_parts:
        print(f"{folder}: {', '.join(model.missing_parts)} not there yet, started from the seed")
    if torch.cuda.is_available():
        model.to("cuda")
    return model.eval(), load_processor(folder)


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
    record = {
        "stage": stage,
        "model": str(model),
        "model_sha256": model_hash(model),
        "dtype": config.dtype,
        "versions": {"python": platform.python_version()}
        | {library: version(library) for library in _LIBRARIES},
        **facts,
    }
    settings = dump_config(config)
    known = run / SETTINGS
    if known.exists() and (run / RUN).exists():
        old = known.read_text(encoding="utf-8")
        if old != settings:
            changed = [
                line
                for line in difflib.ndiff(old.splitlines(), settings.splitlines())
                if line[0] in "+-"
            ]
            raise TrainingError(
                f"{run} was started with other settings; give another --out. Changed:\n  "
                + "\n  ".join(changed[:20])
            )
        if (
            json.loads((run / RUN).read_text(encoding="utf-8"))["model_sha256"]
            != record["model_sha256"]
        ):
            raise TrainingError(
                f"{run} was started from another model than {model}; give another --out"
            )
    run.mkdir(parents=True, exist_ok=True)
    replace_file(known, settings)
    write_json(run / RUN, record)


def finish_part(run: Path, part: nn.Module, name: str) -> None:
    """Saves a part that was trained alone, head or decoder, and marks the run as finished."""
    weights = {key: tensor.cpu().contiguous() for key, tensor in part.state_dict().items()}
    save_file(weights, run / name)
    finish_run(run)


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


class Dialogues(Dataset):
    """Samples as items for the collator, with stored visual tokens or, when the tower trains, with
    pixels.

    Args:
        samples: The questions.
        encode: Encodes one with the number of its visual tokens.
        target: MOS / 100 of a sample, nan without one.
        store: Store of merged visual tokens; None to read pixels.
        pixels: Reads a clip, when there is no store.
        merge: Patches along a merged token's side.
    """

    def __init__(
        self,
        samples: list[Sample],
        encode: Callable[[Sample, int], Encoded],
        target: Callable[[Sample], float],
        *,
        store: FeatureStore | None,
        pixels: Callable[[Path], Pixels],
        merge: int,
    ) -> None:
        self.samples, self.encode, self.target = samples, encode, target
        self.store, self.pixels, self.merge = store, pixels, merge

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        if self.store is not None:
            stored = self.store.read(sample.path)
            grid, seconds = tuple(stored["grid_thw"].tolist()), float(stored["second_per_grid"])
            media = {"video_embeds": stored["tokens"]}
        else:
            pixels = self.pixels(sample.path)
            grid, seconds = pixels.grid_thw, pixels.second_per_grid
            media = {"pixel_values": pixels.values}
        tokens = grid[0] * grid[1] * grid[2] // self.merge**2
        return Item(
            name=f"{sample.video} {sample.task}",
            encoded=self.encode(sample, tokens),
            grid_thw=grid,
            second_per_grid=seconds,
            mos=self.target(sample),
            **media,
        )


def dialogues(
    config: Config,
    model: LMME3DHF,
    processor: ProcessorMixin,
    samples: list[Sample],
    encode: Callable[[Sample, int], Encoded],
    target: Callable[[Sample], float],
    name: str,
) -> Dialogues:
    """Builds the stage's data set; a frozen tower's visual tokens are computed first, once."""
    choice = frame_choice(config.frames)
    video = processor.video_processor
    store = None
    if not config.lora.vision:
        store = visual_store(config, model, processor)

        def compute(pixels: Pixels) -> dict[str, torch.Tensor]:
            grid = torch.tensor([pixels.grid_thw])
            with torch.no_grad():
                tokens = model.encode_video(pixels.values.to(model.device), grid.to(model.device))
            return {
                "tokens": tokens.cpu(),
                "grid_thw": grid[0],
                "second_per_grid": torch.tensor(pixels.second_per_grid, dtype=torch.float64),
            }

        store.fill(
            (sample.path for sample in samples),
            compute,
            choice=choice,
            processor=video,
            views=False,
            workers=config.data.workers,
            name=f"{name}: features",
        )
    return Dialogues(
        samples,
        encode,
        target,
        store=store,
        pixels=lambda path: read_pixels(path, choice, video, views=False),
        merge=video.merge_size,
    )


def visual_store(config: Config, model: LMME3DHF, processor: ProcessorMixin) -> FeatureStore:
    """Store of the frozen tower's merged tokens."""
    about = recipe(
        frame_choice(config.frames),
        processor.video_processor,
        [model.model.visual],
        model.model.visual.dtype,
        kind="tokens",
    )
    return FeatureStore(config.data.resolved().features, about)


def metric_of(
    model: LMME3DHF, processor: ProcessorMixin, config: Config, **changes: Any
) -> MetricConfig:
    """The metric's configuration after a stage: where levels and scores are read, and how clips
    become frames.
    """
    prefix = model.metric.answer_prefix
    tokens = {
        level_token_ids(processor.tokenizer, prefix.format(dimension=dimension), LEVELS)
        for dimension in DIMENSIONS
    }
    if len(tokens) != 1:
        raise TrainingError(
            f"tokenizer: the level words have other tokens after {prefix!r} for each dimension"
        )
    return model.metric.replace(
        level_token_ids=tokens.pop(), frames=asdict(frame_choice(config.frames)), **changes
    )


def save_probe(run: Path, batch: dict[str, Any]) -> None:
    """Keeps a real batch (tensors only, without labels) with which merging is verified."""
    tensors = {
        k: v.contiguous()
        for k, v in batch.items()
        if isinstance(v, torch.Tensor) and k not in ("labels", "mos")
    }
    replace_file(run / PROBE, save(tensors))


def listed_samples(config: Config, names: list[str]) -> list[Sample]:
    """The samples of some lists of the data set, with their labels.

    Raises:
        DataError: A list is missing; see also `data.gen3dhf.read_list`.
    """
    data = config.data.resolved()
    missing = [name for name in names if not (data.root / name).is_file()]
    if missing:
        raise DataError(
            f"{data.root}: {', '.join(missing)} not there; check --data.root, or take it off the "
            "stage's lists"
        )
    return [s for name in names for s in read_list(data.root / name, data.video_root)]


def train_adapters(
    config: Config,
    run: Path,
    model: LMME3DHF,
    dataset: Dialogues,
    collator: Collator,
    *,
    name: str,
    loss: LossFunction,
    settings: dict[str, Any],
    train_head: bool,
) -> None:
    """Trains adapters (and the score head) on dialogues, and leaves the finished run folder.

    Args:
        config: Settings, for the adapters' and the seed.
        run: The opened run folder.
        model: The model to adapt, changed in place.
        dataset: From `dialogues`.
        collator: Makes its batches.
        name: For progress lines.
        loss: The stage's loss.
        settings: Fields of `TrainingArguments`.
        train_head: Whether the score head is trained along.
    """
    save_probe(run, collator([dataset[i] for i in range(min(PROBE_SAMPLES, len(dataset)))]))
    adapted = add_adapters(model, **asdict(config.lora), train_head=train_head)
    train(
        name=name,
        model=adapted,
        loss=loss,
        dataset=dataset,
        collator=collator,
        settings=settings,
        run=run,
        seed=config.seed,
    )
    adapted.save_pretrained(run / ADAPTER)
    finish_run(run)


def merge_run(run: Path, out: Path | None = None) -> dict[str, Any]:
    """Folds a finished run into one loadable folder (`run/merged` by default) and verifies it.

    Returns:
        The report (see `models.merge`), with `folder` and whether it was there `already`.

    Raises:
        TrainingError: The run is not finished, or its base model changed since.
    """
    out = out or run / MERGED
    if not is_finished(run):
        why = damage(run) if run.exists() else "there is no such folder"
        raise TrainingError(
            f"{run}: not a finished run ({why}); train it first, the same command goes on where "
            "it stopped"
        )
    record = json.loads((run / RUN).read_text(encoding="utf-8"))
    base = Path(record["model"])
    if not base.is_dir() or model_hash(base) != record["model_sha256"]:
        raise TrainingError(
            f"{run}: its base {base} is not there or not the model that was trained on; restore it"
        )
    if (out / REPORT).exists() and damage(out) is None:
        report = json.loads((out / REPORT).read_text(encoding="utf-8"))
        if report.get("run_sha256") == file_hash(run / MANIFEST):
            return report | {"folder": str(out), "already": True}
    metric = MetricConfig.from_dict(record["metric"])
    probe, dtype = load_file(run / PROBE), getattr(torch, record["dtype"])
    if record["stage"] == "saliency":
        report = merge_decoder(base, run / DECODER, out, metric, probe, dtype)
    elif (run / HEAD).exists():
        report = merge_head(base, run / HEAD, out, metric, probe, dtype)
    else:
        report = merge_adapter(base, run / ADAPTER, out, metric, probe, dtype)
    report["run_sha256"] = file_hash(run / MANIFEST)
    write_json(out / REPORT, report)
    write_manifest(out)
    return report | {"folder": str(out), "already": False}
