"""The plain path: what the released recipe does, from the stock class, qwen-vl-utils and the
processor.

One question at a time. For every question and every epoch the clip is decoded by qwen-vl-utils and
goes through the tower; activations are recomputed in the backward pass (gradient checkpointing,
opened by the library's own `enable_input_require_grads`); logits and loss run over all positions;
words are generated token by token. Nothing here is used outside the benchmark.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_parts.material import SEED
from qwen_vl_utils import fetch_video
from torch import nn
from transformers import (
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
)

from lmme3dhf.data.dialogue import IGNORED
from lmme3dhf.data.samples import Sample
from lmme3dhf.data.video import FrameChoice
from lmme3dhf.models.folder import check_folder
from lmme3dhf.models.lora import add_adapters

END = "<|im_end|>"
LORA = {"rank": 8, "alpha": 32, "dropout": 0.0, "language": True, "vision": False}
LEARNING_RATE = 1e-4


def load(folder: Path) -> tuple[Qwen2_5_VLForConditionalGeneration, ProcessorMixin]:
    """The stock model and its processor."""
    check_folder(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    return model.eval(), AutoProcessor.from_pretrained(folder, trust_remote_code=False)


def adapt(model: nn.Module) -> nn.Module:
    """Adds the adapters of the recipe; they start from a fixed state that is not zero, or half of
    their gradients would be.
    """
    adapted = add_adapters(model, **LORA)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_" in name:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.02 * drawn.to(parameter))
    return adapted


def for_training(
    model: Qwen2_5_VLForConditionalGeneration, *, hook: bool = True, checkpointing: bool = True
) -> nn.Module:
    """The model as the recipe trains it.

    Args:
        model: The stock model.
        hook: Leave the library's `enable_input_require_grads` on, which gives gradients to the
            frozen tower too.
        checkpointing: Recompute activations in the backward pass.
    """
    adapted = adapt(model)
    if checkpointing:
        # The library calls its `enable_input_require_grads` here by itself.
        model.gradient_checkpointing_enable()
        if not hook:
            model.disable_input_require_grads()
            # The backward pass has to come through the recomputed layers all the same.
            model.get_input_embeddings().register_forward_hook(
                lambda module, inputs, output: output.requires_grad_(True)
            )
    return adapted.train()


def optimiser(model: nn.Module) -> torch.optim.Optimizer:
    """Over what is trained; both sides have the same."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=LEARNING_RATE)


def read_frames(path: Path, choice: FrameChoice) -> tuple[torch.Tensor, dict, float]:
    """qwen-vl-utils with its decord reader: frames (T, 3, H, W) of floats 0..255, metadata, and
    frames per second among them.
    """
    asked = {
        "video": str(path),
        "nframes": choice.frames,
        "min_pixels": choice.min_pixels,
        "max_pixels": choice.max_pixels,
    }
    (video, metadata), fps = fetch_video(
        asked, return_video_sample_fps=True, return_video_metadata=True
    )
    return video, metadata, fps


def patches(
    frames: tuple[torch.Tensor, dict, float], processor: ProcessorMixin, text: str
) -> dict[str, torch.Tensor]:
    """The processor on one dialogue: tokens, patches, grid, times."""
    video, metadata, fps = frames
    return dict(
        processor(
            text=[text],
            videos=[video],
            video_metadata=[metadata],
            do_resize=False,
            do_sample_frames=False,
            fps=fps,
            return_tensors="pt",
        )
    )


def asked(processor: ProcessorMixin, prompt: str) -> str:
    """The chat format up to where the assistant speaks."""
    content = [{"type": "video"}, {"type": "text", "text": prompt}]
    return processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def training_inputs(
    processor: ProcessorMixin, sample: Sample, frames: tuple[torch.Tensor, dict, float]
) -> dict[str, torch.Tensor]:
    """The stock model's arguments for a sample, with labels on the reply; frames from
    `read_frames`.
    """
    text = asked(processor, sample.prompt)
    batch = patches(frames, processor, text + sample.reply + END)
    reply = len(processor.tokenizer.encode(sample.reply)) + 1
    labels = batch["input_ids"].clone()
    labels[:, :-reply] = IGNORED
    return batch | {"labels": labels}


def text_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The library's loss, over the logits of all positions."""
    return model(**batch, use_cache=False).loss


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    choice: FrameChoice,
) -> list[float]:
    """Batch size 1: decode, tower, forward, backward and a step of the optimiser for each question.

    Returns:
        The losses.
    """
    losses = []
    for sample in samples:
        frames = read_frames(sample.path, choice)
        loss = text_loss(model, training_inputs(processor, sample, frames))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@torch.inference_mode()
def level_logits(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: ProcessorMixin,
    frames: tuple[torch.Tensor, dict, float],
    prompts: Sequence[tuple[str, str]],
    tokens: Sequence[int],
) -> torch.Tensor:
    """Each prompt in a pass of its own, with the tower in each: logits (prompts, tokens) behind the
    answer's prefix; those of all other positions are computed along.

    Args:
        model: The stock model.
        processor: Its processor.
        frames: From `read_frames`.
        prompts: (question, start of the answer).
        tokens: Whose logits are wanted.
    """
    rows = []
    for prompt, prefix in prompts:
        batch = patches(frames, processor, asked(processor, prompt) + prefix)
        rows.append(model(**batch, use_cache=False).logits[0, -1, list(tokens)])
    return torch.stack(rows).float()


class Reply(LogitsProcessor):
    """Makes a model with random weights write what a trained one would: the reply's tokens.

    Args:
        tokens: Of the reply, with its end.
        start: Tokens before it.
    """

    def __init__(self, tokens: Sequence[int], start: int) -> None:
        self.tokens, self.start = list(tokens), start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leaves the next token of the reply alone."""
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.tokens[input_ids.shape[1] - self.start]] = 0
        return forced


@torch.inference_mode()
def generated_logits(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: ProcessorMixin,
    frames: tuple[torch.Tensor, dict, float],
    prompts: Sequence[tuple[str, str, str]],
    tokens: Sequence[int],
) -> torch.Tensor:
    """Each prompt generates its whole reply with the library's cache; logits (prompts, tokens) at
    the step after the answer's prefix.

    Args:
        model: The stock model.
        processor: Its processor.
        frames: From `read_frames`.
        prompts: (question, start of the answer, whole answer).
        tokens: Whose logits are wanted.
    """
    rows = []
    for prompt, prefix, reply in prompts:
        batch = patches(frames, processor, asked(processor, prompt))
        spoken = processor.tokenizer.encode(reply + END)
        out = model.generate(
            **batch,
            max_new_tokens=len(spoken),
            do_sample=False,
            logits_processor=LogitsProcessorList([Reply(spoken, batch["input_ids"].shape[1])]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        step = len(processor.tokenizer.encode(prefix))
        rows.append(out.logits[step][0, list(tokens)])
    return torch.stack(rows).float()


def gradients(model: nn.Module) -> dict[str, Any]:
    """Gradients by name, copied."""
    return {
        name: parameter.grad.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
