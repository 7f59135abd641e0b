"""A checkpoint as it lies on the hub (`scripts/hub_checkpoint.py`): its vocabulary and layout are
the real one's, and everything runs on it.
"""

import itertools
import json
import math
import os
import random
from pathlib import Path

import pytest
import torch
from hub_checkpoint import hub_config, qwen_ranks, write_checkpoint
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from lmme3dhf import Scorer
from lmme3dhf.cli import main
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.merge import REPORT
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.predictions import read_predictions
from lmme3dhf.scores import read_scores
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import DIMENSIONS
from tests.models.conftest import batch_of, levels_of, made_case, stock_batch
from tests.test_habits import make_data

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (
    *PROMPTS.values(),
    SALIENCY_PROMPT,
    "Distortions found: Blurriness, Unnatural eyes.\n\n\tI'll  say 3.14159 -- it's ok…",
    "Gesichtsqualität: sehr gut; 人脸质量很好。 Ωmega naïve 👩‍🦰 \r\n end ",
)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Commands set variables for the libraries; the other tests must not see them."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture(scope="module")
def tokenizer(hub_folder):
    return AutoTokenizer.from_pretrained(hub_folder)


def test_the_geometry_is_the_real_ones_at_its_width():
    """The facts of Qwen2.5-VL-7B-Instruct's config.json. Catches proportions that only look like
    it.
    """
    config = hub_config(28, 3584, 32, 1280, "bfloat16")
    text = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
    assert [config[name] for name in text] == [28, 4, 18944, 152064]
    assert config["rope_scaling"]["mrope_section"] == [16, 24, 24]
    vision = config["vision_config"]
    assert (vision["intermediate_size"], vision["num_heads"]) == (3420, 16)
    assert vision["fullatt_block_indexes"] == [7, 15, 23, 31]


def test_the_layout_is_the_hubs(hub_folder):
    """Catches a folder as today's libraries write it, on which nothing new is tried."""
    config = json.loads((hub_folder / "config.json").read_text())
    assert "text_config" not in config
    index = json.loads((hub_folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= set(index)
    assert all(
        name.startswith(("visual.", "model.layers.", "model.", "lm_head.")) for name in index
    )
    with safe_open(hub_folder / index["lm_head.weight"], "pt") as shard:
        rows = shard.get_slice("lm_head.weight")
        assert (rows.get_shape(), rows.get_dtype()) == ([152064, 64], "BF16")


def test_the_vocabulary_is_qwens(hub_folder, tokenizer):
    """Ids that Qwen2.5's documentation and released checkpoints give. Catches special tokens that
    moved, and level words that are not one token.
    """
    assert len(tokenizer) == 151665
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    assert tokenizer.convert_tokens_to_ids(list(names)) == [151643, 151644, 151645, 151652, 151653]
    names = ("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "<|file_sep|>")
    assert tokenizer.convert_tokens_to_ids(list(names)) == [151654, 151655, 151656, 151657, 151664]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    sentences = [f"The quality of the human face in this video is {word}" for word in LEVELS]
    last = [tokenizer.encode(sentence)[-1] for sentence in sentences]
    assert last == [3873, 7852, 6624, 1661, 9073]
    assert len({tuple(tokenizer.encode(sentence)[:-1]) for sentence in sentences}) == 1
    merges = (hub_folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert len(merges) == 1 + 151643 - 256


def by_ranks(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Byte pair encoding as tiktoken defines it: the neighbours whose union has the lowest rank
    are joined, until none has one.
    """
    parts = [bytes([byte]) for byte in piece]
    while True:
        unions = [
            (ranks[a + b], i)
            for i, (a, b) in enumerate(itertools.pairwise(parts))
            if a + b in ranks
        ]
        if not unions:
            return [ranks[part] for part in parts]
        place = min(unions)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_texts_are_cut_as_by_ranks(tokenizer):
    """Against the definition by ranks, which knows no merges. Catches a merge that is missing, or
    in the wrong order.
    """
    ranks = qwen_ranks()
    backend = tokenizer.backend_tokenizer
    rng = random.Random(0)
    # Words that no vocabulary was made for take many merges.
    odd = ["".join(rng.choices("abcdeilmnorstu0ÄßλЖ漢字ー", k=12)) for _ in range(300)]
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    for text in (*TEXTS, " ".join(odd), *pages):
        normal = backend.normalizer.normalize_str(text)
        assert tokenizer.decode(tokenizer.encode(text)) == normal
        pieces = backend.pre_tokenizer.pre_tokenize_str(normal)
        expected = [
            token
            for _, (start, end) in pieces
            for token in by_ranks(normal[start:end].encode(), ranks)
        ]
        assert tokenizer.encode(text) == expected


@torch.no_grad()
def test_it_loads_whole_and_says_the_same_as_the_stock_class(hub_folder):
    """Catches weights under old names that are left over, or that stay random, and a geometry that
    the flat configuration gives and we lose.
    """
    processor = AutoProcessor.from_pretrained(hub_folder)
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(hub_folder).eval()
    model, info = LMME3DHF.from_pretrained(hub_folder, output_loading_info=True)
    assert model.missing_parts == ["heads.score"]
    assert not info["unexpected_keys"]
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"heads"}
    assert model.dtype == torch.bfloat16
    theirs, ours = stock.state_dict(), model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    model.eval().float()
    tokens = tuple(processor.tokenizer.convert_tokens_to_ids(f"Ġ{word}") for word in LEVELS)
    aspects = with_tokens(model.metric.aspects, processor.tokenizer)
    assert all(aspect.scale.tokens == tokens for aspect in aspects.values())
    model.config.set_metric(model.metric.replace(aspects=aspects))
    case = made_case(processor, 0)
    levels = levels_of(model, batch_of(processor, case))
    expected = stock.float()(**stock_batch(processor, case)).logits[:, -1, list(tokens)]
    torch.testing.assert_close(levels, expected, atol=1e-5, rtol=1e-5)
    assert levels.std() > 0.5


def command(*words: object) -> None:
    """Runs a command of the package, which has to end well."""
    assert main([str(word) for word in words]) == 0


def test_a_run_in_bfloat16_becomes_a_model(hub_folder, tmp_path):
    """LoRA and head on 28 layers: the merged folder scores the clips as the adapter does around the
    base, both by float32 arithmetic. Catches a merge that refuses the run, and one that loses small
    updates to the rounding of bfloat16.
    """
    data, run = tmp_path / "data", tmp_path / "run"
    make_data(data)
    frames = ["--frames.frames", 4, "--frames.min_pixels", 3136, "--frames.max_pixels", 12544]
    trainer = ["--score.trainer.max_steps", 3, "--score.trainer.learning_rate", 2e-3]
    words = ["--config", ROOT / "configs" / "paper.yaml", "--model", hub_folder, "--threads", 1]
    words += ["--data.root", data, "--data.workers", 0, *frames, *trainer]
    command("train", "score", "--out", run, *words)
    command("merge", run)
    report = json.loads((run / "merged" / REPORT).read_text())
    assert report["dtype"] == "bfloat16"
    assert report["score_points_max"] <= 0.5
    assert report["level_changes"] == 0

    base = LMME3DHF.from_pretrained(hub_folder, dtype=torch.float32)
    metric = json.loads((run / "run.json").read_text())["metric"]
    base.config.set_metric(MetricConfig.from_dict(metric))
    trained = PeftModel.from_pretrained(base, run / "adapter").get_base_model()
    trained.missing_parts = []
    expected = Scorer(trained, AutoProcessor.from_pretrained(hub_folder), workers=0)
    merged = Scorer.from_pretrained(run / "merged", dtype="float32", workers=0)
    clips = sorted((data / "video_RGB").glob("*.mp4"))
    results = [scorer.score(clips, answers=None, maps=False) for scorer in (expected, merged)]
    scores = []
    for one, other in zip(*results, strict=True):
        for dimension in DIMENSIONS:
            rating, same = getattr(one, dimension), getattr(other, dimension)
            assert same.score == pytest.approx(rating.score, abs=0.5)
            assert same.level == rating.level
            scores.append(rating.score)
    assert len(scores) == 12
    assert max(scores) - min(scores) > 0.5


@pytest.fixture(scope="module")
def wide_folder(hub_folder, tmp_path_factory) -> Path:
    """The same at width 512."""
    folder = tmp_path_factory.mktemp("wide") / "Qwen2.5-VL"
    write_checkpoint(folder, hidden=512)
    return folder


@pytest.fixture(scope="module")
def drawn_data(tmp_path_factory) -> Path:
    """A small synthetic data set with all lists and maps."""
    data = tmp_path_factory.mktemp("drawn") / "data"
    words = ["--synthetic.latents", 4, "--synthetic.processes", 1, "--out", data]
    command("data", "synthesize", "--config", ROOT / "configs" / "demo.yaml", *words)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("config", ["paper", "official"])
def test_the_chain_runs_on_it(wide_folder, drawn_data, tmp_path, config):
    """All stages with the settings of a full run but for their length, in bfloat16. Catches what
    only the hub's layout, the real vocabulary or the depth breaks.
    """
    words = ["--config", ROOT / "configs" / f"{config}.yaml", "--data.root", drawn_data]
    model = wide_folder
    for stage in ("text", "score", "saliency"):
        run = tmp_path / stage
        steps = [f"--{stage}.trainer.max_steps", 10]
        command("train", stage, "--model", model, "--out", run, *words, *steps)
        command("merge", run)
        model = run / "merged"
        report = json.loads((model / REPORT).read_text())
        print(f"{config}, {stage}: {report}")
        assert report["dtype"] == "bfloat16"
        assert report.get("score_points_max", 0) <= 0.5
        assert report.get("level_changes", 0) == 0
    lists = [drawn_data / kind / "eval_quality.json" for kind in ("text", "numerical")]
    record = tmp_path / "predictions.jsonl"
    command("predict", "--model", model, "--data", *lists, "--out", record)
    records = read_predictions(record)
    assert len({prediction.video for prediction in records}) == 10
    clip = drawn_data / "video_RGB" / f"{records[0].video}.mp4"
    command("score", clip, "--model", model, "--out", tmp_path / "scores.csv")
    (row,) = read_scores(tmp_path / "scores.jsonl")
    assert row.reason is None
    stock, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        model, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert stock.dtype == torch.bfloat16
    replies = tmp_path / "replies.jsonl"
    words = ["--data", drawn_data / "distortion" / "eval.json", "--ratings", "false"]
    words += ["--maps", "false", "--answers", "reply", "--out", replies]
    command("predict", "--model", model, *words)
    assert len({prediction.video for prediction in read_predictions(replies)}) == 10
    assert all(math.isfinite(prediction.score) for prediction in records)
