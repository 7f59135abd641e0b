"""What the benchmark works on: models with random weights and clips of a turning, textured head.

The tiny geometry keeps the proportions of the 7B model: intermediate width 5.3 times the hidden
one, one key-value head for seven heads, a vocabulary of 5.5 times the hidden width (the head of the
language model is 8 % of it), and a tower whose FLOPs are about 0.38 of the language model's on a
clip of 8 frames (0.36 at 224 px, 0.41 at 504 px). Narrower models spend so much on attention that
sharing the clip looks worse than it is.
"""

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import av
import numpy as np
import torch
from scipy import ndimage
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from lmme3dhf.annotations.descriptions import distortion_reply
from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT, level_reply
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.synthetic.pretraining import vocabulary_corpus
from lmme3dhf.data.video import FrameChoice
from lmme3dhf.models.tiny import SPECIAL_TOKENS, save_tiny, tiny_tokenizer
from lmme3dhf.vocabulary import LEVELS

SEED = 0
GEOMETRIES = ("tiny", "7b")

_TINY_TEXT = {
    "vocab_size": 2464,
    "hidden_size": 448,
    "intermediate_size": 2368,
    "num_hidden_layers": 4,
    "num_attention_heads": 7,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8192,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [8, 12, 12],
    },
}
_TINY_VISION = {
    "depth": 4,
    "hidden_size": 160,
    "intermediate_size": 428,
    "num_heads": 2,
    "out_hidden_size": 448,
    "window_size": 112,
    "fullatt_block_indexes": [3],
    "tokens_per_second": 2,
}
# Qwen/Qwen2.5-VL-7B-Instruct, config.json (Hugging Face hub, read in 2025).
_7B_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128000,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [16, 24, 24],
    },
}
_7B_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}


@cache
def tokenizer() -> Qwen2Tokenizer:
    """A tokenizer that has words for the metric's questions; its ids fit both geometries."""
    replies = tuple(level_reply(GEN3DHF[d], level) for d in GEN3DHF for level in LEVELS)
    return tiny_tokenizer(vocabulary_corpus((*PROMPTS.values(), SALIENCY_PROMPT), replies))


def config(geometry: str, layers: int | None = None) -> Qwen2_5_VLConfig:
    """Configuration of a geometry.

    Args:
        geometry: One of `GEOMETRIES`.
        layers: So many layers of the language model and blocks of the tower at most, for trying
            the large geometry on a small machine; the last block sees the whole picture.
    """
    text, vision = (dict(_TINY_TEXT), dict(_TINY_VISION))
    if geometry == "7b":
        text, vision = dict(_7B_TEXT), dict(_7B_VISION)
    if layers is not None:
        text["num_hidden_layers"] = min(layers, text["num_hidden_layers"])
        vision["depth"] = min(max(layers, 1), vision["depth"])
        vision["fullatt_block_indexes"] = [vision["depth"] - 1]
    ids = {name: tokenizer().convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    return Qwen2_5_VLConfig(
        text_config={
            "model_type": "qwen2_5_vl_text",
            "rms_norm_eps": 1e-6,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            **text,
        },
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def save_model(folder: Path, geometry: str, layers: int | None = None) -> Path:
    """Writes a model with random weights as an ordinary Hugging Face folder, float32."""
    torch.manual_seed(SEED)
    model = Qwen2_5_VLForConditionalGeneration(config(geometry, layers))
    save_tiny(folder, tokenizer(), model, torch.float32)
    return folder


@contextmanager
def random_weights(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Models built inside have this type and are drawn on this device, with no file in between."""
    before = torch.get_default_dtype()
    torch.manual_seed(SEED)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def choice(side_px: int, frames: int = 8) -> FrameChoice:
    """Square frames of this side; the smallest area is lowered to allow it."""
    area = side_px * side_px
    return FrameChoice(fps=None, frames=frames, min_pixels=area, max_pixels=area)


def write_clip(path: Path, *, mbit_s: float | None, seed: int = SEED) -> Path:
    """A head that turns as Gen3DHF's do, from -90 to +90 degrees: 240 frames of 512x512 at 60 a
    second, H.264 of x264's medium preset with one keyframe.

    Args:
        path: The file to write.
        mbit_s: Bit rate; None for constant quality (CRF 23).
        seed: Of the texture.
    """
    size, frames, fps = 512, 240, 60
    texture_HW3 = _texture(np.random.default_rng(seed))
    y, x = np.mgrid[0:size, 0:size] / (size / 2) - 1
    inside = (x / 0.62) ** 2 + (y / 0.88) ** 2 < 1
    down = np.clip(y / 0.88, -1, 1)
    across = np.clip(x / 0.62 / np.sqrt(np.clip(1 - down**2, 1e-3, 1)), -1, 1)
    row = ((down + 1) / 2 * (texture_HW3.shape[0] - 1)).astype(int)[inside]
    angle = np.arcsin(across)[inside]
    light = (0.45 + 0.55 * np.cos(angle))[:, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        stream.options = {"preset": "medium", "g": "250", "threads": "1"}
        if mbit_s is None:
            stream.options |= {"crf": "23"}
        else:
            stream.bit_rate = int(mbit_s * 1e6)
        picture = np.full((size, size, 3), 200, np.uint8)
        for index in range(frames):
            yaw = np.pi * (index / (frames - 1) - 0.5)
            column = ((angle + yaw) / (2 * np.pi) * texture_HW3.shape[1]).astype(int)
            picture[inside] = texture_HW3[row, column % texture_HW3.shape[1]] * light
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Coloured noise of several scales, (H, W, 3) in 0..255; it closes at the back."""
    height, width = 512, 1536
    layers = []
    for sigma, weight in ((1.0, 0.5), (4.0, 1.0), (24.0, 2.0)):
        noise = ndimage.gaussian_filter(
            rng.normal(size=(height, width, 3)), (sigma, sigma, 0), mode="wrap"
        )
        layers.append(weight * noise / noise.std())
    mixed = np.sum(layers, axis=0)
    tone = np.array([190.0, 140.0, 120.0])
    return np.clip(tone + 22 * mixed, 0, 255)


def copies(clip: Path, count: int, folder: Path) -> list[Path]:
    """The same pictures as files of different bytes (an empty box at the end of the MP4): a store
    that goes by content takes them for different clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        path = folder / f"clip{index:04d}.mp4"
        shutil.copyfile(clip, path)
        with path.open("ab") as file:
            file.write(struct.pack(">I4sI", 12, b"free", index))
        paths.append(path)
    return paths


def saliency_maps(clips: list[Path], folder: Path) -> Path:
    """Ground-truth maps of clips, strips of three views 512x512 with one marked place each."""
    for index, clip in enumerate(clips):
        strip_HW = np.zeros((512, 1536), np.float32)
        strip_HW[256, 200 + 500 * (index % 3)] = 1
        strip_HW = ndimage.gaussian_filter(strip_HW, 20)
        folder.mkdir(parents=True, exist_ok=True)
        write_saliency_png(folder / f"{clip.stem}.png", strip_HW / strip_HW.max())
    return folder


def bit_rate_mbit_s(clip: Path, seconds: float = 4.0) -> float:
    """Of a file that lasts so long."""
    return clip.stat().st_size * 8 / seconds / 1e6


def samples(clips: list[Path], questions: int) -> list[Sample]:
    """The released questions on clips, with replies such as the lists have.

    Args:
        clips: The clips.
        questions: 1 to 3 for each: quality, authenticity, distortion.
    """
    asked: list[Sample] = []
    for index, clip in enumerate(clips):
        worst_first = index % len(LEVELS)
        level, mos = LEVELS[worst_first], 12.0 + 19 * worst_first
        said = {
            task: {
                "reply": level_reply(GEN3DHF[task], level),
                "levels": {task: level},
                "values": {task: mos},
            }
            for task in GEN3DHF
        }
        said["distortion"] = {"reply": distortion_reply(("Eye Distortions", "Mouth Distortions"))}
        for task in list(said)[:questions]:
            asked.append(
                Sample(video=clip.stem, path=clip, task=task, prompt=PROMPTS[task], **said[task])
            )
    return asked
