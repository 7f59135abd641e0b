"""The stages themselves on a device: random weights of a geometry in bf16, no download.

Every part runs what a user runs: `train_text`, `train_score`, `train_saliency`, the stores' own
filling, the `Scorer`. A part times some hundred steps; how an epoch's figure follows is said beside
each target. FLOPs are those of `lmme3dhf.models.flops`, as the training log counts them.

On a CPU the same code runs on the tiny geometry, or on a few layers of the large one, to try it.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bench_parts import material, measure, package
from bench_parts.growth import ready_scorer
from bench_parts.rows import prompts
from transformers import Qwen2_5_VLForConditionalGeneration

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.config import Config, DataSettings, FrameSettings, LoraSettings, with_settings
from lmme3dhf.data.collation import Media
from lmme3dhf.data.decoding import ClipReader, decoded
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import level_reply, write_list
from lmme3dhf.data.pixels import frame_pixels
from lmme3dhf.errors import UserError
from lmme3dhf.models.flops import head_work, language_work, tower_work
from lmme3dhf.models.modeling import load_configuration, load_processor
from lmme3dhf.models.tiny import save_tiny
from lmme3dhf.stages.media import frame_choice, visual_store
from lmme3dhf.stages.run import load_model
from lmme3dhf.stages.saliency import train_saliency
from lmme3dhf.stages.score import train_score
from lmme3dhf.stages.text import train_text
from lmme3dhf.training import SPEED

# What a large product of matrices in bf16 reaches on an H100 or H200; the unit of the predictions.
ACHIEVABLE_TFLOP_S = 790.0
# Dense bf16 peak, TFLOP/s, by a word of the device's name (the makers' data sheets).
PEAK_TFLOP_S = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A6000": 155.0,
    "4090": 165.0,
}
TRAINING_VIDEOS, ALL_VIDEOS, TEST_VIDEOS, SALIENCY_EPOCHS = 1600, 2000, 400, 20


@dataclass(frozen=True)
class Target:
    """What one H200 is asked for at 7B geometry, 8 frames of 504x504.

    Attributes:
        what: In words, with how the figure follows from what is measured.
        most: The target.
        floor: By FLOPs at 790 TFLOP/s, or by bytes; None without one.
        unit: Of both.
        part: Of this benchmark that measures it.
    """

    what: str
    most: float
    floor: float | None
    unit: str
    part: str


TARGETS = {
    "prepare_s": Target(
        "preparation of 2,000 videos: seconds a video, times 2,000", 75, 46, "s", "prepare"
    ),
    "stage1_epoch_s": Target(
        "stage 1, an epoch over 1,600 videos with three questions: median seconds a video, times "
        "1,600",
        140,
        82,
        "s",
        "stage1",
    ),
    "stage2_epoch_s": Target(
        "stage 2, an epoch over 1,600 videos with two questions: likewise", 130, 76, "s", "stage2"
    ),
    "score_file_ms": Target(
        "scoring from file, three questions, batch 8: a video", 60, 33, "ms", "score"
    ),
    "score_embeddings_ms": Target("the same from embeddings", 42, 24.5, "ms", "score"),
    "score_frames_ms": Target("the same from decoded frames, batch 1", 75, 33, "ms", "score"),
    "stage3_s": Target(
        "stage 3: its feature pass over 1,600 videos and 20 epochs", 180, 67, "s", "stage3"
    ),
    "fold_s": Target(
        "one fold: preparation, an epoch of stages 1 and 2, stage 3, 400 videos scored from file",
        480,
        234,
        "s",
        "prepare,stage1,stage2,score,stage3",
    ),
    "memory_4_gb": Target("memory, four videos without checkpointing", 75, 60, "GB", "memory"),
    "memory_24gb_card_gb": Target("memory, 4 bit, checkpointing, one video", 21, 18, "GB", "qlora"),
}


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        device: "cuda" or "cpu".
        geometry: One of `material.GEOMETRIES`.
        steps: Of each stage.
        layers: So many layers at most; None for all.
        side_px: Of the frames.
        clips: Different clips (copies of one with other bytes).
        batch: Clips of a step of stages 1 and 2.
        sizes: Clips of a step whose memory is measured.
        workers: Processes that decode.
    """

    device: str = "cuda"
    geometry: str = "7b"
    steps: int = 300
    layers: int | None = None
    side_px: int = 504
    clips: int = 64
    batch: int = 4
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    workers: int = field(default_factory=lambda: max(1, (os.cpu_count() or 2) - 1))

    @property
    def dtype(self) -> torch.dtype:
        """bf16, also on a CPU."""
        return torch.bfloat16


@dataclass(frozen=True)
class Workplace:
    """Model, clips and lists on disk, made when they are first needed.

    Attributes:
        plan: What is run.
        folder: For all files.
    """

    plan: Plan
    folder: Path

    @cached_property
    def model(self) -> Path:
        """A folder as any other; drawn on the device, where that takes seconds."""
        folder = self.folder / "model"
        with material.random_weights(self.plan.dtype, self.plan.device):
            model = Qwen2_5_VLForConditionalGeneration(
                material.config(self.plan.geometry, self.plan.layers)
            )
        save_tiny(folder, material.tokenizer(), model, self.plan.dtype)
        return folder

    @cached_property
    def clips(self) -> list[Path]:
        """Clips of 10 Mbit/s."""
        first = material.write_clip(self.folder / "clip.mp4", mbit_s=10)
        return material.copies(first, self.plan.clips, self.root / "video_RGB")

    @property
    def root(self) -> Path:
        """Folder of the data set."""
        return self.folder / "data"

    @cached_property
    def config(self) -> Config:
        """Settings of all stages, with the lists and maps that they name written."""
        asked = material.samples(self.clips, 3)
        for task in GEN3DHF:
            rows = [sample for sample in asked if sample.task == task]
            write_list(self._list(f"text/train_{task}.json"), rows)
            scored = [
                replace(row, reply=level_reply(GEN3DHF[task], row.level, row.mos)) for row in rows
            ]
            write_list(self._list(f"numerical/train_{task}.json"), scored)
        named = [sample for sample in asked if sample.task == "distortion"]
        write_list(self._list("distortion/train.json"), named)
        material.saliency_maps(self.clips, self.root / "saliency_map")
        area = self.plan.side_px**2
        return Config(
            model=str(self.model),
            dtype=str(self.plan.dtype).removeprefix("torch."),
            frames=FrameSettings(frames=8, min_pixels=area, max_pixels=area),
            data=DataSettings(root=self.root, workers=self.plan.workers),
            lora=LoraSettings(dropout=0.0),
        )

    def _list(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def trainer(self, **changes: Any) -> dict[str, Any]:
        """Fields of `TrainingArguments`."""
        return {
            "max_steps": self.plan.steps,
            "per_device_train_batch_size": self.plan.batch,
            "learning_rate": 1e-4,
            "optim": "adamw_torch_fused",
            "bf16": True,
            "save_strategy": "no",
            "logging_steps": max(1, self.plan.steps // 20),
            "dataloader_num_workers": min(2, self.plan.workers),
            **changes,
        }


def synchronised(device: str) -> float:
    """Wall clock, after the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_tflop_s(name: str) -> float | None:
    """Dense bf16 peak of a device by its name; None for one that is not listed."""
    return next((peak for word, peak in PEAK_TFLOP_S.items() if word in name), None)


def stage_case(
    part: str, case: str, speed: dict[str, Any], questions: int, device: str
) -> dict[str, Any]:
    """A line of the table from what a run told of its speed.

    Args:
        part: Of the benchmark.
        case: What was different.
        speed: The run's `speed.json`.
        questions: On each video: what the run calls samples.
        device: Name of the device.
    """
    median = speed["median"]
    videos = median["samples_per_s"] / questions
    tflop_s = median.get("model_tflop_per_s")
    peak = peak_tflop_s(device)
    return {
        "part": part,
        "case": case,
        "seconds_a_video": 1 / videos,
        "tokens_per_s": median.get("tokens_per_s"),
        "model_tflop_per_s": tflop_s,
        "mfu": tflop_s / peak if tflop_s and peak else None,
        "predicted_seconds_a_video": tflop_s / videos / ACHIEVABLE_TFLOP_S if tflop_s else None,
        "peak_memory_gb": speed["peak_memory_gb"],
        "data_wait": speed["data_wait"],
        "samples": speed["samples"],
    }


def _stage(
    place: Workplace,
    part: str,
    case: str,
    train: Callable[[Config, Path], Path],
    *,
    questions: int,
    settings: dict[str, Any] | None = None,
    **trainer: Any,
) -> dict[str, Any]:
    """Runs a stage in a fresh run folder; a case that the machine cannot do says why."""
    name = {train_text: "text", train_score: "score", train_saliency: "saliency"}[train]
    config = with_settings(place.config, settings or {})
    stage = replace(getattr(config, name), trainer=place.trainer(**trainer))
    config = replace(config, **{name: stage})
    run = place.folder / "runs" / f"{part} {case}"
    _forget()
    try:
        train(config, run)
    except torch.OutOfMemoryError:
        return {"part": part, "case": case, "unavailable": "out of memory"}
    except (UserError, ImportError, RuntimeError) as error:
        # A kernel or a compiler that does not work here ends its case, not the whole run.
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return {"part": part, "case": case, "unavailable": reason}
    speed = json.loads((run / SPEED).read_text(encoding="utf-8"))
    return stage_case(part, case, speed, questions, _device_name(place.plan))


def _forget() -> None:
    """Frees what the last case held on the GPU, so that each starts alike."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device_name(plan: Plan) -> str:
    return torch.cuda.get_device_name() if plan.device == "cuda" else "cpu"


def prepare(place: Workplace) -> Iterator[dict[str, Any]]:
    """Decode, tower and writing, by the store's own pass, with each kernel of the tower."""
    processor = load_processor(place.model)
    grid = (4, place.plan.side_px // 14, place.plan.side_px // 14)
    work = tower_work(load_configuration(place.model).vision_config, [grid]).forward / 1e12
    for kernel in ("auto", "sdpa"):
        features = place.folder / f"prepared {kernel}"
        config = with_settings(
            place.config, {"data.features": str(features), "attn_implementation": kernel}
        )
        start = synchronised(place.plan.device)
        visual_store(config, place.model, processor, place.clips, "bench")
        seconds = (synchronised(place.plan.device) - start) / len(place.clips)
        yield _timed_case("prepare", f"tower's kernel {kernel}", seconds, work, place.plan)


def _timed_case(part: str, case: str, seconds: float, tflop: float, plan: Plan) -> dict[str, Any]:
    peak = peak_tflop_s(_device_name(plan))
    memory = torch.cuda.max_memory_allocated() / 1e9 if plan.device == "cuda" else None
    return {
        "part": part,
        "case": case,
        "seconds_a_video": seconds,
        "model_tflop_per_s": tflop / seconds,
        "mfu": tflop / seconds / peak if peak else None,
        "predicted_seconds_a_video": tflop / ACHIEVABLE_TFLOP_S,
        "peak_memory_gb": memory,
    }


def stage1(place: Workplace) -> Iterator[dict[str, Any]]:
    """`train_text`, three questions a video."""
    yield _stage(place, "stage1", f"{place.plan.batch} videos a step", train_text, questions=3)


def stage2(place: Workplace) -> Iterator[dict[str, Any]]:
    """`train_score`, two questions a video."""
    yield _stage(place, "stage2", f"{place.plan.batch} videos a step", train_score, questions=2)


def stage3(place: Workplace) -> Iterator[dict[str, Any]]:
    """`train_saliency`: its feature pass, then steps of the decoder from the store."""
    start = synchronised(place.plan.device)
    # A step by itself: what the stage takes beside it is the feature pass.
    once = _stage(
        place, "stage3", "feature pass", train_saliency, questions=1, max_steps=1, bf16=False
    )
    seconds = (synchronised(place.plan.device) - start) / len(place.clips)
    yield {"part": "stage3", "case": once["case"], "seconds_a_video": seconds}
    yield _stage(
        place,
        "stage3",
        f"decoder, {place.plan.batch} videos a step",
        train_saliency,
        questions=1,
        bf16=False,
    )


def score(place: Workplace) -> Iterator[dict[str, Any]]:
    """`Scorer` from files; its passes from decoded frames, and from embeddings."""
    plan, config = place.plan, place.config
    processor = load_processor(place.model)
    model = load_model(with_settings(config, {"data.store": False}), place.model)
    grid = (4, plan.side_px // 14, plan.side_px // 14)
    backbone = load_configuration(place.model)
    tower = tower_work(backbone.vision_config, [grid]).forward / 1e12
    encoder = DialogueEncoder(processor.tokenizer)
    asked = [(prompt, prefix) for prompt, prefix, _ in prompts()]
    clips = place.clips[: max(8, min(len(place.clips), plan.steps))]
    reader = ClipReader(choice=frame_choice(config.frames))
    frames = [read.frames for read in decoded(clips, reader, plan.workers)]

    def embed(clip: Any) -> Media:
        return package.media(model, frame_pixels(clip, processor.video_processor))

    with torch.inference_mode():
        ready = [embed(clip) for clip in frames]
    batch = package.prefix_batch(processor, encoder, ready[:1], asked)
    seen = batch["seen_until"][0] - torch.arange(len(batch["seen_until"][0]))
    language = language_work(
        backbone.text_config,
        tokens=batch["input_ids"].shape[1],
        pairs=int(seen.sum()),
        reads=batch["reads"].shape[1],
    ) + head_work(backbone.text_config, batch["reads"].shape[1])
    language = language.forward / 1e12
    scorer = ready_scorer(model, processor, frame_choice(config.frames).to_dict(), plan.workers)

    @torch.inference_mode()
    def passes(media: Sequence[Media]) -> None:
        package.read_levels(model, package.prefix_batch(processor, encoder, media, asked))

    def groups(items: list, size: int) -> Iterator[list]:
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def files(size: int) -> None:
        scorer.batch_size = size
        for _ in scorer.assess(clips, maps=False, answers="likelihood"):
            pass

    @torch.inference_mode()
    def from_frames(size: int) -> None:
        for group in groups(frames, size):
            passes([embed(clip) for clip in group])

    def from_embeddings(size: int) -> None:
        for group in groups(ready, size):
            passes(group)

    jobs: dict[str, tuple[Callable[[int], None], float]] = {
        "file": (files, tower + language),
        "frames": (from_frames, tower + language),
        "embeddings": (from_embeddings, language),
    }
    for name, (job, tflop) in jobs.items():
        for size in (1, 8):
            job(size)
            start = synchronised(plan.device)
            job(size)
            seconds = (synchronised(plan.device) - start) / len(clips)
            yield _timed_case("score", f"from {name}, batch {size}", seconds, tflop, plan)


def memory(place: Workplace) -> Iterator[dict[str, Any]]:
    """Peak of stage 1 for several numbers of videos a step."""
    for checkpointing in (False, True):
        for size in place.plan.sizes:
            yield _stage(
                place,
                "memory",
                f"{size} videos, {'with' if checkpointing else 'without'} checkpointing",
                train_text,
                questions=3,
                max_steps=3,
                per_device_train_batch_size=size,
                gradient_checkpointing=checkpointing,
            )


def variants(place: Workplace) -> Iterator[dict[str, Any]]:
    """Stage 1 with one thing changed."""
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "one question an item (three times the videos a step)": ({"packed": False}, {}),
        "tower in every step": ({"data.store": False}, {}),
        "gradient checkpointing": ({}, {"gradient_checkpointing": True}),
        "torch.compile": ({"pad_to": 64}, {"torch_compile": True}),
        "Liger": ({}, {"use_liger_kernel": True}),
        "torch.compile and Liger": (
            {"pad_to": 64},
            {"torch_compile": True, "use_liger_kernel": True},
        ),
        "flash attention in the tower, in every step": (
            {"data.store": False, "attn_implementation": "flash_attention_2"},
            {},
        ),
    }
    for case, (settings, trainer) in cases.items():
        if "packed" in settings:
            trainer = {**trainer, "per_device_train_batch_size": 3 * place.plan.batch}
        yield _stage(place, "variants", case, train_text, questions=3, settings=settings, **trainer)


def qlora(place: Workplace) -> Iterator[dict[str, Any]]:
    """The mode for cards of 24 GB: 4 bit, checkpointing, one video a step."""
    yield _stage(
        place,
        "qlora",
        "4 bit, checkpointing, 1 video a step",
        train_text,
        questions=3,
        settings={"quantization": "4bit"},
        per_device_train_batch_size=1,
        gradient_checkpointing=True,
    )


PARTS: dict[str, Callable[[Workplace], Iterator[dict[str, Any]]]] = {
    "prepare": prepare,
    "stage1": stage1,
    "stage2": stage2,
    "score": score,
    "stage3": stage3,
    "memory": memory,
    "qlora": qlora,
    "variants": variants,
}


def goals(cases: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The targets' figures that follow from the measured cases."""
    known = {(case["part"], case["case"]): case for case in cases if "unavailable" not in case}

    def seconds(part: str, start: str) -> float | None:
        found = [c for (p, name), c in known.items() if p == part and name.startswith(start)]
        return found[0]["seconds_a_video"] if found else None

    def times(value: float | None, factor: float) -> float | None:
        return None if value is None else value * factor

    found = {
        "prepare_s": times(seconds("prepare", "tower's kernel auto"), ALL_VIDEOS),
        "stage1_epoch_s": times(seconds("stage1", ""), TRAINING_VIDEOS),
        "stage2_epoch_s": times(seconds("stage2", ""), TRAINING_VIDEOS),
        "score_file_ms": times(seconds("score", "from file, batch 8"), 1000),
        "score_embeddings_ms": times(seconds("score", "from embeddings, batch 8"), 1000),
        "score_frames_ms": times(seconds("score", "from frames, batch 1"), 1000),
    }
    features, decoder = seconds("stage3", "feature pass"), seconds("stage3", "decoder")
    if features is not None and decoder is not None:
        found["stage3_s"] = TRAINING_VIDEOS * (features + SALIENCY_EPOCHS * decoder)
    parts = [found[key] for key in ("prepare_s", "stage1_epoch_s", "stage2_epoch_s")]
    parts += [found.get("stage3_s"), times(seconds("score", "from file, batch 8"), TEST_VIDEOS)]
    if all(value is not None for value in parts):
        found["fold_s"] = sum(parts)
    for key, case in (
        ("memory_4_gb", ("memory", "4 videos, without checkpointing")),
        ("memory_24gb_card_gb", ("qlora", "4 bit, checkpointing, 1 video a step")),
    ):
        if case in known:
            found[key] = known[case]["peak_memory_gb"]
    return {key: value for key, value in found.items() if value is not None}


def run(plan: Plan, folder: Path, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Runs parts one after the other; gives all that is known so far after each case.

    Args:
        plan: What is run.
        folder: For all files.
        parts: Some of `PARTS`.

    Raises:
        SystemExit: There is no such device.
    """
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here; give --device cpu to try it")
    place = Workplace(plan, folder)
    # A cut geometry or a CPU says nothing about the targets.
    on_target = plan.device == "cuda" and plan.geometry == "7b" and plan.layers is None
    figures: dict[str, Any] = {
        "kind": "accelerator",
        "plan": asdict(plan),
        "environment": measure.environment(),
        "cases": [],
        "goals": {},
    }
    for part in parts:
        _forget()
        if plan.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for case in PARTS[part](place):
            print(json.dumps(case), file=sys.stderr, flush=True)
            figures["cases"].append(case)
            figures["goals"] = goals(figures["cases"]) if on_target else {}
            figures["peak_rss_mb"] = measure.peak_rss_mb()
            yield figures
