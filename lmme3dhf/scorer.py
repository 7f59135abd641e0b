"""The public API: a finished model folder -> scores, levels, distortions and maps of clips.

from lmme3dhf import Scorer
Scorer.from_pretrained("runs/demo/model").score("face.mp4")
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import ProcessorMixin

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, parse_distortions
from lmme3dhf.data.collation import Collator, Item, view_batch
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.pixels import PixelLoader, Pixels, decoded, read_pixels
from lmme3dhf.data.video import FrameChoice, VideoError
from lmme3dhf.models.configuration import ModelError
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS

_REPLY_TOKENS = 64  # all nine categories fit


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One dimension of one clip.

    Attributes:
        score: Predicted opinion score on the scale 0 to 100, higher is better; a regression may
            overshoot the ends a little.
        level: The level word, bad to excellent.
        level_probabilities: Probability of each level word at the position that predicts it.
        text: What the model says when it is asked, or None when it was not asked to write.
    """

    score: float
    level: str
    level_probabilities: dict[str, float]
    text: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What the metric says about one clip.

    Attributes:
        path: The clip.
        quality: Perceptual quality.
        authenticity: How much it looks like a real face.
        distortions: Categories that the model names; empty when its reply names none of the nine.
        saliency: (H, 3W) float32 in 0..1, the maps of the three views side by side at the clip's
            own size, as predicted; None for a model without a saliency decoder.
        decoder: What decoded the clip; scores belong to a decoder.
    """

    path: Path
    quality: Rating
    authenticity: Rating
    distortions: tuple[str, ...]
    saliency: np.ndarray | None
    decoder: str


@dataclass(frozen=True)
class Failure:
    """A file that could not be assessed.

    Attributes:
        path: The file.
        reason: One of `data.video.REASONS`.
        message: What, where, and how to go on.
    """

    path: Path
    reason: str
    message: str


class Scorer:
    """Scores clips with a finished model.

    Args:
        model: With a trained head; the saliency decoder is used when it has one.
        processor: Of the model's folder.
        batch_size: Clips at a time. Scores do not depend on it beyond rounding.
        workers: Processes that decode ahead; 0 decodes in this one.

    Raises:
        ModelError: The model was not trained to score.
    """

    def __init__(
        self,
        model: LMME3DHF,
        processor: ProcessorMixin,
        *,
        batch_size: int = 8,
        workers: int = 0,
    ) -> None:
        metric = model.metric
        if "score_head" in model.missing_parts or metric.level_token_ids is None:
            raise ModelError(
                f"{model.name_or_path}: this model has no trained score head; train stage 2 and "
                "merge it, or take another folder"
            )
        self.model = model.eval()
        self.processor = processor
        self.batch_size, self.workers = batch_size, workers
        self.choice = FrameChoice(**(metric.frames or {}))
        self._encoder = DialogueEncoder(processor.tokenizer)
        self._collate = Collator(processor.tokenizer.pad_token_id)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        workers: int = 0,
    ) -> "Scorer":
        """Loads a finished model.

        Args:
            folder: Folder (or hub id) of a merged model.
            device: "auto" takes a GPU where there is one.
            dtype: "auto" keeps the stored type of the backbone; heads are float32 always.
            batch_size: Clips at a time.
            workers: Processes that decode ahead.

        Raises:
            ModelError: The folder holds no model that was trained to score, or there is no such
                device.
        """
        dtype = "auto" if dtype == "auto" else getattr(torch, dtype)
        model = LMME3DHF.from_pretrained(folder, dtype=dtype)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"device {device}: {reason}; give auto or cpu") from error
        processor = load_processor(folder)
        return cls(model, processor, batch_size=batch_size, workers=workers)

    def score(self, path: str | Path) -> Assessment:
        """Assesses one clip.

        Raises:
            VideoError: The file gives no clip; its `reason` says why in one word.
        """
        result = next(self.assess([Path(path)]))
        if isinstance(result, Failure):
            raise VideoError(result.reason, result.message)
        return result

    def assess(
        self,
        paths: Iterable[Path],
        *,
        prompts: Mapping[str, str] = PROMPTS,
        maps: bool = True,
        write_text: bool = False,
    ) -> Iterator[Assessment | Failure]:
        """Assesses clips in order, a batch at a time; a bad file is a `Failure` and the rest go on.

        Args:
            paths: The clips.
            prompts: Question of each dimension and of "distortion".
            maps: Predict saliency maps when the model can.
            write_text: Let the model write its ratings as sentences too (`Rating.text`).
        """
        paths = list(paths)
        loader = PixelLoader(paths, self.choice, self.processor.video_processor, views=False)
        pending: list[tuple[Path, Pixels | VideoError]] = []
        for path, pixels in zip(paths, decoded(loader, self.workers), strict=True):
            pending.append((path, pixels))
            if len(pending) == self.batch_size:
                yield from self._assess_batch(pending, prompts, maps, write_text)
                pending = []
        if pending:
            yield from self._assess_batch(pending, prompts, maps, write_text)

    def _assess_batch(
        self,
        pending: list[tuple[Path, Pixels | VideoError]],
        prompts: Mapping[str, str],
        maps: bool,
        write_text: bool,
    ) -> Iterator[Assessment | Failure]:
        good = [(path, pixels) for path, pixels in pending if isinstance(pixels, Pixels)]
        assessed: dict[int, Assessment | VideoError] = {}
        if good:
            clips = [pixels for _, pixels in good]
            tokens = [self._tokens(pixels) for pixels in clips]
            ratings = {d: self._rate(clips, tokens, prompts[d], d) for d in DIMENSIONS}
            if write_text:
                for dimension in DIMENSIONS:
                    spoken = self._write(clips, tokens, prompts[dimension], None)
                    ratings[dimension] = [
                        replace(rating, text=text)
                        for rating, text in zip(ratings[dimension], spoken, strict=True)
                    ]
            answers = self._write(clips, tokens, prompts["distortion"], REPLY_PREFIX)
            for index, (path, pixels) in enumerate(good):
                assessed[id(pixels)] = Assessment(
                    path=path,
                    quality=ratings["quality"][index],
                    authenticity=ratings["authenticity"][index],
                    distortions=parse_distortions(answers[index]).categories,
                    saliency=self._saliency(path, pixels) if maps else None,
                    decoder=pixels.decoder,
                )
        for path, pixels in pending:
            if isinstance(pixels, VideoError):
                yield Failure(path, pixels.reason, str(pixels))
            else:
                yield assessed[id(pixels)]

    @torch.inference_mode()
    def _tokens(self, pixels: Pixels) -> torch.Tensor:
        # One clip at a time: its tokens do not depend on its neighbours.
        grid = torch.tensor([pixels.grid_thw], device=self.model.device)
        return self.model.encode_video(pixels.values.to(self.model.device), grid)

    def _batch(
        self, clips: list[Pixels], tokens: list[torch.Tensor], prompt: str, prefix: str | None
    ) -> dict[str, torch.Tensor]:
        items = [
            Item(
                name="",
                encoded=self._encoder.encode(prompt, len(embeds), prefix=prefix),
                grid_thw=pixels.grid_thw,
                second_per_grid=pixels.second_per_grid,
                video_embeds=embeds,
            )
            for pixels, embeds in zip(clips, tokens, strict=True)
        ]
        batch = self._collate(items)
        return {
            name: value.to(self.model.device)
            for name, value in batch.items()
            if name not in ("names", "labels", "mos")
        }

    @torch.inference_mode()
    def _rate(
        self, clips: list[Pixels], tokens: list[torch.Tensor], prompt: str, dimension: str
    ) -> list[Rating]:
        prefix = self.model.metric.answer_prefix.format(dimension=dimension)
        output = self.model(**self._batch(clips, tokens, prompt, prefix))
        probabilities = torch.softmax(output.level_logits, -1).tolist()
        return [
            Rating(
                score=100 * score,
                level=LEVELS[int(np.argmax(row))],
                level_probabilities=dict(zip(LEVELS, row, strict=True)),
            )
            for score, row in zip(output.score.tolist(), probabilities, strict=True)
        ]

    @torch.inference_mode()
    def _write(
        self, clips: list[Pixels], tokens: list[torch.Tensor], prompt: str, prefix: str | None
    ) -> list[str]:
        batch = self._batch(clips, tokens, prompt, prefix)
        batch.pop("read_index")
        embeds = self.model.embed(batch["input_ids"], batch.pop("video_embeds"))
        tokenizer = self.processor.tokenizer
        written = self.model.generate(
            **batch,
            inputs_embeds=embeds,
            max_new_tokens=_REPLY_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = written[:, batch["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [f"{prefix or ''}{text}".strip() for text in texts]

    @torch.inference_mode()
    def _saliency(self, path: Path, pixels: Pixels) -> np.ndarray | None:
        if self.model.saliency_decoder is None:
            return None
        views = read_pixels(path, self.choice, self.processor.video_processor, views=True)
        batch = view_batch(self._encoder, self._collate, [views])
        batch = {name: value.to(self.model.device) for name, value in batch.items()}
        maps = self.model.saliency_decoder(*self.model.saliency_features(**batch))
        width, height = pixels.size
        full = functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
        return np.hstack(full[0].clamp(0, 1).cpu().numpy())
