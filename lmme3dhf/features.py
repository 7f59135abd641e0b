"""The store of frozen features: what a frozen model makes of a clip is computed once.

A feature belongs to the clip's bytes, the choice of its frames, the decoder, the weights that made
it, and their type; its key is the hash of all that, so another clip under an old name, another
resolution or another model never meets a stale feature. One safetensors file a clip, written whole.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from transformers import BaseVideoProcessor, PreTrainedConfig, PreTrainedModel

from lmme3dhf.data.pixels import PixelLoader, Pixels, decoded
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.video import FrameChoice, VideoError, available_decoder
from lmme3dhf.files import file_hash, replace_file


def weights_hash(modules: Iterable[nn.Module]) -> str:
    """SHA-256 over names, types and values of the modules' parameters."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureStore:
    """Features of clips on disk, under one recipe.

    Args:
        folder: Where the files are.
        recipe: Everything beside the clip that the features depend on; JSON types.
    """

    def __init__(self, folder: Path, recipe: dict) -> None:
        self.folder = folder
        self._recipe = json.dumps(recipe, sort_keys=True)
        self._paths: dict[tuple, Path] = {}

    def path(self, clip: Path) -> Path:
        """File of a clip's features."""
        stat = clip.stat()
        known = (clip, stat.st_mtime_ns, stat.st_size)
        if known not in self._paths:
            key = hashlib.sha256(f"{file_hash(clip)} {self._recipe}".encode()).hexdigest()
            self._paths[known] = self.folder / key[:2] / f"{key}.safetensors"
        return self._paths[known]

    def read(self, clip: Path) -> dict[str, torch.Tensor]:
        """All tensors of a clip."""
        with safe_open(self.path(clip), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)

    def write(self, clip: Path, tensors: dict[str, torch.Tensor]) -> None:
        """Stores the tensors of a clip."""
        replace_file(
            self.path(clip), save({name: tensor.contiguous() for name, tensor in tensors.items()})
        )

    def fill(
        self,
        clips: Iterable[Path],
        compute: Callable[[Pixels], dict[str, torch.Tensor]],
        *,
        choice: FrameChoice,
        processor: BaseVideoProcessor,
        views: bool,
        workers: int,
        name: str,
    ) -> None:
        """Computes what is not there yet.

        Args:
            clips: The clips; named twice, computed once.
            compute: Features of one clip.
            choice: How clips become frames.
            processor: The model's video processor.
            views: Whether to read the three views.
            workers: Decoding processes.
            name: For progress lines.

        Raises:
            DataError: Some clips cannot be read; all of them are named, with reasons. Nothing is
                trained on the rest by accident.
        """
        clips = list(dict.fromkeys(clips))
        absent = [clip for clip in clips if not clip.is_file()]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(clips)} clips are missing, the first is {absent[0]}; "
                "check data.video_root"
            )
        missing = [clip for clip in clips if not self.path(clip).exists()]
        started = told = time.monotonic()
        broken = []
        for done, (clip, pixels) in enumerate(
            zip(
                missing,
                decoded(PixelLoader(missing, choice, processor, views=views), workers),
                strict=True,
            ),
            1,
        ):
            if isinstance(pixels, VideoError):
                broken.append(f"{clip} ({pixels.reason}): {pixels}")
                continue
            self.write(clip, compute(pixels))
            now = time.monotonic()
            if now - told > 10 or done == len(missing):
                told = now
                left = (now - started) / done * (len(missing) - done)
                print(f"{name}: {done} of {len(missing)} clips, {left:.0f} s left", flush=True)
        if broken:
            listed = "\n  ".join(broken)
            raise DataError(
                f"{len(broken)} of {len(clips)} clips cannot be read; replace them or take them "
                f"off the lists:\n  {listed}"
            )


def recipe(
    choice: FrameChoice,
    processor: BaseVideoProcessor,
    modules: Iterable[nn.Module],
    dtype: torch.dtype,
    **more: str,
) -> dict:
    """What features depend on beside the clip (see `FeatureStore`).

    Args:
        choice: How clips become frames.
        processor: The model's video processor.
        modules: The frozen modules that compute them.
        dtype: Of the computation.
        **more: Whatever else matters, such as the kind of features or a prompt.
    """
    modules = list(modules)
    return {
        "frames": asdict(choice),
        "decoder": available_decoder(),
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "weights": weights_hash(modules),
        # Windows, taps' depths and kernels act without weights.
        "config": [_geometry(m.config) for m in modules if isinstance(m, PreTrainedModel)],
        "dtype": str(dtype),
        **more,
    }


def _geometry(config: PreTrainedConfig) -> dict:
    ignored = ("transformers_version", "dtype", "_name_or_path", "architectures", "metric")
    kept = {name: value for name, value in config.to_dict().items() if name not in ignored}
    return kept | {"attention": config._attn_implementation}
