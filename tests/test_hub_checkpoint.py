"""A checkpoint as it lies on the hub (`scripts/hub_checkpoint.py`): its vocabulary and layout are
the real one's, and everything runs on it.
"""

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from hub_checkpoint import hub_config, qwen_ranks
from safetensors import safe_open
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.vocabulary import LEVELS
from tests.models.conftest import batch_of, levels_of, made_case, stock_batch

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (
    *PROMPTS.values(),
    SALIENCY_PROMPT,
    "Distortions found: Blurriness, Unnatural eyes.\n\n\tI'll  say 3.14159 -- it's ok…",
    "Gesichtsqualität: sehr gut; 人脸质量很好。 Ωmega naïve 👩‍🦰 \r\n end ",
)


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
    assert model.missing_parts == ["score_head"]
    assert not info["unexpected_keys"]
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"score_head"}
    assert model.dtype == torch.bfloat16
    theirs, ours = stock.state_dict(), model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    model.eval().float()
    tokens = tuple(processor.tokenizer.convert_tokens_to_ids(f"Ġ{word}") for word in LEVELS)
    model.config.set_metric(model.metric.replace(level_token_ids=tokens))
    case = made_case(processor, 0)
    levels = levels_of(model, batch_of(processor, case))
    expected = stock.float()(**stock_batch(processor, case)).logits[:, -1, list(tokens)]
    torch.testing.assert_close(levels, expected, atol=1e-5, rtol=1e-5)
    assert levels.std() > 0.5
