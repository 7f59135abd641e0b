"""Pretraining of the tiny base, once: first the vision tower on dense targets, then the language
model on its frozen output.

A random frozen tower does not see, and captions alone do not teach a small tower to see in hours.
So the tower learns from what the renderer knows about every 7-pixel cell (which part of the face,
which distortion), about the landmarks and about the clip; the read-outs are thrown away. The
language model then learns to say what the tower sees. One process a CPU core:

    python -m lmme3dhf.stages.pretrain --out runs/tiny_base
"""

import argparse
import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.collation import FACTS, Collator, Media, Question, packed_item
from lmme3dhf.data.dialogue import DialogueEncoder, Encoded, Turn
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT, level_reply
from lmme3dhf.data.synthetic.bust import PARTS
from lmme3dhf.data.synthetic.distortions import IMAGE
from lmme3dhf.data.synthetic.pretraining import (
    CELLS,
    CLIP_FRAMES,
    KINDS,
    LANDMARKS,
    SIZE_PX,
    STILLS,
    PoolShard,
    open_shard,
    questions,
    render_pool,
    vocabulary_corpus,
)
from lmme3dhf.distributed import cores
from lmme3dhf.files import read_object, replace_file, without_nan, write_json
from lmme3dhf.models.configuration import LMME3DHFConfig
from lmme3dhf.models.grid import window_order
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.models.tiny import save_tiny, tiny_config, tiny_tokenizer
from lmme3dhf.vocabulary import LEVELS

PATCH, MERGE = 14, 2
GRID = SIZE_PX // PATCH  # patches along a picture's side
GROUPS = CLIP_FRAMES // 2 + STILLS  # temporal groups a clip: four pairs of frames, three stills
_RARE_WEIGHT = 6.0  # of a cell that shows a distortion, against one that does not
_PLAIN_SEVERITY = 0.3  # from here on a distortion is plainly visible
# How often a clip with this kind is drawn, against one with none: geometry is learnt last.
_DRAWN = np.array([1.5, 1.5, 0.3, 2.5, 1.0, 0.4, 0.3, 0.3])
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])  # Qwen2.5-VL's normalisation
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def patchify(pictures: torch.Tensor) -> torch.Tensor:
    """Patches as the processor makes them.

    Args:
        pictures: (groups, 2, 112, 112, 3) uint8, the two pictures of a temporal patch.

    Returns:
        (groups, 64, 1176) normalised, the four patches of a merged block side by side.
    """
    x = (pictures.float() / 255 - _MEAN) / _STD
    blocks = GRID // MERGE
    x = x.view(-1, 2, blocks, MERGE, PATCH, blocks, MERGE, PATCH, 3)
    return x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(len(pictures), GRID * GRID, -1)


class PackedTower:
    """The stock vision tower on many single-group inputs of one size, its attention in one call a
    block instead of a loop.

    Uses the stock modules and weights; only the order of the sums differs.
    """

    def __init__(self, tower: nn.Module) -> None:
        config = tower.config
        self.tower = tower
        blocks = GRID // MERGE
        window = config.window_size // MERGE // config.patch_size
        self.order = window_order(blocks, blocks, window)
        self.inverse = torch.argsort(self.order)
        self.windows = (blocks // window) ** 2
        rows = torch.arange(GRID).view(blocks, 1, MERGE, 1).expand(blocks, blocks, MERGE, MERGE)
        columns = torch.arange(GRID).view(1, blocks, 1, MERGE).expand(blocks, blocks, MERGE, MERGE)
        quarter = config.hidden_size // config.num_heads // 4
        frequency = 1.0 / 10000.0 ** (torch.arange(quarter) / quarter)
        angle = torch.cat(
            [p.reshape(-1, MERGE * MERGE, 1) * frequency for p in (rows, columns)], -1
        )
        angle = torch.cat([angle, angle], -1)[self.order].view(GRID * GRID, 1, -1)
        self.cos, self.sin = angle.cos(), angle.sin()

    def __call__(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the tower.

        Args:
            patches: (groups, 64, 1176) from `patchify`.

        Returns:
            The last block's output (groups, 64, width), merged-block order, and the merged tokens
            (groups, 16, hidden), raster.
        """
        tower, count = self.tower, len(patches)
        x = functional.linear(patches, tower.patch_embed.proj.weight.flatten(1))
        x = x.view(count, -1, MERGE * MERGE, x.shape[-1])[:, self.order].flatten(1, 2)
        for index, block in enumerate(tower.blocks):
            pieces = 1 if index in tower.fullatt_block_indexes else self.windows
            x = x + self._attend(block.attn, block.norm1(x), pieces)
            x = x + block.mlp(block.norm2(x))
        x = x.view(count, -1, MERGE * MERGE, x.shape[-1])[:, self.inverse].flatten(1, 2)
        merged = tower.merger(x.reshape(-1, x.shape[-1])).view(
            count, -1, tower.config.out_hidden_size
        )
        return x, merged

    def _attend(self, attention: nn.Module, x: torch.Tensor, pieces: int) -> torch.Tensor:
        count, length, width = x.shape
        q, k, v = attention.qkv(x).view(count, length, 3, attention.num_heads, -1).unbind(2)
        q, k = (self._rotate(t) for t in (q, k))
        q, k, v = (
            t.reshape(count * pieces, length // pieces, attention.num_heads, -1).transpose(1, 2)
            for t in (q, k, v)
        )
        out = (
            functional.scaled_dot_product_attention(q, k, v)
            .transpose(1, 2)
            .reshape(count, length, width)
        )
        return attention.proj(out)

    def _rotate(self, t: torch.Tensor) -> torch.Tensor:
        a, b = t.chunk(2, -1)
        return t * self.cos + torch.cat([-b, a], -1) * self.sin


class DenseReadouts(nn.Module):
    """Linear read-outs that teach the tower and are thrown away."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        sub = (CELLS // GRID) ** 2
        self.cells = nn.Linear(width, sub * (2 * len(PARTS) + KINDS))
        self.tokens = nn.Linear(hidden, KINDS)
        self.pooled = nn.Linear(2 * hidden, 2 * KINDS + 2 * 2 * len(LANDMARKS) * 2 + 5)

    def loss(
        self, patches: torch.Tensor, merged: torch.Tensor, target: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict]:
        """Weighted sum of the losses, and the read-outs of presence and severity for a report."""
        n, sub, blocks = len(patches), CELLS // GRID, GRID // MERGE
        cells = self.cells(patches).view(n, blocks, blocks, MERGE, MERGE, sub, sub, -1)
        cells = cells.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, CELLS, CELLS, -1)
        parts, kinds = cells.split([2 * len(PARTS), KINDS], -1)
        part_loss = functional.cross_entropy(
            parts.reshape(-1, len(PARTS)), target["parts"].reshape(-1)
        )
        heavy = torch.tensor(_RARE_WEIGHT)
        cell_loss = functional.binary_cross_entropy_with_logits(
            kinds, target["cells"], pos_weight=heavy
        )
        token_loss = functional.binary_cross_entropy_with_logits(
            self.tokens(merged), target["tokens"], pos_weight=heavy
        )
        pooled = self.pooled(torch.cat([merged.mean(1), merged.amax(1)], -1))
        presence, severity, landmarks, facts = pooled.split(
            [KINDS, KINDS, 2 * 2 * len(LANDMARKS) * 2, 5], -1
        )
        # A distortion that is barely visible is not held against the tower.
        there = target["severity"] > 0
        plain = torch.where(there, (target["severity"] / _PLAIN_SEVERITY).clamp(max=1), 1.0)
        presence_loss = functional.binary_cross_entropy_with_logits(
            presence, there.float(), weight=plain
        )
        severity_loss = functional.smooth_l1_loss(severity, target["severity"], beta=0.1)
        marks = landmarks.view(n, 2, 2, len(LANDMARKS), 2)
        weight = target["landmarks"][..., 2:] * target["facts"][:, :1].view(-1, 1, 1, 1, 1)
        mark_loss = (weight * (marks - target["landmarks"][..., :2]).abs()).sum() / (
            weight.sum() * 2 + 1
        )
        fact_loss = functional.binary_cross_entropy_with_logits(facts, target["facts"])
        total = (
            0.5 * part_loss
            + cell_loss
            + token_loss
            + presence_loss
            + 6 * severity_loss
            + 1.5 * mark_loss
            + 0.2 * fact_loss
        )
        return total, {"presence": presence.detach(), "severity": severity.detach()}


def group_frames(group: np.ndarray) -> np.ndarray:
    """Indices of the two pictures of each temporal group, (n, 2): pairs of neighbours for 0-3, one
    still twice for 4-6.
    """
    first = np.where(group < CLIP_FRAMES // 2, 2 * group, CLIP_FRAMES // 2 + group)
    second = np.where(group < CLIP_FRAMES // 2, 2 * group + 1, CLIP_FRAMES // 2 + group)
    return np.stack([first, second], -1)


def load_groups(
    shards: list[PoolShard], clips: np.ndarray, groups: np.ndarray, rng: np.random.Generator | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pictures and dense targets of some temporal groups.

    Args:
        shards: The pool; clip i is clip i // N of shard i % number of shards.
        clips: Which clips.
        groups: Which of their groups.
        rng: Draws mirror images and colour casts; None leaves the pictures as they are.

    Returns:
        Pictures (n, 2, 112, 112, 3) uint8, and the targets of `DenseReadouts.loss`.
    """
    images, parts, masks, severities, landmarks, facts = [], [], [], [], [], []
    for clip, frames in zip(clips, group_frames(groups), strict=True):
        shard, row = shards[clip % len(shards)], clip // len(shards)
        picture, part, mask = (
            shard.images[row][frames],
            shard.parts[row][frames],
            shard.masks[row][frames].max(0),
        )
        marks = shard.landmarks[row][frames].copy()
        if rng is not None and rng.random() < 0.5:
            picture, part, mask = picture[:, :, ::-1], part[:, :, ::-1], mask[:, ::-1]
            marks[..., 0] *= -1
            marks[:, :, :2] = marks[:, :, 1::-1]
        if rng is not None:
            picture = np.clip(
                picture * rng.uniform(0.92, 1.08, 3).astype(np.float32), 0, 255
            ).astype(np.uint8)
        visible = mask.max((0, 1)) > 25
        visible[IMAGE] = True
        images.append(picture)
        parts.append(part)
        masks.append(mask)
        severities.append(shard.severity[row] * visible)
        landmarks.append(marks)
        facts.append(shard.facts[row])
    mask = torch.from_numpy(np.stack(masks)).float() / 255
    blocks = CELLS // (GRID // MERGE)
    severity = torch.from_numpy(np.stack(severities))
    plain = (severity / _PLAIN_SEVERITY).clamp(max=1)
    target = {
        "parts": torch.from_numpy(np.stack(parts)).long().permute(0, 2, 3, 1),
        "cells": mask * plain[:, None, None],
        "tokens": (
            functional.max_pool2d(mask.permute(0, 3, 1, 2), blocks).flatten(2).transpose(1, 2) > 0.3
        )
        * plain[:, None],
        "severity": severity,
        "landmarks": torch.from_numpy(np.stack(landmarks)),
        "facts": torch.from_numpy(np.stack(facts)).float(),
    }
    return torch.from_numpy(np.stack(images)), target


def cosine_init_(weight: torch.Tensor) -> None:
    """Starts the patch embedding as a cosine transform: brightness and colour, mean and difference
    of the two pictures.

    From a random start the strongly correlated pixels drown everything but the mean brightness.
    """
    width = weight.shape[0]
    t = (torch.arange(PATCH) + 0.5) / PATCH
    frequencies = sorted(
        ((u, v) for u in range(PATCH) for v in range(PATCH)),
        key=lambda f: (f[0] ** 2 + f[1] ** 2, f),
    )
    luma = torch.tensor([1.0, 1.0, 1.0]) / math.sqrt(3)
    blue, red = (
        torch.tensor([-1.0, -1.0, 2.0]) / math.sqrt(6),
        torch.tensor([1.0, -1.0, 0.0]) / math.sqrt(2),
    )
    shares = (
        (luma, 1, 0.42),
        (blue, 1, 0.10),
        (red, 1, 0.10),
        (luma, -1, 0.26),
        (blue, -1, 0.06),
        (red, -1, 0.06),
    )
    rows = []
    for colour, sign, share in shares:
        count = round(share * width) if (colour is not red or sign > 0) else width - len(rows)
        for u, v in frequencies[:count]:
            wave = torch.cos(math.pi * u * t)[:, None] * torch.cos(math.pi * v * t)[None, :]
            wave = wave / wave.norm()
            rows.append(
                torch.stack([colour[:, None, None] * wave, sign * colour[:, None, None] * wave], 1)
                / math.sqrt(2)
            )
    with torch.no_grad():
        weight.copy_(torch.stack(rows[:width]) * 0.35)


def cosine_schedule(step: int, steps: int, warmup: int) -> float:
    """Learning rate factor: linear warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Averages gradients over the processes, in one message."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, piece in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(piece.view_as(grad))


def descend(
    loss: torch.Tensor, parameters: list[nn.Parameter], optimiser: torch.optim.Optimizer
) -> None:
    """One optimiser step on the gradient of all processes, clipped to norm 1."""
    optimiser.zero_grad()
    loss.backward()
    average_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def is_lead() -> bool:
    """Whether this process reports and saves."""
    return not dist.is_initialized() or dist.get_rank() == 0


def train_tower(
    tower: nn.Module,
    shards: list[PoolShard],
    held_out: int,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    out: Path,
) -> None:
    """Trains the vision tower on dense targets; goes on from the running checkpoint in `out`.

    Args:
        tower: Qwen2.5-VL's vision tower; trained in place.
        shards: The pool.
        held_out: Number of clips at the pool's end that are only measured on.
        steps: Optimiser steps.
        batch: Temporal groups a step and process.
        rate: Peak learning rate.
        seed: Decides the read-outs' start and the order.
        out: Folder for the running checkpoint and `tower.jsonl`.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(seed)
    cosine_init_(tower.patch_embed.proj.weight)
    packed = PackedTower(tower)
    readouts = DenseReadouts(tower.config.hidden_size, tower.config.out_hidden_size)
    embed = list(tower.patch_embed.parameters())
    rest = [p for name, p in tower.named_parameters() if not name.startswith("patch_embed")] + list(
        readouts.parameters()
    )
    optimiser = torch.optim.AdamW(
        [{"params": embed, "factor": 0.1}, {"params": rest, "factor": 1.0}],
        lr=rate,
        betas=(0.9, 0.98),
        weight_decay=0.03,
    )
    clips = sum(len(shard.images) for shard in shards) - held_out
    severity = np.stack([shard.severity for shard in shards], 1).reshape(-1, KINDS)[:clips]
    weights = 0.6 + (severity > 0) @ _DRAWN
    chances = np.cumsum(weights / weights.sum())
    chances[-1] = 1.0
    first = 0
    checkpoint = out / "tower_running.safetensors"
    if checkpoint.exists():
        first = _load_running(checkpoint, tower, readouts, optimiser)
    started, losses = time.time(), []
    for step in range(first, steps):
        rng = np.random.default_rng((seed, rank, step))
        drawn = np.searchsorted(chances, rng.random(batch), side="right")
        pictures, target = load_groups(shards, drawn, rng.integers(GROUPS, size=batch), rng)
        loss, _ = readouts.loss(*packed(patchify(pictures)), target)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"] * cosine_schedule(step, steps, 300)
        descend(loss, embed + rest, optimiser)
        losses.append(loss.item())
        end = step + 1 == steps
        if is_lead() and (end or (step + 1) % 250 == 0):
            entry = {"step": step + 1, "loss": round(float(np.mean(losses)), 4), "world": world}
            if end or (step + 1) % 2500 == 0:
                entry |= measure_tower(packed, readouts, shards, clips, held_out)
                _save_running(checkpoint, tower, readouts, optimiser, step + 1)
            _report(out / "tower.jsonl", entry, first, steps, time.time() - started)
            losses = []


def _report(log: Path, entry: dict, first: int, steps: int, seconds: float) -> None:
    """Appends an entry to a log, and says how long the rest will take.

    Args:
        log: JSON lines, named for what is trained.
        entry: With `step` and `loss`.
        first: Step at which this process began.
        steps: Step at which it will end.
        seconds: Since it began.
    """
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(without_nan(entry | {"seconds": round(seconds)})) + "\n")
    step = entry["step"]
    left = seconds / (step - first) * (steps - step)
    print(
        f"{log.stem}: step {step} of {steps}, loss {entry['loss']:.4f}, {left:.0f} s left",
        flush=True,
    )


def _save_running(
    path: Path, tower: nn.Module, readouts: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    tensors = {f"tower.{name}": tensor for name, tensor in tower.state_dict().items()}
    tensors |= {f"readouts.{name}": tensor for name, tensor in readouts.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in state.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    replace_file(path, save(tensors, metadata={"step": str(step)}))


def _load_running(
    path: Path, tower: nn.Module, readouts: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step = int(file.metadata()["step"])

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    tower.load_state_dict(part("tower."))
    readouts.load_state_dict(part("readouts."))
    content = optimiser.state_dict()
    for name, tensor in part("optimiser.").items():
        index, key = name.split(".")
        content["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(content)
    return step


@torch.no_grad()
def measure_tower(
    packed: PackedTower, readouts: DenseReadouts, shards: list[PoolShard], first: int, count: int
) -> dict:
    """Presence AUC and severity correlation of each kind on held-out clips, by the read-outs."""
    from scipy.stats import rankdata, spearmanr

    presence, severity, truth = [], [], []
    rng = np.random.default_rng(0)
    for start in range(first, first + count, 50):
        clips = np.arange(start, min(start + 50, first + count))
        pictures, target = load_groups(shards, clips, rng.integers(GROUPS, size=len(clips)), None)
        _, read = readouts.loss(*packed(patchify(pictures)), target)
        presence.append(read["presence"])
        severity.append(read["severity"])
        truth.append(target["severity"])
    p, s, t = (torch.cat(x).numpy() for x in (presence, severity, truth))
    auc, within = [], []
    for kind in range(KINDS):
        there = t[:, kind] > 0
        ranks = rankdata(p[:, kind])
        n, m = there.sum(), (~there).sum()
        auc.append(round(float((ranks[there].sum() - n * (n + 1) / 2) / (n * m)), 3))
        within.append(round(float(spearmanr(s[there, kind], t[there, kind]).statistic), 3))
    return {"auc": auc, "severity_srcc": within}


@torch.no_grad()
def encode_pool(tower: nn.Module, shards: list[PoolShard], clips: np.ndarray) -> torch.Tensor:
    """Merged tokens of whole clips: (clips, 7 groups, 16 tokens, hidden) float16."""
    packed = PackedTower(tower)
    out = torch.empty(
        len(clips), GROUPS, (GRID // MERGE) ** 2, tower.config.out_hidden_size, dtype=torch.float16
    )
    frames = group_frames(np.arange(GROUPS))
    for i, clip in enumerate(clips):
        pictures = torch.from_numpy(shards[clip % len(shards)].images[clip // len(shards)][frames])
        out[i] = packed(patchify(pictures))[1].half()
    return out


def conversation(
    encoder: DialogueEncoder, turns: list[tuple[str, str]], media_first: bool
) -> Encoded:
    """A dialogue of several turns on one clip; the answers are learnt."""
    *before, (question, answer) = turns
    return encoder.encode(
        question,
        reply=answer,
        media_first=media_first,
        before=[Turn(prompt=asked, reply=said) for asked, said in before],
    )


def language_batches(
    tokenizer,
    tokens: torch.Tensor,
    shards: list[PoolShard],
    clips: np.ndarray,
    batch: int,
    rng: np.random.Generator,
) -> Iterator[dict]:
    """Endless batches for the language model: four turns on a whole clip or on its three stills,
    text before or after it.
    """
    collate, encoder = Collator(tokenizer.pad_token_id), DialogueEncoder(tokenizer)
    while True:
        stills = bool(rng.random() < 0.3)
        groups = STILLS if stills else CLIP_FRAMES // 2
        items = []
        for i in rng.integers(len(clips), size=batch):
            shard, row = shards[clips[i] % len(shards)], clips[i] // len(shards)
            turns = questions(shard.severity[row], shard.facts[row], rng)[:4]
            dialogue = conversation(encoder, turns, bool(rng.random() < 0.6))
            embeds = tokens[i, -STILLS:] if stills else tokens[i, : CLIP_FRAMES // 2]
            media = Media(
                grid_thw=(groups, GRID, GRID),
                second_per_grid=1.0,
                tokens=groups * (GRID // MERGE) ** 2,
                video_embeds=embeds.float().flatten(0, 1),
            )
            items.append(packed_item([Question(name="", encoded=dialogue)], media))
        collated = collate(items)
        arguments = {name: value for name, value in collated.items() if name not in FACTS}
        video = arguments["video_embeds"]
        noise = torch.from_numpy(rng.standard_normal(video.shape, np.float32))
        yield arguments | {"video_embeds": video + 0.05 * video.std() * noise}


def train_language(
    model: nn.Module,
    tokenizer,
    tokens: torch.Tensor,
    shards: list[PoolShard],
    clips: np.ndarray,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    out: Path,
) -> None:
    """Trains the language model (and the token embeddings) on the frozen tower's tokens.

    Args:
        model: `LMME3DHF`; the tower is left alone.
        tokenizer: Its tokenizer.
        tokens: From `encode_pool`.
        shards: The pool, for the answers.
        clips: The clips that `tokens` belong to; the last twentieth is measured on.
        steps: Optimiser steps.
        batch: Conversations a step and process.
        rate: Peak learning rate.
        seed: Decides the order.
        out: Folder for `language.jsonl`.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    parameters = [*model.model.language_model.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.03)
    held = len(clips) // 20
    train = language_batches(
        tokenizer, tokens[:-held], shards, clips[:-held], batch, np.random.default_rng((seed, rank))
    )
    started, losses = time.time(), []
    for step in range(steps):
        loss = model(**next(train)).token_losses.mean()
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine_schedule(step, steps, 200)
        descend(loss, parameters, optimiser)
        losses.append(loss.item())
        end = step + 1 == steps
        if is_lead() and (end or (step + 1) % 200 == 0):
            entry = {"step": step + 1, "loss": round(float(np.mean(losses)), 4)}
            if end or (step + 1) % 1000 == 0:
                check = language_batches(
                    tokenizer, tokens[-held:], shards, clips[-held:], 64, np.random.default_rng(1)
                )
                with torch.no_grad():
                    entry["held_out_loss"] = round(
                        float(
                            np.mean(
                                [model(**next(check)).token_losses.mean().item() for _ in range(6)]
                            )
                        ),
                        4,
                    )
            _report(out / "language.jsonl", entry, 0, steps, time.time() - started)
            losses = []


def _process(rank: int, out: Path, port: int, settings: dict) -> None:
    torch.set_num_threads(1)
    world, seed = settings["processes"], settings["seed"]
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
        )
    pool = out / "pool"
    share = settings["clips"] // world
    if not (pool / f"{rank}" / "done").exists():
        started = time.time()

        def report(done: int) -> None:
            if rank == 0 and done % 500 == 0:
                left = (time.time() - started) / done * (share - done)
                print(
                    f"rendering: {done * world} of {share * world} clips, {left:.0f} s left",
                    flush=True,
                )

        render_pool(pool / f"{rank}", share, seed=1000 * (seed - 1) + rank + 1, report=report)
        (pool / f"{rank}" / "done").touch()
    if world > 1:
        dist.barrier()
    shards = [open_shard(pool / f"{i}", "r") for i in range(world)]
    tokenizer = tiny_tokenizer(
        vocabulary_corpus(
            (*PROMPTS.values(), SALIENCY_PROMPT),
            tuple(level_reply(aspect, w) for aspect in GEN3DHF.values() for w in LEVELS),
        )
    )
    torch.manual_seed(seed)
    model = LMME3DHF(LMME3DHFConfig(**tiny_config(tokenizer).to_dict()))
    train_tower(
        model.model.visual,
        shards,
        settings["held_out"],
        steps=settings["tower_steps"],
        batch=32,
        rate=1e-3,
        seed=seed,
        out=out,
    )
    # Weights are stored in half the bits: the language model learns on the tower as it will be.
    model.model.visual.to(torch.bfloat16).float()
    clips = np.arange(share * world)
    mine = clips[rank::world]
    tokens = encode_pool(model.model.visual, shards, mine)
    if world > 1:
        dist.barrier()
    train_language(
        model,
        tokenizer,
        tokens,
        shards,
        mine,
        steps=settings["language_steps"],
        batch=32,
        rate=1.5e-3,
        seed=seed,
        out=out,
    )
    if is_lead():
        stock = Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer))
        stock.load_state_dict(
            {k: v for k, v in model.state_dict().items() if not k.startswith("heads.")}
        )
        save_tiny(out / "model", tokenizer, stock, torch.bfloat16)


def main(argv: list[str] | None = None) -> Path:
    """Rebuilds the tiny base; returns its folder. Each finished part is kept and not done again."""
    parser = argparse.ArgumentParser(
        prog="python -m lmme3dhf.stages.pretrain", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for the pool, the logs and the finished model/",
    )
    parser.add_argument("--clips", type=int, default=24000, help="clips to render (0.4 MB each)")
    parser.add_argument(
        "--held_out", type=int, default=1000, help="of these, clips that are only measured on"
    )
    parser.add_argument("--tower_steps", type=int, default=13000)
    parser.add_argument("--language_steps", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--seed", type=int, default=1)
    settings = vars(parser.parse_args(argv))
    out = settings.pop("out")
    known = out / "settings.json"
    if known.exists() and read_object(known, "give another --out") != settings:
        parser.error(f"{out} was started with other settings (settings.json); give another --out")
    write_json(known, settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (out, port, settings), nprocs=settings["processes"])
    return out / "model"


if __name__ == "__main__":
    main()
