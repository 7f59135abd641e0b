"""Stage 3: the saliency decoder, from scratch, on frozen features (Section 4.2, Eq. 5)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import ProcessorMixin, set_seed

from lmme3dhf.annotations.fixations import read_saliency
from lmme3dhf.config import Config
from lmme3dhf.data.collation import Collator, view_batch
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import SALIENCY_PROMPT
from lmme3dhf.data.pixels import Pixels, read_pixels
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.features import FeatureStore, recipe
from lmme3dhf.models.configuration import SaliencyConfig
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.stages import run as runs
from lmme3dhf.training import LossFunction, train
from lmme3dhf.vocabulary import VIEWS

_EPSILON = 1e-7


def saliency_loss(
    predicted: torch.Tensor, target: torch.Tensor, weights: tuple[float, float, float, float]
) -> torch.Tensor:
    """Eq. 5: weighted L1, 1 - CC, KL(target || predicted) and BCE.

    CC and KL take the three views of a clip as one map, as the ground truth is one strip. A clip
    without any distortion has an empty map, for which neither is defined: it is learnt by L1 and
    BCE alone.

    Args:
        predicted: (batch, views, h, w) in 0..1.
        target: The same shape, peak 1 a clip or all zero.
        weights: Of the four terms, in this order.

    Returns:
        Mean over the batch.
    """
    p, t = predicted.flatten(1), target.flatten(1)
    l1 = (p - t).abs().mean(1)
    bce = functional.binary_cross_entropy(p, t, reduction="none").mean(1)
    pc, tc = p - p.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    cc = (pc * tc).sum(1) / (pc.norm(dim=1) * tc.norm(dim=1) + _EPSILON)
    pn, tn = p / (p.sum(1, keepdim=True) + _EPSILON), t / (t.sum(1, keepdim=True) + _EPSILON)
    kl = (tn * torch.log(_EPSILON + tn / (pn + _EPSILON))).sum(1)
    marked = t.amax(1) > 0
    shape = torch.where(marked, weights[1] * (1 - cc) + weights[2] * kl, torch.zeros_like(cc))
    return (weights[0] * l1 + shape + weights[3] * bce).mean()


def view_maps(strip_HW: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Cuts a strip's map into its views, at the decoder's resolution.

    Args:
        strip_HW: Map of the whole strip, the views side by side.
        height: Rows of the decoder's map.
        width: Columns of the decoder's map of one view.

    Returns:
        (views, height, width), peak 1 again, or all zero.

    Raises:
        DataError: The strip's width is not a multiple of the number of views.
    """
    if strip_HW.shape[1] % len(VIEWS):
        raise DataError(
            f"a saliency map of {strip_HW.shape[1]} columns cannot be cut into {len(VIEWS)} views"
        )
    views = torch.from_numpy(np.stack(np.split(strip_HW, len(VIEWS), axis=1)))
    small = functional.interpolate(views[None], (height, width), mode="area")[0]
    return small / small.amax() if small.amax() > 0 else small


class SaliencyItems(Dataset):
    """Stored features of clips with their maps.

    Args:
        samples: The clips.
        store: Store of the decoder's inputs.
        maps: Folder of the ground-truth maps.
    """

    def __init__(self, samples: list[Sample], store: FeatureStore, maps: Path) -> None:
        self.samples, self.store, self.maps = samples, store, maps

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        stored = self.store.read(sample.path)
        _, h, w, _ = stored["tokens"].shape
        target = view_maps(read_saliency(self.maps, sample.video), 8 * h, 8 * w)
        return {
            "name": sample.video,
            "tokens": stored["tokens"],
            "taps": [stored[f"tap{i}"] for i in range(3)],
            "target": target,
        }


def collate_maps(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks items of `SaliencyItems`."""
    return {
        "names": [item["name"] for item in items],
        "tokens": torch.stack([item["tokens"] for item in items]),
        "taps": [torch.stack(taps) for taps in zip(*(item["taps"] for item in items), strict=True)],
        "target": torch.stack([item["target"] for item in items]),
    }


def saliency_store(config: Config, model: LMME3DHF, processor: ProcessorMixin) -> FeatureStore:
    """Store of the decoder's inputs: they depend on the tower, the language model, the prompt and
    the taps.
    """
    prompt = model.metric.saliency.prompt
    about = recipe(
        runs.frame_choice(config.frames),
        processor.video_processor,
        [model.model],
        model.model.visual.dtype,
        kind="saliency",
        prompt=SALIENCY_PROMPT if prompt is None else prompt,
        taps=str(model.metric.saliency.taps),
    )
    return FeatureStore(config.data.resolved().features, about)


def decoder_loss(weights: tuple[float, float, float, float]) -> LossFunction:
    """Eq. 5 on a batch of `collate_maps`."""

    def loss(decoder: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        return saliency_loss(decoder(batch["tokens"], batch["taps"]), batch["target"], weights)

    return loss


def train_saliency(config: Config, run: Path) -> Path:
    """Runs, or goes on with, stage 3.

    Args:
        config: Settings; `config.model` is the merged model of stage 2 (or any other: only its
            features are used).
        run: The run folder.

    Returns:
        The run folder, with the trained decoder.

    Raises:
        DataError: Maps are missing; they are counted and the first is named.
    """
    if runs.is_finished(run):
        print(f"{run}: stage 3 is done")
        return run
    folder = runs.local_model(config.model)
    listed = runs.listed_samples(config, config.saliency.lists)
    samples = list({sample.video: sample for sample in listed}.values())
    maps = config.data.resolved().root / config.saliency.maps
    missing = [sample.video for sample in samples if not (maps / f"{sample.video}.png").is_file()]
    if missing:
        raise DataError(
            f"{maps}: {len(missing)} of {len(samples)} maps are missing, the first is "
            f"{missing[0]}.png"
        )
    model, processor = runs.load_model(config, folder)
    set_seed(config.seed)
    geometry = SaliencyConfig(
        taps=config.saliency.taps or None,
        width=config.saliency.width or None,
        branches=config.saliency.branches,
        prompt=config.saliency.prompt,
    )
    model.add_saliency_decoder(geometry)
    model.eval().requires_grad_(False)
    metric = runs.metric_of(model, processor, config)
    runs.open_run(run, "saliency", config, folder, {"metric": metric.to_dict()})
    store = saliency_store(config, model, processor)
    encoder = DialogueEncoder(processor.tokenizer)
    collate = Collator(processor.tokenizer.pad_token_id)

    def compute(pixels: Pixels) -> dict[str, torch.Tensor]:
        batch = view_batch(encoder, collate, [pixels], geometry.prompt)
        tokens, taps = model.saliency_features(
            **{name: value.to(model.device) for name, value in batch.items()}
        )
        return {"tokens": tokens[0].cpu()} | {f"tap{i}": tap[0].cpu() for i, tap in enumerate(taps)}

    choice = runs.frame_choice(config.frames)
    store.fill(
        (sample.path for sample in samples),
        compute,
        choice=choice,
        processor=processor.video_processor,
        views=True,
        workers=config.data.workers,
        name="stage 3: features",
    )
    probe = [
        read_pixels(sample.path, choice, processor.video_processor, views=True)
        for sample in samples[: runs.PROBE_SAMPLES]
    ]
    alike = [pixels for pixels in probe if pixels.grid_thw == probe[0].grid_thw]
    runs.save_probe(run, view_batch(encoder, collate, alike, geometry.prompt))
    decoder = model.saliency_decoder.requires_grad_(True)
    train(
        name="stage 3",
        model=decoder,
        loss=decoder_loss(config.saliency.weights),
        dataset=SaliencyItems(samples, store, maps),
        collator=collate_maps,
        settings=config.saliency.trainer,
        run=run,
        seed=config.seed,
    )
    runs.finish_part(run, decoder, runs.DECODER)
    return run
