"""How fast is stage 1 beside ms-swift, with which the authors trained? Same checkpoint, same
samples, one thread, by turns in one run (row R13 of the benchmark; `bench.py` has the others).

ms-swift is no dependency of this project. It gets an environment of its own, whose interpreter is
given:

    python -m venv DIR
    DIR/bin/pip install ms-swift==4.6.0 torch torchvision qwen_vl_utils decord
    python scripts/bench_peer.py --peer_python DIR/bin/python --out bench_peer.json

The checkpoint is a Qwen2.5-VL with random weights, whose proportions are like the 7B model's, in
an ordinary folder that both sides load as any other. The samples are the three released questions
on each of some clips of 4 s (240 frames of 512 x 512, of which the model sees 8 of 504 x 504: 1,296
visual tokens). All sides train in float32 what the released recipe trains: LoRA of rank 8 on the
language model's linear layers, AdamW, cosine. To make them equal, all go through the list in its
order, take the three questions of a clip in one optimiser step, start from equal adapters, and do
without dropout and warm-up. Then the loss of every step is the same on all sides: the equality
figure beside the ratio.

- recipe: `swift sft` with what the released `train_LLM.sh` gives and otherwise ms-swift's own
  defaults: one question a forward, gradient checkpointing, each clip decoded and encoded by the
  tower for each question;
- best: ms-swift's fastest setting that runs on a CPU, the recipe without checkpointing. Its packing
  and its padding-free batches insist on flash attention, so they need a GPU; what it caches of a
  data set are lengths, neither frames nor features;
- ours: the package's stage 1 as it is: the questions on a clip packed into one sequence, visual
  tokens from the feature store, which is filled before the first step. What filling costs is told
  beside, with the ratio for a run of a single epoch that pays for all of it.

The streams are cheap to decode (some 0.2 Mbit/s): a side that decodes more is hardly punished for
it here. ms-swift 4.6 learns the line feed behind the reply too; the release that the authors used
did not, nor do we, so it is told to end a reply as that release did.

Times are processor time, user and system, which other programs disturb least, per sample (one
question on one clip), of the steps after the first: from the end of one optimiser step to the end
of the next, with everything in between, but without start-up. Medians over the steps of all rounds.
The exit status is 1 when the ratio or the losses miss their gates.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

# Only the standard library above: the peer's interpreter runs this file too, and knows nothing of
# the project. Everything else is imported where it is used.

GATE, AIM = 3.0, 4.0
LOSS_GATE = 1e-4
QUESTIONS = 3
PEERS = {"recipe": True, "best": False}  # with gradient checkpointing or without
SIDES = (*PEERS, "ours")
# What the released recipe sets, and the second moment that was AdamW's default then.
LEARNING_RATE, WEIGHT_DECAY, BETA2 = 1e-4, 0.01, 0.999
RANK, ALPHA = 8, 32
# Qwen's vocabulary: ordinary tokens, then the special ones, then rows that no token uses. ms-swift
# finds images and video in a sequence by the numbers 151655 and 151656.
ORDINARY_TOKENS, EMBEDDINGS = 151_643, 152_064
SIZE_PX, FRAMES, FPS = 512, 240, 60


def bench_tokenizer():
    """The tiny base's tokenizer with Qwen's special tokens at Qwen's own numbers."""
    from transformers import Qwen2Tokenizer

    from lmme3dhf.aspects import GEN3DHF
    from lmme3dhf.data.gen3dhf import PROMPTS, level_reply
    from lmme3dhf.data.synthetic.pretraining import vocabulary_corpus
    from lmme3dhf.models.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS, tiny_tokenizer
    from lmme3dhf.vocabulary import LEVELS

    replies = tuple(
        level_reply(GEN3DHF[dimension], level) for dimension in GEN3DHF for level in LEVELS
    )
    learnt = tiny_tokenizer(vocabulary_corpus(tuple(PROMPTS.values()), replies))
    model = json.loads(learnt.backend_tokenizer.to_str())["model"]
    unused = range(len(model["vocab"]), ORDINARY_TOKENS)
    vocabulary = model["vocab"] | {f"<|unused_{number}|>": number for number in unused}
    vocabulary |= {token: ORDINARY_TOKENS + i for i, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=32768,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_checkpoint(folder: Path, *, hidden: int, seed: int) -> None:
    """Writes a random Qwen2.5-VL as an ordinary folder: 4 language layers, 4 vision blocks.

    The proportions are the 7B model's where a small model can have them (MLP 5.3 times as wide as
    the hidden state, windows of 112 px, the last block with full attention); the tower costs about
    0.4 of what the language model does on the same clip.

    Args:
        folder: Where to.
        hidden: Width of the language model, a multiple of 64.
        seed: Of the weights.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from lmme3dhf.models.tiny import save_tiny, tiny_config

    tokenizer = bench_tokenizer()
    config = tiny_config(tokenizer).to_dict()
    config["text_config"] |= {
        "vocab_size": EMBEDDINGS,
        "hidden_size": hidden,
        "intermediate_size": hidden * 37 // 7,
        "num_hidden_layers": 4,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32768,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [8, 12, 12],
        },
    }
    config["vision_config"] |= {
        "depth": 4,
        "hidden_size": 144,
        "intermediate_size": 384,
        "num_heads": 4,
        "out_hidden_size": hidden,
        "window_size": 112,
        "fullatt_block_indexes": [3],
    }
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    save_tiny(folder, tokenizer, model, torch.float32)


def write_clips(folder: Path, count: int, *, size_px: int, frames: int) -> list[Path]:
    """Writes clips: a synthetic face that moves across the picture. A whole turn would take minutes
    to render.
    """
    import numpy as np

    from lmme3dhf.data.synthetic.clips import ClipRenderer
    from lmme3dhf.data.synthetic.generators import GENERATORS, clip_plan, video_name
    from lmme3dhf.data.synthetic.render import write_clip

    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        generator, latent = number % len(GENERATORS), number // len(GENERATORS)
        picture_HW3, _ = ClipRenderer(clip_plan(generator, latent, 1), size_px).picture(0.0, 0)
        moves = np.linspace(0, size_px / 4, frames).round().astype(int)
        shown = [np.roll(picture_HW3, move, axis=1) for move in moves]
        path = folder / f"{video_name(generator, latent)}.mp4"
        write_clip(path, shown, FPS, crf=23)  # 23 is x264's default
        paths.append(path)
    return paths


def write_lists(root: Path, clips: list[Path]) -> Path:
    """Writes the three questions on each clip, as a released list below `root` for us, and as JSON
    lines for ms-swift, whose path is returned; the order is the same.
    """
    from lmme3dhf.annotations.descriptions import REPLY_PREFIX
    from lmme3dhf.aspects import GEN3DHF
    from lmme3dhf.data.gen3dhf import PLACEHOLDER, PROMPTS, level_reply, write_list
    from lmme3dhf.data.samples import Sample
    from lmme3dhf.vocabulary import DISTORTIONS, LEVELS

    samples = []
    for number, clip in enumerate(clips):
        level, named = LEVELS[number % len(LEVELS)], DISTORTIONS[number % len(DISTORTIONS)]
        replies = {dimension: level_reply(GEN3DHF[dimension], level) for dimension in GEN3DHF}
        replies["distortion"] = f"{REPLY_PREFIX} {named}"
        samples += [
            Sample(video=clip.stem, path=clip, task=task, prompt=PROMPTS[task], reply=reply)
            for task, reply in replies.items()
        ]
    (root / "text").mkdir(parents=True, exist_ok=True)
    write_list(root / "text" / "bench.json", samples)
    rows = [
        {
            "messages": [
                {"role": "user", "content": PLACEHOLDER + sample.prompt},
                {"role": "assistant", "content": sample.reply},
            ],
            "videos": [str(sample.path)],
        }
        for sample in samples
    ]
    theirs = root / "bench.jsonl"
    theirs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return theirs


def our_settings(model: Path, root: Path) -> str:
    """Settings of our side, as YAML: the released recipe's optimiser, the rest the package's."""
    from lmme3dhf.config import Config, DataSettings, LoraSettings, TextSettings, dump_config

    config = Config(
        model=str(model),
        dtype="float32",
        threads=1,
        lora=LoraSettings(rank=RANK, alpha=ALPHA, dropout=0.0),
        data=DataSettings(root=root, video_root=root / "video_RGB", workers=0),
        text=TextSettings(
            lists=("text/bench.json",),
            trainer={
                "num_train_epochs": 1,
                "per_device_train_batch_size": 1,
                "train_sampling_strategy": "sequential",
                "learning_rate": LEARNING_RATE,
                "weight_decay": WEIGHT_DECAY,
                "adam_beta2": BETA2,
                "lr_scheduler_type": "cosine",
                "logging_steps": 1,
            },
        ),
    )
    return dump_config(config)


def peer_arguments(model: Path, samples: Path, out: Path, *, checkpointing: bool) -> list[str]:
    """Arguments of `swift sft`: those of the released recipe, and what makes the sides equal."""
    recipe = {
        "model": model,
        "model_type": "qwen2_5_vl",
        "template": "qwen2_5_vl",
        "check_model": "false",
        "dataset": samples,
        "split_dataset_ratio": 0,
        "tuner_type": "lora",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "target_modules": "all-linear",
        "freeze_vit": "true",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "max_length": 2048,
        "system": "You are a helpful assistant.",
        "output_dir": out,
        "add_version": "false",
        "gradient_checkpointing": str(checkpointing).lower(),
    }
    equal = {
        "torch_dtype": "float32",
        "bf16": "false",
        "fp16": "false",
        "lora_dropout": 0,
        "adam_beta2": BETA2,
        "gradient_accumulation_steps": QUESTIONS,
        "dataset_shuffle": "false",
        "train_dataloader_shuffle": "false",
        # Workers would do the same work in other processes, where it is not counted.
        "dataloader_num_workers": 0,
        "dataset_num_proc": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    return [part for name, value in (recipe | equal).items() for part in (f"--{name}", str(value))]


def environment(cache: Path) -> dict[str, str]:
    """Environment of both sides: one thread, no GPU, no network, frames as Qwen2.5-VL chooses them
    by default.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VIDEO_", "FPS", "IMAGE_", "QWENVL_"))
        and name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    one = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return (
        kept
        | dict.fromkeys(one, "1")
        | {
            "CUDA_VISIBLE_DEVICES": "",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(cache / "hf"),
            "MODELSCOPE_CACHE": str(cache / "modelscope"),
            "FORCE_QWENVL_VIDEO_READER": "decord",
            "FPS": "2.0",
        }
    )


def watch(record: dict[str, Any]) -> None:
    """Notes, in this process, the processor time at the end of every optimiser step, and the tokens
    of every sequence that goes through the model before the first such end.

    Also makes the adapters start equal on both sides, by drawing them from a generator that depends
    on nothing but their order.
    """
    import torch
    from peft.tuners.lora.layer import LoraLayer
    from torch import nn
    from torch.nn.modules.module import register_module_forward_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(1)
    record["ends"], record["sequences"] = [], []

    def after_step(*_: Any) -> None:
        tokens.remove()
        used = os.times()
        record["ends"].append([used.user, used.system])

    def after_module(module: nn.Module, inputs: tuple, _: Any) -> None:
        if isinstance(module, nn.Embedding) and module.num_embeddings == EMBEDDINGS:
            record["sequences"].append(inputs[0].tolist())

    tokens = register_module_forward_hook(after_module)
    register_optimizer_step_post_hook(after_step)
    draw, drawn = LoraLayer.reset_lora_parameters, iter(range(1 << 20))

    def draw_equally(layer: nn.Module, name: str, *args: Any, **kwargs: Any) -> None:
        draw(layer, name, *args, **kwargs)
        weight = layer.lora_A[name].weight
        rng = torch.Generator().manual_seed(next(drawn))
        bound = weight.shape[1] ** -0.5
        with torch.no_grad():
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=rng))

    LoraLayer.reset_lora_parameters = draw_equally


def run_side(side: str, record_to: Path, arguments: list[str]) -> None:
    """One side, in the interpreter that runs it; writes what `watch` saw.

    Args:
        side: `fill` (arguments: settings), `ours` (settings, run folder) or `peer` (arguments of
            `swift sft`).
        record_to: A JSON file.
        arguments: See `side`.
    """
    record: dict[str, Any] = {}
    if side == "fill":
        record["seconds"] = fill_store(Path(arguments[0]))
    elif side == "ours":
        from lmme3dhf.config import load_config
        from lmme3dhf.stages.text import train_text

        watch(record)
        train_text(load_config(Path(arguments[0])), Path(arguments[1]))
    else:
        from swift import sft_main
        from swift.template import TEMPLATE_MAPPING

        watch(record)
        TEMPLATE_MAPPING["qwen2_5_vl"].suffix = ["<|im_end|>"]
        sft_main(arguments)
    record["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record["libraries"] = library_versions()
    record_to.write_text(json.dumps(record), encoding="utf-8")


def fill_store(settings: Path) -> float:
    """Computes the visual tokens of all clips; returns the processor time, with the loading of the
    tower.
    """
    import torch

    from lmme3dhf.config import load_config
    from lmme3dhf.models.hub import model_folder
    from lmme3dhf.models.modeling import load_processor
    from lmme3dhf.stages import run as runs
    from lmme3dhf.stages.media import clip_media

    torch.set_num_threads(1)
    config = load_config(settings)
    folder = model_folder(config.model)
    clips = [sample.path for sample in runs.listed_samples(config, config.text.lists)]
    processor = load_processor(folder)
    before = os.times()
    clip_media(config, folder, processor, clips, "features")
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def library_versions() -> dict[str, str]:
    """Versions of what both sides stand on, in this interpreter's environment."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("ms-swift", "torch", "transformers", "peft", "accelerate", "qwen-vl-utils"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peer_version(python: Path) -> str:
    """Version of ms-swift in the environment of an interpreter.

    Raises:
        SystemExit: The interpreter is missing, or something is not installed there.
    """
    needed = ("torch", "torchvision", "qwen-vl-utils", "decord", "ms-swift")
    code = (
        f"from importlib.metadata import version; print([version(name) for name in {needed}][-1])"
    )
    how = (
        "make an environment with 'python -m venv DIR' and 'DIR/bin/pip install ms-swift==4.6.0 "
        "torch torchvision qwen_vl_utils decord', and give --peer_python DIR/bin/python"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"bench_peer.py: {python}: {error.strerror}; {how}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]
        raise SystemExit(f"bench_peer.py: {python} has no ms-swift that runs ({last}); {how}")
    return done.stdout.strip()


def run_child(python: Path, side: str, arguments: list[str], place: Path) -> dict[str, Any]:
    """Runs one side in a process of its own.

    Args:
        python: The interpreter.
        side: See `run_side`.
        arguments: See `run_side`.
        place: Name of the record (`.json`) and of what the side printed (`.log`), without ending.

    Returns:
        The record.

    Raises:
        SystemExit: The side failed.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    record, log = place.with_suffix(".json"), place.with_suffix(".log")
    # Not resolved: an environment is found by the link that its interpreter is.
    command = [Path(os.path.abspath(python)), Path(__file__).resolve()]
    command += ["--side", side, "--record", record, "--", *arguments]
    with log.open("w", encoding="utf-8") as printed:
        done = subprocess.run(
            [str(part) for part in command],
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=place.parent,
            env=environment(place.parent / "cache"),
        )
    if done.returncode or not record.exists():
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
        raise SystemExit(
            f"bench_peer.py: {side} stopped with status {done.returncode}; its last words:\n"
            + "\n".join(last)
        )
    return json.loads(record.read_text(encoding="utf-8"))


def losses(path: Path) -> list[float]:
    """The loss of each step, from the log that either side writes, JSON lines."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def step_seconds(ends: list[list[float]]) -> list[float]:
    """Processor seconds per sample of the steps after the first.

    Args:
        ends: (user, system) seconds at the end of each step.
    """
    return [(sum(end) - sum(before)) / QUESTIONS for before, end in pairwise(ends)]


def same_tokens(separate: list[list[int]], packed: list[int]) -> bool:
    """Whether a packed sequence holds exactly these dialogues.

    It has one token for each different beginning of a dialogue, and each dialogue's tokens in their
    order. The last token of a dialogue is no input there, for nothing is predicted from it.
    """
    dialogues = [dialogue[:-1] for dialogue in separate]
    beginnings = {
        tuple(dialogue[: end + 1]) for dialogue in dialogues for end in range(len(dialogue))
    }
    if len(beginnings) != len(packed):
        return False
    for dialogue in dialogues:
        rest = iter(packed)
        if not all(token in rest for token in dialogue):
            return False
    return True


def report(runs: dict[str, list[dict[str, Any]]], fill_s: float, clips: int) -> dict[str, Any]:
    """The row R13.

    Args:
        runs: Side -> the records of its rounds, with `losses`.
        fill_s: Processor seconds to fill the store.
        clips: Clips in the list.
    """
    seconds = {side: [s for run in runs[side] for s in step_seconds(run["ends"])] for side in SIDES}
    median = {side: statistics.median(seconds[side]) for side in SIDES}
    filled = median["ours"] + fill_s / (clips * QUESTIONS)
    first = [run["losses"][0] for side in SIDES for run in runs[side]]
    curves = [run["losses"] for side in SIDES for run in runs[side]]
    spread = [max(step) - min(step) for step in zip(*curves, strict=True)]
    separate = [row for call in runs["best"][0]["sequences"] for row in call]
    packed = [row for call in runs["ours"][0]["sequences"] for row in call]
    tokens = len(packed) == 1 and same_tokens(separate, packed[0])
    return {
        "id": "R13",
        "what": "stage 1, per sample: ms-swift without checkpointing / ours",
        "ratio": median["best"] / median["ours"],
        "gate": GATE,
        "aim": AIM,
        "difference": max(first) - min(first),
        "difference_of": "the first step's loss, largest less smallest over all sides and rounds",
        "difference_all_steps": max(spread),
        "same_tokens": tokens,
        "ratio_recipe": median["recipe"] / median["ours"],
        "ratio_single_epoch": median["best"] / filled,
        "ratio_recipe_single_epoch": median["recipe"] / filled,
        "seconds": median,
        "spread": {side: [min(seconds[side]), max(seconds[side])] for side in SIDES},
        "steps": {side: len(seconds[side]) for side in SIDES},
        "fill_seconds_per_clip": fill_s / clips,
        "tokens_per_clip": {"peer": sum(map(len, separate)), "ours": sum(map(len, packed))},
        "losses": {side: runs[side][0]["losses"] for side in SIDES},
        "peak_rss_mb": {side: max(run["peak_rss_mb"] for run in runs[side]) for side in SIDES},
        "libraries": {side: runs[side][0]["libraries"] for side in SIDES},
    }


def table(row: dict[str, Any]) -> str:
    """The row as Markdown."""
    lines = [
        "| side | CPU s a sample | least to most | ratio to ours | tokens a clip | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for side in SIDES:
        least, most = row["spread"][side]
        lines.append(
            f"| {side} | {row['seconds'][side]:.2f} | {least:.2f} to {most:.2f} | "
            f"{row['seconds'][side] / row['seconds']['ours']:.2f} | "
            f"{row['tokens_per_clip']['ours' if side == 'ours' else 'peer']} | "
            f"{row['peak_rss_mb'][side]:.0f} |"
        )
    return "\n".join(lines)


def conclusions(row: dict[str, Any]) -> str:
    """The row's ratios and differences in a sentence each."""
    return (
        f"Ours is {row['ratio']:.2f} times as fast as ms-swift's best (gate {GATE:g}, aim {AIM:g}) "
        f"and {row['ratio_recipe']:.2f} times as fast as the recipe; a run of a single epoch that "
        f"pays for filling the store, {row['fill_seconds_per_clip']:.2f} s a clip, "
        f"{row['ratio_single_epoch']:.2f} and {row['ratio_recipe_single_epoch']:.2f} times. The "
        f"losses differ by {row['difference']:.1e} at the first step (gate {LOSS_GATE:g}) and by "
        f"at most {row['difference_all_steps']:.1e} at any; the tokens are "
        f"{'the same' if row['same_tokens'] else 'NOT the same'}."
    )


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """Runs the comparison and prints the table; returns the row (None in a side's own process)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer_python", type=Path, help="interpreter that has ms-swift")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--report", type=Path, help="page whose section on ms-swift is replaced")
    parser.add_argument("--clips", type=int, default=4, help="three samples each; one step each")
    parser.add_argument("--rounds", type=int, default=2, help="each side trains so many times")
    parser.add_argument("--hidden", type=int, default=448, help="width of the model, times 64")
    parser.add_argument("--side", choices=("fill", "ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        run_side(args.side, args.record, args.arguments)
        return None
    if args.peer_python is None:
        parser.error("--peer_python is missing; the first lines of this file say how to make it")
    if args.clips < 2 or args.rounds < 1 or args.hidden < 64 or args.hidden % 64:
        parser.error("--clips of at least 2, --rounds of at least 1, --hidden in multiples of 64")
    installed = peer_version(args.peer_python)

    from bench_parts.report import with_section

    from lmme3dhf.files import replace_file, write_json

    with tempfile.TemporaryDirectory(prefix="bench_peer_") as folder:
        row = compare(
            Path(folder),
            args.peer_python,
            clips=args.clips,
            rounds=args.rounds,
            hidden=args.hidden,
        )
    row["settings"] = {
        "clips": args.clips,
        "rounds": args.rounds,
        "hidden": args.hidden,
        "ms_swift": installed,
        "load_average": os.getloadavg()[0],
        "processor": platform.processor() or platform.machine(),
    }
    found = f"{table(row)}\n\n{conclusions(row)}"
    print(found)
    if args.out:
        write_json(args.out, row)
    if args.report:
        content = args.report.read_text(encoding="utf-8")
        replace_file(args.report, with_section(args.report, content, "peer", found))
    if row["ratio"] < GATE or row["difference"] > LOSS_GATE or not row["same_tokens"]:
        raise SystemExit(1)
    return row


def compare(
    work: Path, peer_python: Path, *, clips: int, rounds: int, hidden: int
) -> dict[str, Any]:
    """Makes checkpoint and samples, lets the sides train by turns, and returns the row.

    Args:
        work: A folder for all of it.
        peer_python: Interpreter that has ms-swift.
        clips: How many; three samples and one optimiser step each.
        rounds: How often each side trains.
        hidden: Width of the model.
    """
    started = time.monotonic()

    def tell(what: str) -> None:
        print(f"bench_peer: {what} ({time.monotonic() - started:.0f} s)", flush=True)

    model, data, settings = work / "model", work / "data", work / "ours.yaml"
    tell("writing the checkpoint and the clips")
    write_checkpoint(model, hidden=hidden, seed=0)
    paths = write_clips(data / "video_RGB", clips, size_px=SIZE_PX, frames=FRAMES)
    samples = write_lists(data, paths)
    settings.write_text(our_settings(model, data), encoding="utf-8")
    our_python = Path(sys.executable)
    tell("filling the feature store")
    filled = run_child(our_python, "fill", [str(settings)], work / "fill" / "fill")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        first = number % len(SIDES)
        for side in SIDES[first:] + SIDES[:first]:
            place = work / f"round{number}" / side
            if side == "ours":
                run = run_child(our_python, side, [str(settings), str(place)], place)
                run["losses"] = losses(place / "losses.jsonl")
            else:
                given = peer_arguments(model, samples, place, checkpointing=PEERS[side])
                run = run_child(peer_python, "peer", given, place)
                run["losses"] = losses(place / "logging.jsonl")
            runs[side].append(run)
            seconds = statistics.median(step_seconds(run["ends"]))
            tell(f"round {number + 1} of {rounds}, {side}: {seconds:.2f} CPU s a sample")
    return report(runs, filled["seconds"], clips)


if __name__ == "__main__":
    main()
