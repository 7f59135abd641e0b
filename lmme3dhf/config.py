"""Settings of a run: dataclasses whose defaults are the paper's, read from YAML and the command
line.

Keys are strict and typed; `--key.sub value` overrides a file. Where the paper and the released code
disagree, `configs/paper.yaml` follows the print and `configs/official.yaml` the code.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from lmme3dhf.errors import UserError


class ConfigError(UserError, ValueError):
    """A setting that is impossible; the message names it and what is expected."""


def _check(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{expected}, got {got}")


def _check_fields(place: str, fields: dict[str, Any]) -> None:
    for name in fields:
        if name in REMOVED_FIELDS:
            raise ConfigError(
                f"{place}.{name}: transformers 5 has no such field; give in its place "
                f"{REMOVED_FIELDS[name]}"
            )


# Fields of TrainingArguments in transformers 4 that version 5 no longer has -> what says the same.
REMOVED_FIELDS = {
    "evaluation_strategy": "eval_strategy",
    "overwrite_output_dir": "another --out for a fresh run; in the same one a run goes on",
    "warmup_ratio": "warmup_steps, which below 1 is a share of the steps",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "no_cuda": "use_cpu: true",
    "adafactor": "optim: adafactor",
    "fsdp_min_num_params": "fsdp_config: {min_num_params: N}",
    "fsdp_transformer_layer_cls_to_wrap": "fsdp_config: {transformer_layer_cls_to_wrap: [NAME]}",
    "include_inputs_for_metrics": "include_for_metrics: [inputs]",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_organization": "hub_model_id: ORGANIZATION/NAME",
    "push_to_hub_token": "hub_token",
    "torchdynamo": "torch_compile_backend",
    "dispatch_batches": "accelerator_config: {dispatch_batches: true}",
    "split_batches": "accelerator_config: {split_batches: true}",
    "fp16_backend": "nothing: fp16 or bf16 alone decides",
    "half_precision_backend": "nothing: fp16 or bf16 alone decides",
    "fp16_opt_level": "nothing: fp16 or bf16 alone decides",
    "save_safetensors": "nothing: weights are always safetensors",
    "use_mps_device": "nothing: the device is found",
    "include_tokens_per_second": "nothing: tokens a second are always logged",
    "jit_mode_eval": "nothing",
    "mp_parameters": "nothing",
    "past_index": "nothing",
    "ray_scope": "nothing",
    "tpu_num_cores": "nothing",
    "tpu_metrics_debug": "nothing",
    "use_ipex": "nothing",
    "use_legacy_prediction_loop": "nothing",
}


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """How a clip becomes frames (see `data.video.FrameChoice`; the defaults are Qwen2.5-VL's own).

    Attributes:
        fps: Frames per second.
        frames: A fixed even number of frames instead; 0 to use `fps`.
        min_pixels: Smallest area of a frame after resizing.
        max_pixels: Largest area of a frame after resizing.
        images: Whether still images are inputs of their own; otherwise an image is a strip of three
            views.
    """

    fps: float = 2.0
    frames: int = 0
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    images: bool = False

    def __post_init__(self) -> None:
        even = self.frames >= 0 and self.frames % 2 == 0
        _check(
            even,
            "frames.frames must be 0 or an even number (frames are joined in pairs)",
            self.frames,
        )
        _check(self.fps > 0, "frames.fps must be above 0", self.fps)
        sizes = 28 * 28 <= self.min_pixels <= self.max_pixels
        _check(sizes, "28 * 28 <= frames.min_pixels <= frames.max_pixels is expected", self)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (Table 5).

    Attributes:
        rank: Rank r of the update.
        alpha: Scale; the update is multiplied by alpha / rank.
        dropout: On the adapters' input.
        language: Adapt the language model's linear layers.
        vision: Adapt the vision tower's linear layers too (Table 5, rows 1, 4, 6); features are
            then not stored. With both off, stage 2 trains the head alone (row 3).
    """

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.05
    language: bool = True
    vision: bool = False

    @property
    def trained(self) -> bool:
        """Whether any adapter is trained."""
        return self.language or self.vision

    def __post_init__(self) -> None:
        _check(self.rank >= 1, "lora.rank must be at least 1", self.rank)
        _check(0 <= self.dropout < 1, "lora.dropout must lie in 0..1", self.dropout)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the data are (layout: datasets/README.md).

    Attributes:
        root: Folder of the data set; the lists of the stages are relative to it.
        video_root: Folder of the clips; None is `video_RGB` below `root`.
        features: Folder of the store of frozen features; None is `features` below `root`.
        workers: Processes that decode clips; None for one a core, at most 16. 0 decodes in the
            process that computes.
        store: Compute frozen features once and keep them. Without it the vision tower runs in every
            step, for the same result; that is for measuring.
    """

    root: Path = Path("datasets/Gen3DHF")
    video_root: Path | None = None
    features: Path | None = None
    workers: int | None = None
    store: bool = True

    def __post_init__(self) -> None:
        counted = self.workers is None or self.workers >= 0
        _check(counted, "data.workers must be at least 0, or left out", self.workers)

    def resolved(self) -> "DataSettings":
        """The same with every folder decided."""
        return dataclasses.replace(
            self,
            video_root=self.video_root or self.root / "video_RGB",
            features=self.features or self.root / "features",
        )


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Stage 1: instruction tuning on level words and distortion answers (Section 4.2).

    Attributes:
        lists: Lists to learn, relative to `data.root`.
        trainer: Any field of `transformers.TrainingArguments`.
    """

    lists: tuple[str, ...] = (
        "text/train_quality.json",
        "text/train_authenticity.json",
        "distortion/train.json",
    )
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_fields("text.trainer", self.trainer)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Stage 2: regression of the opinion score (Section 4.2).

    Attributes:
        lists: Lists with scores, relative to `data.root`.
        rehearsal: Lists of questions without a score that are learnt along when `language_weight`
            is above 0.
        language_weight: Weight of the language loss beside L1. 0 is the paper; above 0 the model
            keeps answering in words while it learns to score (departure D3).
        read: Where the head reads, for ablations: `answer`, at the end of the answer's prefix;
            `question`, at the end of the question; `label`, on the ground-truth level word, as the
            released code does (departure D1). A score read there depends on the label that it is
            to predict, so such a model cannot score a new video.
        heads: Name -> `kind`, `outputs`, `over` (heads whose outputs it reads in place of hidden
            states) and the kind's options (`models.heads`).
        losses: Name -> weight, or a mapping with `weight` and the loss's options
            (`training.losses`).
        trainer: Any field of `transformers.TrainingArguments`.
    """

    lists: tuple[str, ...] = ("numerical/train_quality.json", "numerical/train_authenticity.json")
    rehearsal: tuple[str, ...] = ("distortion/train.json",)
    language_weight: float = 0.0
    read: str = "answer"
    heads: dict[str, dict[str, Any]] = field(default_factory=lambda: {"score": {"kind": "mlp"}})
    losses: dict[str, Any] = field(default_factory=lambda: {"l1": 1.0})
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weight = self.language_weight
        _check(weight >= 0, "score.language_weight must be at least 0", weight)
        reads = ("answer", "question", "label")
        _check(self.read in reads, f"score.read must be one of {', '.join(reads)}", self.read)
        _check_fields("score.trainer", self.trainer)


@dataclass(frozen=True, kw_only=True)
class SaliencySettings:
    """Stage 3: the saliency decoder from scratch on frozen features (Section 4.2, Eq. 5).

    Attributes:
        lists: Lists that name the training clips, relative to `data.root`.
        maps: Folder of the ground-truth maps, relative to `data.root`.
        weights: Weights of L1, CC, KL and BCE in Eq. 5; not printed in the paper, these are the
            released code's.
        taps: Vision blocks of the visual branch, deepest first; empty for the default.
        width: Channels of the decoder; 0 for the default.
        branches: `both`, or `visual` or `multimodal` alone (Table 4, rows 1 and 3).
        prompt: The question before the views; None for the default, "" for none (Table 4, row 2).
        trainer: Any field of `transformers.TrainingArguments`.
    """

    lists: tuple[str, ...] = ("text/train_quality.json",)
    maps: str = "saliency_map"
    weights: tuple[float, float, float, float] = (1.0, 0.4, 0.2, 1.0)
    taps: tuple[int, ...] = ()
    width: int = 0
    branches: str = "both"
    prompt: str | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = ("both", "visual", "multimodal")
        expected = f"saliency.branches must be one of {', '.join(known)}"
        _check(self.branches in known, expected, self.branches)
        _check_fields("saliency.trainer", self.trainer)


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings:
    """A synthetic Gen3DHF.

    Attributes:
        draw: The commands that run a whole chain (ablations, cross-validation) draw this data set
            into the run's folder and do not look at `data.root`. The demo always does.
        latents: Faces; each is shown by ten generators, so there are ten times as many clips.
        size_px: Side of the frames (the release: 512).
        frames: Frames of a clip (the release: 240).
        fps: Frames per second (the release: 60).
        processes: Processes that render and look for dots; 0 for one a core.
    """

    draw: bool = False
    latents: int = 200
    size_px: int = 512
    frames: int = 240
    fps: int = 60
    processes: int = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a run depends on.

    Attributes:
        model: Folder or hub id of the model to start from.
        dtype: Type of the backbone's weights: float32, bfloat16 or float16. Heads are always
            float32.
        attn_implementation: Attention kernel of the vision tower: sdpa, flash_attention_2, or auto
            for flash attention where it works. The language model's is sdpa, which takes the mask
            of packed questions.
        quantization: Of the frozen language model: none, 8bit or 4bit (QLoRA, for 24 GB cards).
        packed: All questions on a clip are one item, whose visual tokens the language model reads
            once; otherwise each question is an item. Trainer's batch sizes count items.
        pad_to: Sequence lengths are rounded up to a multiple of it: a compiled model then meets few
            shapes.
        hardware: Fields of `TrainingArguments` that fit stages 1 and 2 to a machine (micro-batch,
            accumulation, checkpointing, compilation). They win over the stages' `trainer`, which a
            second file of settings would replace as a whole.
        seed: Of everything that is drawn.
        threads: Threads of each process on the CPU; 0 leaves torch's default.
        verify: Compare every file of the model to start from with its manifest first.
        batch_size: Clips at a time when predicting.
        frames: How a clip becomes frames.
        aspects: What is rated, name -> `prompt`, `answer_prefix`, `scale`; empty for what the data
            set declares (`lmme3dhf.aspects`).
        lora: Low-rank adapters.
        data: Where the data are.
        text: Stage 1.
        score: Stage 2.
        saliency: Stage 3.
        synthetic: The demo's data set.
    """

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    dtype: str = "bfloat16"
    attn_implementation: str = "auto"
    quantization: str = "none"
    packed: bool = True
    pad_to: int = 1
    hardware: dict[str, Any] = field(default_factory=dict)
    seed: int = 42
    threads: int = 0
    verify: bool = True
    batch_size: int = 8
    frames: FrameSettings = field(default_factory=FrameSettings)
    aspects: dict[str, Any] = field(default_factory=dict)
    lora: LoraSettings = field(default_factory=LoraSettings)
    data: DataSettings = field(default_factory=DataSettings)
    text: TextSettings = field(default_factory=TextSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    saliency: SaliencySettings = field(default_factory=SaliencySettings)
    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)

    def __post_init__(self) -> None:
        types = ("float32", "bfloat16", "float16")
        _check(self.dtype in types, f"dtype must be one of {', '.join(types)}", repr(self.dtype))
        kernels = ("auto", "sdpa", "flash_attention_2")
        expected = f"attn_implementation must be one of {', '.join(kernels)}"
        _check(self.attn_implementation in kernels, expected, repr(self.attn_implementation))
        kinds = ("none", "8bit", "4bit")
        expected = f"quantization must be one of {', '.join(kinds)}"
        _check(self.quantization in kinds, expected, repr(self.quantization))
        _check(self.pad_to >= 1, "pad_to must be at least 1", self.pad_to)
        _check(self.batch_size >= 1, "batch_size must be at least 1", self.batch_size)
        _check(self.threads >= 0, "threads must be at least 0", self.threads)
        _check_fields("hardware", self.hardware)


def add_config(parser: ArgumentParser) -> None:
    """Adds `--config FILE` and every setting as `--key.sub` to a parser."""
    parser.add_argument("--config", action="config", help="YAML file; options override it")
    parser.add_class_arguments(Config, None)


def config_from(namespace: Any) -> Config:
    """Builds the settings from a parsed (and instantiated) namespace."""
    return Config(
        **{item.name: getattr(namespace, item.name) for item in dataclasses.fields(Config)}
    )


def load_config(path: Path, *overrides: str) -> Config:
    """Reads a YAML file with overrides as on the command line ("--seed", "7")."""
    parser = ArgumentParser(exit_on_error=False)
    add_config(parser)
    return config_from(parser.instantiate(parser.parse_args(["--config", str(path), *overrides])))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a run or job wrote with `dump_config`, as plain values.

    Raises:
        ConfigError: The file is damaged.
    """
    try:
        return to_plain(load_config(path))
    except (ArgumentError, TypeError, ValueError, OSError) as error:
        raise ConfigError(
            f"{path}: damaged, or of a version with other settings ({str(error).strip()}); restore "
            "it, or give another --out"
        ) from error


def dump_config(config: Config) -> str:
    """The resolved settings as YAML; `load_config` reads them back."""
    parser = ArgumentParser()
    add_config(parser)
    return parser.dump(parser.parse_object(to_plain(config)))


def to_plain(value: Any) -> Any:
    """Dataclasses as dictionaries, paths as strings, tuples as lists: what YAML and JSON hold."""
    if dataclasses.is_dataclass(value):
        return {
            item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One row of Table 4 or 5, or of our own: what is trained, from what, and what it differs in.

    Attributes:
        id: Name of the row's folder.
        table: 4 or 5; 0 for a row of our own.
        number: As printed, "1" to "6"; empty for a row of our own.
        title: What the row is, in the table's words.
        start: The model to start from: `base`, the run's model after its stage `text`, `score` or
            `saliency`, or the id of an earlier row.
        stages: Stages to train from there, in order; empty to train nothing.
        scores: Where its scores come from: `head`; `level`, the centre of the level that it names;
            `level_probabilities`, the mean of the centres under its level distribution; `none`.
        answers: Whether its distortion answers count.
        maps: Whether its saliency maps count.
        settings: Dotted setting -> value, where it differs from the run.
        factors: Dotted setting -> what the run's value is multiplied with; whole numbers stay
            whole.
        marks: Table 5's columns: `vision`, `llm`, `regression`.
        leaking: Whether its scores depend on the labels that they are compared with.
        note: One sentence on what it shows.
    """

    id: str
    title: str
    table: int = 0
    number: str = ""
    start: str = "base"
    stages: tuple[str, ...] = ()
    scores: str = "none"
    answers: bool = False
    maps: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    marks: dict[str, bool] = field(default_factory=dict)
    leaking: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        what = f"ablation {self.id!r}: "
        plain = self.id and all(c.isalnum() or c == "_" for c in self.id)
        _check(bool(plain), f"{what}id must be made of letters, digits and _", repr(self.id))
        _check(self.table in (0, 4, 5), f"{what}table must be 4, 5 or 0", self.table)
        known = ("text", "score", "saliency")
        order = [known.index(stage) for stage in self.stages if stage in known]
        ordered = len(order) == len(self.stages) and order == sorted(set(order))
        _check(ordered, f"{what}stages must be some of {', '.join(known)} in order", self.stages)
        kinds = ("head", "level", "level_probabilities", "none")
        _check(self.scores in kinds, f"{what}scores must be one of {', '.join(kinds)}", self.scores)
        marks = set(self.marks) <= {"vision", "llm", "regression"}
        _check(marks, f"{what}marks may be vision, llm and regression", sorted(self.marks))


def load_ablations(path: Path) -> list[Ablation]:
    """Reads the rows of a file such as `configs/ablations.yaml`.

    Raises:
        ConfigError: Unknown or wrongly typed keys, impossible values, two rows of one id, or a
            start that is not there before the row.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--rows", type=list[Ablation])
    try:
        content = parser.parse_path(str(path))
        rows = list(parser.instantiate(content).rows or [])
    except (ArgumentError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {str(error).strip()}; save it as UTF-8 YAML") from error
    _check(bool(rows), f"{path}: a list of ablations under `rows` is expected", "none")
    starts = {"base", "text", "score", "saliency"}
    for row in rows:
        _check(row.id not in starts, f"{path}: every id is there once, and no stage's name", row.id)
        expected = f"{path}: ablation {row.id!r} starts from a stage or an earlier row"
        _check(row.start in starts, expected, repr(row.start))
        starts.add(row.id)
    return rows


def with_settings(
    config: Config, changes: dict[str, Any], factors: dict[str, float] | None = None
) -> Config:
    """The settings with some of them changed.

    Args:
        config: The settings.
        changes: Dotted name -> value ("lora.rank": 16).
        factors: Dotted name of a number -> what it is multiplied with ("frames.fps": 0.5).

    Raises:
        ConfigError: There is no such setting, or the value does not fit it.
    """
    parser = ArgumentParser(exit_on_error=False)
    add_config(parser)
    parsed = parser.parse_object(to_plain(config))
    changes = dict(changes)
    for name, factor in (factors or {}).items():
        before = _setting(config, name)
        _check(isinstance(before, int | float), f"{name}: a number is expected", repr(before))
        product = before * factor
        if isinstance(before, int):
            whole = round(product)
            # A quarter of 2 frames is none: that is no rounding any more.
            near = abs(whole - product) <= 0.1 * abs(product)
            _check(near, f"{name}: {before} * {factor} is near no whole number", product)
            product = whole
        changes[name] = product
    try:
        for name, value in changes.items():
            if ".trainer." not in name:
                _setting(config, name)
            parsed[name] = value
        return config_from(parser.instantiate(parser.parse_object(parsed.as_dict())))
    except (ArgumentError, TypeError) as error:
        raise ConfigError(f"setting {name} = {value!r}: {str(error).strip()}") from error


def _setting(config: Config, name: str) -> Any:
    value = to_plain(config)
    for part in name.split("."):
        known = isinstance(value, dict) and part in value
        _check(known, "a setting of the run is expected", repr(name))
        value = value[part]
    return value
