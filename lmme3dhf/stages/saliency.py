"""Stage 3: the saliency decoder, from scratch, on frozen features (Section 4.2, Eq. 5).

Neither the vision tower nor the language model is loaded where the features are stored.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import set_seed

from lmme3dhf.annotations.fixations import (
    left_out_note,
    looked_at,
    read_fixations,
    read_saliency,
)
from lmme3dhf.config import Config
from lmme3dhf.data.collation import view_batch
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.pixels import read_pixels
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.models.configuration import LMME3DHFConfig, SaliencyConfig
from lmme3dhf.models.modeling import load_configuration, load_processor
from lmme3dhf.models.saliency_decoder import SaliencyDecoder
from lmme3dhf.stages import run as runs
from lmme3dhf.stages.media import ReadViews, frame_choice, pixel_media, view_features
from lmme3dhf.training import StageLoss, train
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
        (batch,) of each clip.
    """
    l1, cc, kl, bce, marked = _terms(predicted, target)
    shape = torch.where(marked, weights[1] * (1 - cc) + weights[2] * kl, torch.zeros_like(cc))
    return weights[0] * l1 + shape + weights[3] * bce


def _terms(predicted: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """L1, CC, KL and BCE of each clip, and whether it has marks, without which CC and KL say
    nothing; each (batch,).
    """
    p, t = predicted.flatten(1), target.flatten(1)
    l1 = (p - t).abs().mean(1)
    bce = functional.binary_cross_entropy(p, t, reduction="none").mean(1)
    pc, tc = p - p.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    cc = (pc * tc).sum(1) / (pc.norm(dim=1) * tc.norm(dim=1) + _EPSILON)
    pn, tn = p / (p.sum(1, keepdim=True) + _EPSILON), t / (t.sum(1, keepdim=True) + _EPSILON)
    kl = (tn * torch.log(_EPSILON + tn / (pn + _EPSILON))).sum(1)
    return l1, cc, kl, bce, t.amax(1) > 0


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
    """Frozen features of clips with their maps, which are read and cut once, not in every epoch.

    Args:
        samples: The clips.
        features: Reads the decoder's inputs of one.
        maps: Folder of the ground-truth maps.
    """

    def __init__(self, samples: Sequence[Sample], features: ReadViews, maps: Path) -> None:
        self.samples, self.features, self.maps = samples, features, maps
        self._targets: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        stored = self.features(sample.path)
        if index not in self._targets:
            _, h, w, _ = stored.hidden.shape
            strip = read_saliency(self.maps, sample.video)
            self._targets[index] = view_maps(strip, 8 * h, 8 * w)
        return {
            "name": sample.video,
            "hidden": stored.hidden,
            "taps": stored.taps,
            "target": self._targets[index],
        }


def collate_maps(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks items of `SaliencyItems`."""
    return {
        "names": [item["name"] for item in items],
        "hidden": torch.stack([item["hidden"] for item in items]),
        "taps": [torch.stack(taps) for taps in zip(*(item["taps"] for item in items), strict=True)],
        "target": torch.stack([item["target"] for item in items]),
    }


class SaliencyLoss(StageLoss):
    """Eq. 5, a mean over clips; on validation data also its terms, CC and KL as means over the
    clips with marks.

    Args:
        weights: Of its four terms.
    """

    measured = ("l1", "cc", "kl", "bce")

    def __init__(self, weights: tuple[float, float, float, float]) -> None:
        self.weights = weights

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """Clips."""
        return [len(batch["target"])]

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """(1,) sum of the clips' losses."""
        predicted = model(batch["hidden"], batch["taps"])
        return saliency_loss(predicted, batch["target"], self.weights).sum()[None]

    def judge(
        self, model: nn.Module, batch: dict[str, Any], names: list[str]
    ) -> tuple[torch.Tensor, list[list[float]]]:
        """`sums`, and the terms of each clip, NaN where undefined."""
        predicted = model(batch["hidden"], batch["taps"])
        l1, cc, kl, bce, marked = _terms(predicted, batch["target"])
        shape = [torch.where(marked, term, torch.nan) for term in (cc, kl)]
        sums = saliency_loss(predicted, batch["target"], self.weights).sum()[None]
        return sums, torch.stack([l1, *shape, bce], dim=1).tolist()

    def measures(self, rows: list[list[float]]) -> dict[str, float]:
        """The means of the terms; NaN for CC and KL where no clip has marks."""
        columns = zip(*rows, strict=True)
        defined = [[value for value in column if not np.isnan(value)] for column in columns]
        means = [float(np.mean(column)) if column else np.nan for column in defined]
        return dict(zip(self.measured, means, strict=True))


def train_saliency(config: Config, run: Path) -> Path:
    """Runs, or goes on with, stage 3.

    Args:
        config: Settings; `config.model` is the merged model of stage 2 (or any other: only its
            features are used).
        run: The run folder.

    Returns:
        The run folder, with the trained decoder.

    Raises:
        DataError: Maps are missing; they are counted and the first is named. Clips that no marker
            looked at are left out, unless they are all.
    """
    runs.check_trainer(config, "saliency")
    folder = runs.base_folder(config)
    if runs.is_done(run, "saliency", config, folder):
        print(f"{run}: stage 3 is done")
        return run
    root = config.data.resolved().root
    maps = root / config.saliency.maps
    listed = runs.listed_samples(config, config.saliency.lists)
    samples = _marked_clips(listed, root, maps, "training clips")
    validation = runs.validation_samples(
        config, config.saliency.lists, config.saliency.trainer, "stage 3"
    )
    if validation:
        validation = _marked_clips(validation, root, maps, "validation clips")
    both = [*samples, *validation]
    missing = [sample.video for sample in both if not (maps / f"{sample.video}.png").is_file()]
    if missing:
        raise DataError(
            f"{maps}: {len(missing)} of {len(both)} maps are missing, the first is {missing[0]}.png"
        )
    processor = load_processor(folder)
    backbone = load_configuration(folder)
    geometry = saliency_geometry(config, backbone)
    metric = runs.metric_of(folder, processor, config, saliency=geometry)
    runs.open_run(run, "saliency", config, folder, {"metric": metric.to_dict()})
    clips = [sample.path for sample in samples]
    both_clips = [sample.path for sample in both]
    features = view_features(config, folder, processor, geometry, both_clips, "stage 3")
    choice = frame_choice(config.frames)
    probe = [
        pixel_media(read_pixels(clip, choice, processor.video_processor, views=True))
        for clip in runs.spread(clips)
    ]
    encoder = DialogueEncoder(processor.tokenizer)
    # Clips of one batch need equal grids.
    batches = [
        view_batch(encoder, alike[i : i + runs.PROBE_BATCH], geometry.prompt)
        for grid in dict.fromkeys(media.grid_thw for media in probe)
        if (alike := [media for media in probe if media.grid_thw == grid])
        for i in range(0, len(alike), runs.PROBE_BATCH)
    ]
    runs.save_probe(run, batches)
    set_seed(config.seed)
    decoder = SaliencyDecoder(
        vision_width=backbone.vision_config.hidden_size,
        text_width=backbone.text_config.hidden_size,
        width=geometry.width,
        branches=geometry.branches,
    )
    train(
        name="stage 3",
        model=decoder,
        loss=SaliencyLoss(config.saliency.weights),
        dataset=SaliencyItems(samples, features, maps),
        collator=collate_maps,
        settings=config.saliency.trainer,
        run=run,
        seed=config.seed,
        validation=SaliencyItems(validation, features, maps) if validation else None,
    )
    runs.finish_part(run, decoder, runs.DECODER)
    return run


def _marked_clips(samples: Sequence[Sample], root: Path, maps: Path, what: str) -> list[Sample]:
    """One sample of each clip that a marker looked at; what is left out is printed.

    Raises:
        DataError: Nobody looked at any of them.
    """
    clips = {sample.video: sample for sample in samples}
    points = root / "fixations.json"
    known = read_fixations(points) if points.is_file() else None
    kept, absent = looked_at(clips, maps, known)
    if not kept:
        raise DataError(f"{points}: no marker looked at any of the {what}; stop after stage 2")
    for line in left_out_note(absent, len(clips), what):
        print(line)
    return [clips[video] for video in kept]


def saliency_geometry(config: Config, backbone: LMME3DHFConfig) -> SaliencyConfig:
    """The decoder's geometry by the settings, with every default decided for a backbone."""
    chosen = SaliencyConfig(
        taps=config.saliency.taps or None,
        width=config.saliency.width or None,
        branches=config.saliency.branches,
        prompt=config.saliency.prompt,
    )
    return chosen.resolved(backbone.vision_config.depth, backbone.text_config.hidden_size)
