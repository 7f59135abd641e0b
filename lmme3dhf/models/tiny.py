"""The tiny base: Qwen2.5-VL's real architecture with a few million parameters, as an ordinary
Hugging Face folder.

It has windowed and full vision attention, M-RoPE, the 2x2 merger, a byte-level BPE tokenizer with
Qwen's special tokens, the chat format and the processor files, so that `AutoProcessor` and the
stock class load it, and everything that runs on it runs on the 7B model with another path in the
configuration. The shipped weights (`tiny_base/`) come from `stages/pretrain.py`.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from lmme3dhf.vocabulary import LEVELS

TINY_BASE = Path(__file__).with_name("tiny_base")

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The conversation format of Qwen2.5-VL: a default system message, one block a message, media as
# placeholders.
CHAT_TEMPLATE = """\
{%- if messages[0].role != "system" -%}
{{ "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n" }}
{%- endif -%}
{%- for message in messages -%}
{{ "<|im_start|>" + message.role + "\\n" }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == "video" -%}
{{ "<|vision_start|><|video_pad|><|vision_end|>" }}
{%- elif part.type == "image" -%}
{{ "<|vision_start|><|image_pad|><|vision_end|>" }}
{%- else -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ "<|im_end|>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ "<|im_start|>assistant\\n" }}
{%- endif -%}
"""


def tiny_tokenizer(corpus: list[str], vocab_size: int = 1024) -> Qwen2Tokenizer:
    """Trains the byte-level BPE tokenizer.

    Args:
        corpus: Texts whose words deserve tokens of their own. Words are merged in the order of
            their frequency.
        vocab_size: Tokens in all, special ones included.

    Raises:
        ValueError: A level word did not become one token after "is": the corpus mentions it too
            rarely.
    """
    blank = Qwen2Tokenizer()
    learner = Tokenizer(BPE())
    # The splitting rules of Qwen's own tokenizer, so that the trained merges fit it.
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    model = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=32768,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    for word in LEVELS:
        if len(tokenizer.encode(f" {word}")) != 1:
            raise ValueError(
                f"tiny tokenizer: the level word {word!r} is not one token after a space; mention "
                "it more often"
            )
    return tokenizer


def tiny_config(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    """Geometry of the tiny base: 6 vision blocks of width 160, 4 language layers of width 128, 14
    px patches, 56 px windows.
    """
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    return Qwen2_5_VLConfig(
        text_config={
            "model_type": "qwen2_5_vl_text",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.04,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 6,
            "hidden_size": 160,
            "intermediate_size": 320,
            "num_heads": 5,
            "out_hidden_size": 128,
            "window_size": 56,
            "fullatt_block_indexes": [1, 3, 4, 5],
            "tokens_per_second": 2,
            "initializer_range": 0.04,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def tiny_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """The processor files: the same classes as the 7B model's, with the same constants."""
    size = {"shortest_edge": 56 * 56, "longest_edge": 448 * 448}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def save_tiny(
    folder: Path,
    tokenizer: Qwen2Tokenizer,
    model: Qwen2_5_VLForConditionalGeneration,
    dtype: torch.dtype,
) -> None:
    """Writes the Hugging Face folder of a tiny base, its weights rounded to `dtype` (bfloat16
    halves the file).
    """
    tiny_processor(tokenizer).save_pretrained(folder)
    model.to(dtype).save_pretrained(folder)
