"""The tiny base: an ordinary Hugging Face folder with Qwen2.5-VL's own formats."""

import pytest
import torch
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.models.tiny import SPECIAL_TOKENS, TINY_BASE, save_tiny, tiny_config, tiny_tokenizer
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import DIMENSIONS

# Typed off the chat format that Qwen documents for its 2.5-VL models.
DIALOGUE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>How is it?<|im_end|>\n"
    "<|im_start|>assistant\nIt is good.<|im_end|>\n"
    "<|im_start|>user\nSure? <|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)
MESSAGES = [
    {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How is it?"}]},
    {"role": "assistant", "content": "It is good."},
    {"role": "user", "content": [{"type": "text", "text": "Sure? "}, {"type": "image"}]},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    """As anybody loads it."""
    return AutoTokenizer.from_pretrained(tiny_folder)


def test_level_words_are_single_tokens_after_is(tokenizer):
    """Catches a level word in pieces: its probability would be that of its first letters."""
    tokens = set()
    for dimension in DIMENSIONS:
        prefix = f"The {dimension} of the human face in this video is"
        head = tokenizer.encode(prefix)
        for level in LEVELS:
            ids = tokenizer.encode(f"{prefix} {level}.")
            assert ids[: len(head)] == head
            assert tokenizer.decode(ids[len(head)]) == f" {level}"
            assert tokenizer.decode(ids[len(head) + 1 :]) == "."
            tokens.add(ids[len(head)])
    assert len(tokens) == 5


def test_chat_format_is_qwens(processor, tokenizer):
    """Catches line ends, system message or vision marks other than Qwen's: the 7B model would see
    prompts that it was not trained on, and the tiny one others than the 7B.
    """
    for door in (processor, tokenizer):
        text = door.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
        assert text == DIALOGUE
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert processor.apply_chat_template(own, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    )


def test_special_tokens_are_whole_and_text_comes_back(tokenizer):
    """Catches a placeholder in pieces, ids shared by two tokens, and bytes that are lost."""
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert len(set(ids)) == len(SPECIAL_TOKENS)
    for token, index in zip(SPECIAL_TOKENS, ids, strict=True):
        assert tokenizer.encode(token) == [index]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert len(tokenizer) <= 1024
    for text in (PROMPTS["distortion"], "Gesichtszüge: 51.2 % 👤\n\t人脸", " two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    # Its own words are short, else training on it would be slow.
    assert len(tokenizer.encode(PROMPTS["quality"])) <= len(PROMPTS["quality"].split()) + 8


def test_tokenizer_refuses_a_corpus_without_the_level_words():
    """Catches a base that could never answer with one token a level."""
    with pytest.raises(ValueError, match=r"level word 'bad' is not one token"):
        tiny_tokenizer(["nothing of that kind"] * 50)


def test_tokenizer_is_the_same_every_time():
    """Catches a training that depends on hashing or threads: the shipped weights fit one
    vocabulary.
    """
    corpus = [f"It is {level}, and the face too." for level in LEVELS] * 30
    assert tiny_tokenizer(corpus).get_vocab() == tiny_tokenizer(corpus).get_vocab()


def test_geometry_is_small_and_real(tokenizer):
    """Catches a base without window attention, without full attention, or with a rotary layout that
    does not fill a head (16 pairs, by hand 128 / 4 heads / 2).
    """
    config = tiny_config(tokenizer)
    full = set(config.vision_config.fullatt_block_indexes)
    assert full
    assert full < set(range(config.vision_config.depth))
    assert sum(config.text_config.rope_parameters["mrope_section"]) == 16
    assert config.vision_config.out_hidden_size == config.text_config.hidden_size
    assert config.text_config.vocab_size == len(tokenizer)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 5e6


def test_folder_is_an_ordinary_one(tiny_folder, tmp_path, processor):
    """Catches files that only our own code could read, and weights that are not rounded where they
    are asked to be: the shipped base holds half the bytes.
    """
    assert isinstance(processor, Qwen2_5_VLProcessor)
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_folder)
    assert stock.config.video_token_id == processor.video_token_id
    assert stock.config.image_token_id == processor.image_token_id
    save_tiny(tmp_path, processor.tokenizer, stock, torch.bfloat16)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tiny_folder, tmp_path)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path)
    assert again.dtype == torch.bfloat16
    assert not list(tiny_folder.rglob("*.py"))
    assert not list(tiny_folder.rglob("*.bin"))


def test_processor_keeps_the_seven_b_constants(processor):
    """The 7B's preprocessor_config.json: 14 px patches, pairs of frames, 2 x 2 merges, CLIP's mean
    and deviation. Catches a tiny base that sees other pictures than the real one.
    """
    video = processor.video_processor
    assert (video.patch_size, video.temporal_patch_size, video.merge_size) == (14, 2, 2)
    assert list(video.image_mean) == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert list(video.image_std) == pytest.approx([0.26862954, 0.26130258, 0.27577711])


def test_shipped_base_loads_in_both_classes():
    """Catches a shipped folder that is too large, incomplete, or of another tokenizer."""
    weights = TINY_BASE / "model.safetensors"
    if not weights.exists():
        pytest.skip("the tiny base's weights are not in this checkout")
    assert weights.stat().st_size <= 10e6
    assert LMME3DHF.from_pretrained(TINY_BASE).missing_parts in ([], ["heads.score"])
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        TINY_BASE, output_loading_info=True
    )
    assert not info["missing_keys"]
    shipped = AutoProcessor.from_pretrained(TINY_BASE)
    assert len(shipped.tokenizer) == model.config.text_config.vocab_size
    assert shipped.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == (
        DIALOGUE
    )
