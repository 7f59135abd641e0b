"""What the stages read of a clip: stored features where what makes them is frozen, pictures where
it trains, each computed once (`features`).

Four stores. `tokens`: the vision tower's merged tokens of a clip's frames (stages 1 and 2).
`frames`: the resized pictures, for runs whose tower trains. `views`: tokens and taps of the three
views, and `hidden`: the language model's states at these tokens (stage 3). The tower is loaded
alone, and only to compute what is missing; so is the language model for `hidden`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import BaseVideoProcessor, PreTrainedModel, ProcessorMixin

from lmme3dhf.config import Config, FrameSettings
from lmme3dhf.data.collation import Media, view_batch
from lmme3dhf.data.decoding import ClipReader, decoded, worker_count
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import SALIENCY_PROMPT
from lmme3dhf.data.pixels import Pixels, clip_pixels, frame_pixels, read_pixels, view_pixels
from lmme3dhf.data.video import Clip, Clips, FrameChoice
from lmme3dhf.distributed import on_main
from lmme3dhf.features.recipe import patches, pictures
from lmme3dhf.features.shards import Tensors
from lmme3dhf.features.store import FeatureStore
from lmme3dhf.models import loading
from lmme3dhf.models.configuration import SaliencyConfig
from lmme3dhf.models.modeling import LMME3DHF, encode_clips, encode_views, load_configuration
from lmme3dhf.models.tower import geometry, language_hash, load_tower, tower_hash

ReadMedia = Callable[[Path], Media]


@dataclass(frozen=True)
class ViewFeatures:
    """Inputs of the saliency decoder for one clip.

    Attributes:
        hidden: (views, h, w, hidden), the language model's states at the visual tokens.
        taps: Three tensors (views, 2h, 2w, vision width), deepest block first.
    """

    hidden: torch.Tensor
    taps: tuple[torch.Tensor, ...]


ReadViews = Callable[[Path], ViewFeatures]


def frame_choice(settings: FrameSettings) -> FrameChoice:
    """The settings as the reader of clips takes them."""
    return FrameChoice(
        fps=None if settings.frames else settings.fps,
        frames=settings.frames or None,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        images=settings.images,
    )


def clip_media(
    config: Config, folder: Path, processor: ProcessorMixin, clips: Sequence[Path], name: str
) -> ReadMedia:
    """Gives the function that reads a clip for stages 1 and 2; what it reads from a store is
    computed first.

    Args:
        config: Settings. With `data.store` off every read decodes, and the tower runs in each step.
        folder: Folder of the model that the stage starts from.
        processor: Of this folder.
        clips: All clips that will be read.
        name: For progress lines.
    """
    video = processor.video_processor
    if not config.data.store:
        choice = frame_choice(config.frames)
        return lambda clip: pixel_media(read_pixels(clip, choice, video, views=False))
    if config.lora.vision:
        frames = frame_store(config, clips, name)
        return lambda clip: _frames_media(frames.read(clip), video)
    tokens = visual_store(config, folder, processor, clips, name)
    return lambda clip: token_media(tokens.read(clip))


def view_features(
    config: Config,
    folder: Path,
    processor: ProcessorMixin,
    saliency: SaliencyConfig,
    clips: Sequence[Path],
    name: str,
) -> ReadViews:
    """Gives the function that reads the saliency decoder's inputs; the same arguments as
    `clip_media`, and the decoder's geometry with its taps.
    """
    encoder = DialogueEncoder(processor.tokenizer)
    if not config.data.store:
        model = loading.load_model(folder, **_loading(config), tower=True)
        choice, video = frame_choice(config.frames), processor.video_processor

        def computed(clip: Path) -> ViewFeatures:
            views = tower_views(
                model.model.visual, saliency.taps, read_pixels(clip, choice, video, views=True)
            )
            return _view_features(views | language_views(model, encoder, saliency.prompt, views))

        return computed
    views = view_store(config, folder, processor, saliency, clips, name)
    hidden = hidden_store(config, folder, encoder, saliency, views, clips, name)
    return lambda clip: _view_features(views.read(clip) | hidden.read(clip))


def visual_store(
    config: Config, folder: Path, processor: ProcessorMixin, clips: Iterable[Path], name: str
) -> FeatureStore:
    """Store of the frozen tower's merged tokens, filled: `tokens` (visual tokens, hidden),
    `grid_thw` and `second_per_grid`.
    """
    video, choice = processor.video_processor, frame_choice(config.frames)
    # Training an adapter starts from weights into which the one before is folded.
    fold = config.lora.trained
    about = pictures(choice, views=False) | patches(video) | _tower_recipe(config, folder, fold)
    store = _store(config, "tokens", about)

    def compute() -> Callable[[Clips], Tensors]:
        tower = _load_tower(config, folder, fold)

        def features(read: Clips) -> Tensors:
            pixels = frame_pixels(_on_device(read.frames, tower), video)
            tokens = encode_clips(tower, pixels.values, _grid(pixels, tower))
            return {"tokens": tokens.cpu()} | _shape(pixels)

        return features

    store.fill(
        clips,
        lambda missing: decoded(missing, _reader(choice, views=False), _workers(config)),
        compute,
        workers=_workers(config),
        name=f"{name}: features",
    )
    return store


def frame_store(config: Config, clips: Iterable[Path], name: str) -> FeatureStore:
    """Store of resized pictures, filled: `frames` uint8 (T, 3, H, W), and `sample_fps`."""
    choice = frame_choice(config.frames)
    store = _store(config, "frames", pictures(choice, views=False))

    def features(read: Clips) -> Tensors:
        fps = torch.tensor(read.frames.sample_fps, dtype=torch.float64)
        return {"frames": read.frames.frames, "sample_fps": fps}

    store.fill(
        clips,
        lambda missing: decoded(missing, _reader(choice, views=False), _workers(config)),
        lambda: features,
        workers=_workers(config),
        name=f"{name}: frames",
    )
    return store


def view_store(
    config: Config,
    folder: Path,
    processor: ProcessorMixin,
    saliency: SaliencyConfig,
    clips: Iterable[Path],
    name: str,
) -> FeatureStore:
    """Store of what the frozen tower makes of the three views, filled: `tokens` (visual tokens,
    hidden), `tap0` to `tap2` (views, 2h, 2w, vision width) in raster order, `grid_thw` and
    `second_per_grid`.
    """
    video, choice = processor.video_processor, frame_choice(config.frames)
    about = pictures(choice, views=True) | patches(video) | _tower_recipe(config, folder)
    store = _store(config, "views", about | {"taps": list(saliency.taps)})

    def compute() -> Callable[[Clips], Tensors]:
        tower = _load_tower(config, folder)
        return lambda read: tower_views(
            tower, saliency.taps, view_pixels(_on_device(read.views, tower), video)
        )

    store.fill(
        clips,
        lambda missing: decoded(missing, _reader(choice, views=True), _workers(config)),
        compute,
        workers=_workers(config),
        name=f"{name}: views",
    )
    return store


def hidden_store(
    config: Config,
    folder: Path,
    encoder: DialogueEncoder,
    saliency: SaliencyConfig,
    views: FeatureStore,
    clips: Iterable[Path],
    name: str,
) -> FeatureStore:
    """Store of the language model's states at the views' tokens, filled from the stored tokens:
    `hidden` (views, h, w, hidden).
    """
    configuration = load_configuration(folder)
    about = {
        "views": views.recipe,
        "language": on_main(lambda: language_hash(folder, getattr(torch, config.dtype))),
        "language_geometry": geometry(configuration.text_config),
        "dtype": config.dtype,
        "quantization": config.quantization,
        "prompt": SALIENCY_PROMPT if saliency.prompt is None else saliency.prompt,
        # With the tokenizer's and the chat format's say in it.
        "question": list(view_question(encoder, saliency.prompt)),
    }
    store = _store(config, "hidden", about)

    def compute() -> Callable[[Tensors], Tensors]:
        model = loading.load_model(folder, **_loading(config), tower=False)
        return lambda stored: language_views(model, encoder, saliency.prompt, stored)

    store.fill(
        clips,
        lambda missing: map(views.read, missing),
        compute,
        workers=_workers(config),
        name=f"{name}: language features",
    )
    return store


def _workers(config: Config) -> int:
    return worker_count(config.data.workers)


def _reader(choice: FrameChoice, *, views: bool) -> ClipReader:
    """Stages are trained on clips; a strip on their lists is a mistake."""
    return ClipReader(choice=choice, frames=not views, views=views, strips=False)


def tower_views(tower: PreTrainedModel, taps: Sequence[int], pixels: Pixels) -> Tensors:
    """What `view_store` holds of a clip; on the CPU."""
    tokens, tapped = encode_views(tower, taps, pixels.values.to(tower.device), _grid(pixels, tower))
    named = {f"tap{i}": tap[0].cpu() for i, tap in enumerate(tapped)}
    return {"tokens": tokens.cpu()} | named | _shape(pixels)


def language_views(
    model: LMME3DHF, encoder: DialogueEncoder, prompt: str | None, views: Tensors
) -> Tensors:
    """What `hidden_store` holds of a clip, from what `view_store` holds; on the CPU. One clip at a
    time, so that it depends on nothing but the clip.
    """
    batch = view_batch(encoder, [token_media(views)], prompt)
    hidden = model.view_states(**{name: value.to(model.device) for name, value in batch.items()})
    return {"hidden": hidden[0].cpu()}


def view_question(encoder: DialogueEncoder, prompt: str | None) -> tuple[int, ...]:
    """Tokens of the question before the views, as the model meets them."""
    one = Media(grid_thw=(1, 2, 2), second_per_grid=1.0, tokens=1, video_embeds=torch.zeros(1, 1))
    return tuple(view_batch(encoder, [one], prompt)["input_ids"][0].tolist())


def pixel_media(pixels: Pixels) -> Media:
    """A decoded clip as the model takes it."""
    return Media(
        grid_thw=pixels.grid_thw,
        second_per_grid=pixels.second_per_grid,
        tokens=pixels.tokens,
        pixel_values=pixels.values,
    )


def token_media(stored: Tensors) -> Media:
    """A clip from `visual_store` or `view_store` as the model takes it."""
    return Media(
        grid_thw=tuple(stored["grid_thw"].tolist()),
        second_per_grid=float(stored["second_per_grid"]),
        tokens=len(stored["tokens"]),
        video_embeds=stored["tokens"],
    )


def _frames_media(stored: Tensors, processor: BaseVideoProcessor) -> Media:
    values, grid = clip_pixels(stored["frames"], processor)
    return Media(
        grid_thw=grid,
        second_per_grid=processor.temporal_patch_size / float(stored["sample_fps"]),
        tokens=len(values) // processor.merge_size**2,
        pixel_values=values,
    )


def _view_features(stored: Tensors) -> ViewFeatures:
    return ViewFeatures(stored["hidden"], tuple(stored[f"tap{i}"] for i in range(3)))


def _shape(pixels: Pixels) -> Tensors:
    return {
        "grid_thw": torch.tensor(pixels.grid_thw),
        "second_per_grid": torch.tensor(pixels.second_per_grid, dtype=torch.float64),
    }


def _on_device(clip: Clip, tower: PreTrainedModel) -> Clip:
    # Bytes travel, and become patches there: a quarter of the traffic, and no work for the CPU.
    return replace(clip, frames=clip.frames.to(tower.device))


def _grid(pixels: Pixels, tower: PreTrainedModel) -> torch.Tensor:
    return torch.tensor([pixels.grid_thw], device=tower.device)


def _store(config: Config, kind: str, about: dict[str, Any]) -> FeatureStore:
    return FeatureStore(config.data.resolved().features, kind, about)


def _tower_recipe(config: Config, folder: Path, fold: bool = False) -> dict[str, Any]:
    dtype = getattr(torch, config.dtype)
    return {
        "tower": on_main(lambda: tower_hash(folder, dtype, fold_adapter=fold)),
        # Attention windows act without weights.
        "tower_geometry": geometry(load_configuration(folder).vision_config),
        "attention": _tower_attention(config),
        "dtype": config.dtype,
    }


def _tower_attention(config: Config) -> str:
    dtype = getattr(torch, config.dtype)
    return loading.tower_attention(config.attn_implementation, loading.chosen_device(), dtype)


def _load_tower(config: Config, folder: Path, fold: bool = False) -> PreTrainedModel:
    dtype = getattr(torch, config.dtype)
    tower = load_tower(folder, dtype, _tower_attention(config), fold_adapter=fold)
    return tower.to(loading.chosen_device())


def _loading(config: Config) -> dict[str, Any]:
    return {
        "dtype": config.dtype,
        "attn_implementation": config.attn_implementation,
        "quantization": config.quantization,
    }
