"""Writes a checkpoint that lies as Qwen2.5-VL-7B-Instruct does on the hub: narrow, with random
weights, but as deep as the real one and with its real vocabulary.

    python scripts/hub_checkpoint.py runs/hub_512 --hidden 512

What differs from a folder that today's libraries write, and is as on the hub here: the flat
config.json with `rope_scaling`, the weights' old names (`visual.*`, `model.layers.*`) in several
shards, 152,064 rows for 151,665 tokens, Qwen's token ids, preprocessor_config.json without one for
videos, and a generation_config.json that samples and penalises repetition. `--hidden 3584
--vision_layers 32 --vision_width 1280` gives the real geometry (and 16 GB). The vocabulary is that
of the package `dashscope`: pip install 'lmme3dhf[test]'.
"""

import argparse
import base64
import importlib.util
import itertools
import json
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lmme3dhf.errors import UserError
from lmme3dhf.models.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS

# Qwen2.5's special tokens are Qwen2's and eight that are ordinary text to a decoder.
TEXT_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
VOCABULARY = 151_643  # tokens before the added ones
ROWS = 152_064  # of the embeddings and the LM head
SHARDS = 5
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
Ranks = dict[bytes, int]


def qwen_ranks() -> Ranks:
    """Qwen's byte-level vocabulary: each token's bytes and its rank, which is also its id.

    Raises:
        UserError: The package that holds it is not installed.
    """
    # Found, not imported: importing it would load a network client.
    spec = importlib.util.find_spec("dashscope")
    if spec is None:
        raise UserError(
            "Qwen's vocabulary comes with the package dashscope, which is not installed: pip "
            "install dashscope"
        )
    file = Path(spec.submodule_search_locations[0], "resources", "qwen.tiktoken")
    pairs = (line.split() for line in file.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def split_below(token: bytes, ranks: Ranks, limit: int) -> list[bytes]:
    """Byte pair encoding of a token's bytes with the tokens of a rank below the limit."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        joined = [ranks.get(a + b, limit) for a, b in itertools.pairwise(parts)]
        best = min(joined)
        if best >= limit:
            break
        place = joined.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def qwen_tokenizer(ranks: Ranks) -> Tokenizer:
    """The tokenizer of Qwen2.5-VL: ranks become a vocabulary and merges, and the special tokens
    follow.
    """
    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    # The merge that made a token joins the two parts into which all earlier merges cut it.
    merges = [split_below(token, ranks, rank) for token, rank in ranks.items() if len(token) > 1]
    blank = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(
        BPE(
            {spelled(token): rank for token, rank in ranks.items()},
            [(spelled(left), spelled(right)) for left, right in merges],
        )
    )
    tokenizer.normalizer = blank.normalizer
    tokenizer.pre_tokenizer = blank.pre_tokenizer
    tokenizer.decoder = blank.decoder
    for name in (*SPECIAL_TOKENS, *TEXT_TOKENS):
        special = name in SPECIAL_TOKENS
        tokenizer.add_tokens([AddedToken(name, special=special, normalized=False)])
    return tokenizer


def hub_config(
    layers: int, hidden: int, vision_layers: int, vision_width: int, dtype: str
) -> dict[str, object]:
    """config.json in the layout of the hub, with the real model's proportions."""
    heads = max(2, hidden // 128)
    half = hidden // heads // 2  # rotary frequencies: a quarter for times, the rest for two axes
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": hidden * 37 // 7,
        "max_position_embeddings": 128000,
        "max_window_layers": layers,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": max(1, heads // 7),
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": vision_layers,
            "hidden_act": "silu",
            "hidden_size": vision_width,
            "intermediate_size": vision_width * 171 // 64,
            "num_heads": vision_width // 80,
            "in_chans": 3,
            "out_hidden_size": hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [vision_layers * i // 4 - 1 for i in range(1, 5)],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {
            "type": "mrope",
            "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8],
        },
        "vocab_size": ROWS,
    }


GENERATION_CONFIG = {
    "bos_token_id": 151643,
    "pad_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05,
    "temperature": 0.000001,
    "transformers_version": "4.49.0",
}
PREPROCESSOR_CONFIG = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


def tokenizer_config() -> dict[str, object]:
    """tokenizer_config.json in the layout of the hub."""
    names = (*SPECIAL_TOKENS, *TEXT_TOKENS)
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(VOCABULARY + i): {"content": name, **plain, "special": name in SPECIAL_TOKENS}
            for i, name in enumerate(names)
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def random_weights(
    config: dict[str, object], seed: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Weights under the hub's names. Each linear layer keeps the size of its input, so that hidden
    states stay near 1 and the logits spread by about 3, at any width and depth.
    """
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    depths = {"visual": config["vision_config"]["depth"], "model": config["num_hidden_layers"]}
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, blank in model.state_dict().items():
        name = name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        tensor = torch.empty(blank.shape)
        if blank.ndim == 1:
            tensor.fill_(0 if name.endswith("bias") else 3 if name == "model.norm.weight" else 1)
        else:
            spread = blank[0].numel() ** -0.5
            if name.split(".")[-2] in ("o_proj", "down_proj", "proj") and "patch" not in name:
                # What is added to the hidden states twice a layer adds up to their size.
                spread /= (2 * depths[name.split(".")[0]]) ** 0.5
            tensor.normal_(0, spread, generator=generator)
        weights[name] = tensor.to(dtype)
    return weights


def write_checkpoint(
    folder: Path,
    *,
    layers: int = 28,
    hidden: int = 512,
    vision_layers: int = 8,
    vision_width: int = 160,
    seed: int = 0,
    dtype: str = "bfloat16",
    ranks: Ranks | None = None,
) -> None:
    """Writes the folder.

    Args:
        folder: Where to write; it is made.
        layers: Layers of the language model.
        hidden: Its width, a multiple of 64.
        vision_layers: Blocks of the vision tower, a multiple of 4.
        vision_width: Its width, a multiple of 80.
        seed: Seed of the random weights.
        dtype: Type of the weights: bfloat16, float16 or float32.
        ranks: The vocabulary; None for Qwen's.

    Raises:
        UserError: The vocabulary's package is not installed.
    """
    tokenizer = qwen_tokenizer(ranks or qwen_ranks())
    folder.mkdir(parents=True, exist_ok=True)
    config = hub_config(layers, hidden, vision_layers, vision_width, dtype)
    for name, content in {
        "config.json": config,
        "generation_config.json": GENERATION_CONFIG,
        "preprocessor_config.json": PREPROCESSOR_CONFIG,
        "tokenizer_config.json": tokenizer_config(),
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    weights = random_weights(config, seed, DTYPES[dtype])
    size = sum(tensor.nbytes for tensor in weights.values())
    save_torch_state_dict(weights, folder, max_shard_size=size // SHARDS + 1)


def main(argv: list[str] | None = None) -> None:
    """Reads the options and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--layers", type=int, default=28, help="of the language model")
    parser.add_argument("--hidden", type=int, default=512, help="its width, a multiple of 64")
    parser.add_argument("--vision_layers", type=int, default=8, help="a multiple of 4")
    parser.add_argument("--vision_width", type=int, default=160, help="a multiple of 80")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    args = vars(parser.parse_args(argv))
    try:
        write_checkpoint(args.pop("out"), **args)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
