"""The public API: a finished model folder -> scores, levels, distortions and maps of clips.

from lmme3dhf import Scorer
Scorer.from_pretrained("runs/demo/model").score("face.mp4")
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import GenerationConfig, ProcessorMixin

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, distortion_reply, parse_distortions
from lmme3dhf.aspects import Aspects
from lmme3dhf.assessment import Assessment, Failure, Rating, is_outside_training
from lmme3dhf.data.collation import Media, packed_batch, view_batch, written_batch
from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import ClipReader, decoded, worker_count
from lmme3dhf.data.dialogue import DialogueEncoder, with_tokens
from lmme3dhf.data.gen3dhf import CATEGORY_PROMPT, PROMPTS
from lmme3dhf.data.packing import Path as Packed
from lmme3dhf.data.packing import expand, pack
from lmme3dhf.data.pictures import clips_in_memory
from lmme3dhf.data.pixels import frame_pixels, view_pixels
from lmme3dhf.data.sources import in_memory, is_one, single_clips, three_views
from lmme3dhf.data.video import Clip, Clips, FrameChoice
from lmme3dhf.models.answers import (
    FAULTS,
    SPELLINGS,
    VALID_ANSWERS,
    distortion_log_odds,
    named_categories,
    spelling_tokens,
)
from lmme3dhf.models.card import read_metric, scales
from lmme3dhf.models.folder import ModelError, verify_folder
from lmme3dhf.models.hub import model_folder
from lmme3dhf.models.likelihood import Replies, log_probabilities, reply_tree
from lmme3dhf.models.loading import load_model, loading_options
from lmme3dhf.models.memory import in_parts
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.progress import with_progress
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS, NO_DISTORTION

_REPLY_TOKENS = 64  # all nine categories fit


@dataclass(frozen=True, kw_only=True)
class _Answer:
    categories: tuple[str, ...]
    log_odds: dict[str, float] | None = None


def rating_dialogues(
    encoder: DialogueEncoder, prompts: Mapping[str, str], aspects: Aspects
) -> dict[str, list[Packed]]:
    """The questions for ratings: dimension -> the dialogue that ends where its level and score are
    read.

    Args:
        encoder: Of the model's tokenizer.
        prompts: Question of each dimension.
        aspects: Those of the model.
    """
    return {
        name: [_dialogue(encoder, prompts[name], aspect.prefix())]
        for name, aspect in aspects.items()
    }


def _dialogue(
    encoder: DialogueEncoder, prompt: str, prefix: str | None, more: tuple[int, ...] = ()
) -> Packed:
    ids = (*encoder.encode(prompt, prefix=prefix).input_ids, *more)
    return Packed(ids, (len(ids) - 1,))


def encoded_clip(model: LMME3DHF, processor: ProcessorMixin, clip: Clip) -> Media:
    """A clip's frames as the language model takes them.

    Args:
        model: Whose vision tower runs.
        processor: Of the model's folder.
        clip: See `data.video.read_clip`.
    """
    pixels = frame_pixels(clip, processor.video_processor)
    grid = torch.tensor([pixels.grid_thw], device=model.device)
    return Media(
        grid_thw=pixels.grid_thw,
        second_per_grid=pixels.second_per_grid,
        tokens=pixels.tokens,
        video_embeds=model.encode_video(pixels.values.to(model.device), grid),
    )


def read(
    model: LMME3DHF,
    encoder: DialogueEncoder,
    media: Sequence[Media],
    asked: Mapping[str, Sequence[Packed]],
    pad_token_id: int,
) -> dict[str, torch.Tensor]:
    """Reads all dialogues on all clips in one pass.

    Args:
        model: The model.
        encoder: Of its tokenizer.
        media: The clips.
        asked: Name -> dialogues that end where they are read.
        pad_token_id: Fills shorter clips up.

    Returns:
        Name -> hidden states (clips, dialogues of this name, hidden).
    """
    packed = pack(tuple(path for paths in asked.values() for path in paths))
    packs = [expand(packed, encoder.video_pad, clip.tokens) for clip in media]
    batch = packed_batch(packs, media, encoder.video_pad, pad_token_id)
    hidden = model.hidden_at(**{name: value.to(model.device) for name, value in batch.items()})
    places = iter(place for (place,) in packed.places)
    return {name: hidden[:, [next(places) for _ in paths]] for name, paths in asked.items()}


class Scorer:
    """Scores clips with a finished model.

    Args:
        model: With a trained head; the saliency decoder is used when it has one. Without `scores`
            any Qwen2.5-VL will do; one that has not seen the level words gets their tokens.
        processor: Of the model's folder.
        batch_size: Clips at a time. Scores do not depend on it beyond rounding. Where memory does
            not do, the batch is halved as often as needed, and the size that fits is kept for later
            batches (the attribute shows it).
        workers: Processes that decode ahead, and that can be stopped when a file hangs or eats
            memory; None for one a core, at most 16. 0 decodes in this one, unprotected. Results do
            not depend on it.
        timeout_s: Seconds of processor time that decoding one file may take, where there are
            workers; by the clock ten times as many.
        scores: Whether ratings have scores. False takes models that have no trained head, such as a
            merged stage 1: their ratings are levels and level probabilities.
        views: Where clips show the face at -45, 0 and +45 degrees (`data.sources.three_views`); the
            attribute may be set anew for other clips. They decide the maps; scores come from frames
            all over the clip, and a strip has its own views.

    Raises:
        ModelError: The model was not trained to score.
        ValueError: No clip at a time, or less than no process.
        DataError: Impossible views.
    """

    def __init__(
        self,
        model: LMME3DHF,
        processor: ProcessorMixin,
        *,
        batch_size: int = 8,
        workers: int | None = None,
        timeout_s: float = 60.0,
        scores: bool = True,
        views: Sequence[float] | None = None,
    ) -> None:
        workers = worker_count(workers)
        if batch_size < 1 or workers < 0:
            raise ValueError(
                f"batch_size {batch_size} with {workers} workers; expected at least 1 clip at a "
                "time, and 0 or more processes that decode"
            )
        metric = model.metric
        untrained = any(part.startswith("heads.") for part in model.missing_parts)
        if scores and (untrained or not metric.level_tokens):
            raise ModelError(
                f"{model.name_or_path}: this model has no trained score head; train stage 2 and "
                "merge it, take another folder, or ask for words alone (scores=False; lmme3dhf "
                "predict --scores false)"
            )
        if scores and metric.read != "answer":
            raise ModelError(
                f"{model.name_or_path}: its head reads at the {metric.read} (an ablation); only a "
                "model that reads at the answer can score a new video. Train stage 2 with "
                "score.read answer"
            )
        self._encoder = DialogueEncoder(processor.tokenizer)
        if not metric.level_tokens:
            aspects = with_tokens(metric.aspects, processor.tokenizer)
            model.config.set_metric(metric.replace(aspects=aspects))
        self.model = model.eval()
        self.processor = processor
        self.batch_size, self.workers, self.scores = batch_size, workers, scores
        self.timeout_s, self.views = timeout_s, views
        try:
            self.choice = FrameChoice(**(metric.frames or {}))
        except (TypeError, ValueError) as error:
            raise ModelError(f"config.json, metric.frames: {error}; merge its run again") from error

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        attn_implementation: str = "auto",
        load: str | None = None,
        batch_size: int = 8,
        workers: int | None = None,
        timeout_s: float = 60.0,
        scores: bool = True,
        views: Sequence[float] | None = None,
        verify: bool = True,
    ) -> "Scorer":
        """Loads a finished model.

        Args:
            path_or_hub_id: Folder of a merged model, or its name on the Hugging Face hub.
            device: As of `models.loading.load_model`.
            dtype: Likewise, or torch's own type; "auto" for the stored one.
            attn_implementation: Likewise.
            load: "bf16": in bfloat16, whatever is stored. "8bit", "4bit": the language model
                quantised to this (needs a GPU and bitsandbytes), the rest in `dtype`. None: as it
                is stored.
            batch_size: As of the class, as are the next three.
            workers: Processes that decode ahead; None for one a core.
            timeout_s: As of the class.
            scores: Whether ratings have scores; False for models without a trained head.
            views: As of the class.
            verify: Compare every file of the folder with its manifest first, where it has one.
                Reading the files takes about a second a GB, once: hashes are remembered while
                the files stay as they are (`files.Hashes`).

        Raises:
            ModelError: The folder holds no model that was trained to score, a file is not as it
                was written, there is no such device, or a type, kernel or quantisation does not
                work here.
            DataError: Its tokenizer and chat template cannot encode a question on a video; or
                impossible views.
            HubError: There is no such folder, and no such model to be had from the hub.
        """
        dtype, quantization = loading_options(load, str(dtype).removeprefix("torch."))
        views = three_views(views)  # what can go wrong goes wrong before the model is loaded
        folder = model_folder(path_or_hub_id)
        if verify:
            verify_folder(folder)
        model = load_model(
            folder,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantization=quantization,
        )
        return cls(
            model,
            load_processor(folder),
            batch_size=batch_size,
            workers=workers,
            timeout_s=timeout_s,
            scores=scores,
            views=views,
        )

    @property
    def views(self) -> tuple[float, ...]:
        """Where the views are taken, as fractions of a clip."""
        return self._views

    @views.setter
    def views(self, views: Sequence[float] | None) -> None:
        """Takes the views of the next clips elsewhere; None for the usual places."""
        self._views = three_views(views)

    @property
    def scales(self) -> dict[str, Any]:
        """What the numbers mean: minimum, maximum, direction, levels and their edges, and how the
        training scores are distributed (`metric.json`, see `models.card.scales`).
        """
        folder = Path(self.model.name_or_path)
        if (folder / "config.json").is_file():
            return read_metric(folder)
        return scales(self.model.config.metric or {})

    def score(
        self,
        clips: Any,
        *,
        fps: float | None = None,
        answers: str | None = "likelihood",
        maps: bool = True,
        write_text: bool = False,
        progress: bool = True,
    ) -> Assessment | Iterator[Assessment | Failure]:
        """Assesses one clip, or many.

        | clips                                              | what they are                       |
        |----------------------------------------------------|-------------------------------------|
        | path                                               | one: a video, or a strip's picture  |
        | array or tensor (T, H, W, 3)                       | one: a whole clip, first to last    |
        | array, tensor or Pillow picture (H, 3W, 3)         | one: a strip of three views         |
        | path of a folder                                   | many: all files below it, sorted    |
        | pattern ("clips/*.mp4", ** for any folders)        | many: sorted; an existing path is a |
        |                                                    | path, whatever it holds             |
        | list or any other iterable of those, or a column   | many: in this order                 |
        | of paths                                           |                                     |

        One gives an `Assessment`. Many give an iterator of one result each, computed batch by batch
        while it is iterated over; a clip that cannot be assessed is a `Failure`, and the rest go
        on. Of an iterable no more than is needed is taken ahead, so it may be endless.

        Pictures in memory are RGB, uint8 or floats in 0..1. Those of a decoded file give its scores
        bit for bit. A strip is judged as a clip of three seconds of which each second shows one
        view; models are trained on whole clips, so its scores are a rough guide. Its maps are those
        of exactly its views.

        Args:
            clips: See above.
            fps: Pictures per second of clips in memory; files have their own. May be left out where
                the model takes a fixed number of pictures: the clip then counts as one of four
                seconds, as those of Gen3DHF are.
            answers: How the distortions are answered, as of `assess`.
            maps: Predict saliency maps when the model can.
            write_text: Let the model write its ratings as sentences too.
            progress: Of many, print every ten seconds how many are done.

        Raises:
            VideoError: One clip was given, and it gives no scores; its `reason` says why in one
                word.
            DataError: A folder or pattern without files.
            TypeError: Nothing that clips come from.
            ValueError: No fps where it decides which pictures are seen, or one for a file; or an
                unknown way to answer.
            ModelError: The model cannot answer in this way.
        """
        options = {"fps": fps, "answers": answers, "maps": maps, "write_text": write_text}
        if is_one(clips):
            _check_rate(clips, fps)
            (result,) = self.assess([clips], **options)
            if isinstance(result, Failure):
                raise VideoError(result.reason, result.message)
            return result
        pieces, total = single_clips(clips), None
        if isinstance(clips, str | os.PathLike | list | tuple):
            pieces = list(pieces)
            total = len(pieces)
        elif isinstance(clips, Sized):
            total = len(clips)
        results = self.assess(pieces, **options)
        return with_progress(results, "scoring", total) if progress else results

    def describe(
        self, clip: Any, question: str, *, fps: float | None = None, max_new_tokens: int = 128
    ) -> str:
        """Answers a question about one clip in the model's own words, the likeliest at each step.

        Args:
            clip: One clip, as of `score`.
            question: Free text; what looks like a control token in it is read as text.
            fps: As of `score`.
            max_new_tokens: Where the answer ends at the latest.

        Raises:
            VideoError: The clip gives no pictures, or needs more memory than there is.
            TypeError: Many clips, or nothing that a clip comes from.
            ValueError: No question, or as of `score`.
        """
        if not is_one(clip):
            raise TypeError("describe takes one clip: a file, pictures (T, H, W, 3), or a strip")
        if not question.strip() or max_new_tokens < 1:
            raise ValueError("describe needs a question, and room for a token or more to answer it")
        _check_rate(clip, fps)
        ((path, clips),) = self._clips([clip], fps, frames=True, views=False)
        if isinstance(clips, VideoError):
            raise clips

        def answer(part: Sequence[Clips]) -> list[str]:
            media = [self._media(clips.frames) for clips in part]
            return self._write(media, question, None, max_new_tokens)

        ((text,), _) = in_parts([clips], answer)
        if text is None:
            raise self._too_much(path)
        return text

    def assess(
        self,
        clips: Iterable[Any],
        *,
        fps: float | None = None,
        prompts: Mapping[str, str] = PROMPTS,
        ratings: bool = True,
        answers: str | None = "likelihood",
        maps: bool = True,
        write_text: bool = False,
    ) -> Iterator[Assessment | Failure]:
        """Assesses clips in order, a batch at a time; a bad file is a `Failure` and the rest go on.

        What is not asked for is not computed, and None in the result. An iterator that is closed
        early ends the processes that decode.

        Args:
            clips: Paths of clips, and pictures in memory (`data.pictures.pictures_of`).
            fps: Pictures per second of those in memory, as of `score`.
            prompts: Question of each dimension and of "distortion".
            ratings: Rate quality and authenticity.
            answers: How the distortions are answered, a key of `ANSWERS`. "reply": the model writes
                its list, which is parsed; what cannot be parsed is lost. "likelihood", for a model
                that was tuned on such lists: the marginals of its distribution over all valid lists
                (`distortion_log_odds`). "yes_no", for any model that follows instructions: one
                question a category, of which the log-odds of "yes" against "no" at the first token
                of the reply are taken, each summed over its spellings that are one token; the
                log-odds of no distortion are those of the likeliest one, negated. The last two name
                what `named_categories` says. None: no answer.
            maps: Predict saliency maps when the model can.
            write_text: Let the model write its ratings, when there are any, as sentences too
                (`Rating.text`).

        Raises:
            ValueError: Unknown way to answer, or no fps where it is needed.
            ModelError: The model cannot answer in this way, or has none of what is asked for.
        """
        if answers is not None and answers not in ANSWERS:
            raise ValueError(f"answers={answers!r}, expected one of {', '.join(ANSWERS)}, or None")
        maps = maps and self.model.saliency_decoder is not None
        frames = ratings or answers is not None
        if not (frames or maps):
            raise ModelError(
                f"{self.model.name_or_path}: nothing but maps is asked for, and this model has no "
                "saliency decoder; train stage 3 and merge it, or take another folder"
            )
        run = partial(
            self._assess_part,
            prompts=prompts,
            ratings=ratings,
            answers=answers,
            write_text=write_text,
        )
        # One decode gives both.
        return self._results(self._clips(clips, fps, frames=frames, views=maps), run)

    def _clips(
        self, given: Iterable[Any], fps: float | None, *, frames: bool, views: bool
    ) -> Iterator[tuple[Path | None, Clips | VideoError]]:
        """Where each clip is, and what was read of it."""
        paths: list[Path | None] = []

        def pieces() -> Iterator[Path | Clips | VideoError]:
            for number, clip in enumerate(given, 1):
                if not in_memory(clip):
                    paths.append(Path(clip))
                    yield paths[-1]
                    continue
                paths.append(None)
                name = f"clip {number} in memory"
                try:
                    yield clips_in_memory(
                        clip,
                        self.choice,
                        fps,
                        frames=frames,
                        views=views,
                        name=name,
                        at=self.views,
                    )
                except VideoError as error:
                    yield error

        reader = ClipReader(choice=self.choice, frames=frames, views=views, at=self.views)
        read = decoded(pieces(), reader, self.workers, timeout_s=self.timeout_s)
        with closing(read):
            for clips in read:
                yield paths.pop(0), clips

    def _results(
        self,
        read: Iterator[tuple[Path | None, Clips | VideoError]],
        run: Callable[[Sequence[tuple[Path | None, Clips]]], list[Assessment]],
    ) -> Iterator[Assessment | Failure]:
        pending: list[tuple[Path | None, Clips | VideoError]] = []
        with closing(read):
            for pair in read:
                pending.append(pair)
                if len(pending) >= self.batch_size:
                    yield from self._assess_batch(pending, run)
                    pending = []
            if pending:
                yield from self._assess_batch(pending, run)

    def _assess_batch(
        self,
        pending: list[tuple[Path | None, Clips | VideoError]],
        run: Callable[[Sequence[tuple[Path | None, Clips]]], list[Assessment]],
    ) -> Iterator[Assessment | Failure]:
        whole = [pair for pair in pending if not isinstance(pair[1], VideoError)]
        results, fitted = in_parts(whole, run) if whole else ([], None)
        if fitted is not None:
            self.batch_size = min(self.batch_size, fitted)
        remaining = iter(results)
        for path, clips in pending:
            result = clips if isinstance(clips, VideoError) else next(remaining)
            if result is None:
                result = self._too_much(path)
            if isinstance(result, VideoError):
                result = Failure(path, result.reason, str(result))
            yield result

    def _too_much(self, path: Path | None) -> VideoError:
        return VideoError(
            "out_of_memory",
            f"{'pictures in memory' if path is None else path}: too large for the memory of "
            f"{self.model.device}, even alone; scale the clip down, or load the model in fewer "
            "bits (load='4bit')",
        )

    def _assess_part(
        self,
        part: Sequence[tuple[Path | None, Clips]],
        *,
        prompts: Mapping[str, str],
        ratings: bool,
        answers: str | None,
        write_text: bool,
    ) -> list[Assessment]:
        asked = self._asked(prompts, ratings, answers)
        written = self._written(prompts, ratings and write_text, answers == "reply")
        media = [self._media(clips.frames) for _, clips in part] if asked or written else []
        # One pass over the batch for all that is read, one for each text.
        hidden = self._read(media, asked) if asked else {}
        texts = {name: self._write(media, *question) for name, question in written.items()}
        rated = {d: self._ratings(d, hidden[d], texts.get(d)) for d in DIMENSIONS if d in hidden}
        answered: list[_Answer] = []
        if answers is not None:
            answered = ANSWERS[answers](self, hidden.get("distortion"), texts.get("distortion"))
        return [
            Assessment(
                path=path,
                quality=rated["quality"][i] if rated else None,
                authenticity=rated["authenticity"][i] if rated else None,
                distortions=answered[i].categories if answered else None,
                saliency=self._saliency(clips.views) if clips.views else None,
                decoder=(clips.frames or clips.views).decoder,
                notes=clips.notes,
                distortion_log_odds=answered[i].log_odds if answered else None,
            )
            for i, (path, clips) in enumerate(part)
        ]

    @torch.inference_mode()
    def _media(self, clip: Clip) -> Media:
        return encoded_clip(self.model, self.processor, clip)

    def _asked(
        self, prompts: Mapping[str, str], ratings: bool, answers: str | None
    ) -> dict[str, list[Packed]]:
        """What is read: name -> the dialogues that end where a hidden state is needed."""
        asked = {}
        if ratings:
            asked = rating_dialogues(self._encoder, prompts, self.model.metric.aspects)
        dialogue = partial(_dialogue, self._encoder)
        if answers == "likelihood":
            forks = self._valid_replies.forks
            asked["distortion"] = [dialogue(prompts["distortion"], REPLY_PREFIX, f) for f in forks]
        elif answers == "yes_no":
            questions = [CATEGORY_PROMPT.format(category=category) for category in FAULTS]
            asked["distortion"] = [dialogue(question, None) for question in questions]
        return asked

    def _written(
        self, prompts: Mapping[str, str], ratings: bool, answer: bool
    ) -> dict[str, tuple[str, str | None]]:
        """What is written: name -> question, and start of the reply."""
        written: dict[str, tuple[str, str | None]] = {}
        if ratings:
            written = {d: (prompts[d], None) for d in DIMENSIONS}
        if answer:
            written["distortion"] = (prompts["distortion"], REPLY_PREFIX)
        return written

    @torch.inference_mode()
    def _read(self, media: list[Media], asked: dict[str, list[Packed]]) -> dict[str, torch.Tensor]:
        return read(self.model, self._encoder, media, asked, self.processor.tokenizer.pad_token_id)

    def _on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(self.model.device) for name, value in batch.items()}

    @torch.inference_mode()
    def _ratings(
        self, dimension: str, hidden: torch.Tensor, texts: list[str] | None
    ) -> list[Rating]:
        hidden = hidden[:, 0]
        scores = (
            self.model.metric.aspects[dimension]
            .scale.from_unit(self.model.scores(hidden, dimension))
            .tolist()
        )
        scale = self._scales[dimension]
        probabilities = torch.softmax(self.model.level_logits(hidden, dimension), -1).tolist()
        return [
            Rating(
                score=score if self.scores else None,
                level=LEVELS[int(np.argmax(row))],
                level_probabilities=dict(zip(LEVELS, row, strict=True)),
                text=text,
                outside_training=self.scores and is_outside_training(score, scale),
            )
            for score, row, text in zip(
                scores, probabilities, texts or [None] * len(scores), strict=True
            )
        ]

    @cached_property
    def _scales(self) -> dict[str, Any]:
        return self.scales["dimensions"]

    @cached_property
    def _writer(self) -> LMME3DHF:
        """The model with greedy search alone. `generate` fills what a call leaves open from the
        folder's generation_config.json, and Qwen2.5-VL's penalises words of the question.
        """
        given, tokenizer = self.model.generation_config.eos_token_id, self.processor.tokenizer
        # A shallow copy: everything but this attribute is shared with the model.
        writer = copy(self.model)
        writer.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id if given is None else given,
            pad_token_id=tokenizer.pad_token_id,
        )
        return writer

    @torch.inference_mode()
    def _write(
        self,
        media: list[Media],
        prompt: str,
        prefix: str | None,
        max_new_tokens: int = _REPLY_TOKENS,
    ) -> list[str]:
        tokenizer = self.processor.tokenizer
        dialogue = self._encoder.encode(prompt, prefix=prefix)
        batch = self._on_device(
            written_batch([dialogue] * len(media), media, tokenizer.pad_token_id)
        )
        embeds = self.model.embed(batch["input_ids"], batch.pop("video_embeds"))
        written = self._writer.generate(
            **batch, inputs_embeds=embeds, max_new_tokens=max_new_tokens
        )
        new = written[:, batch["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [f"{prefix or ''}{text}".strip() for text in texts]

    def _answer_by_reply(self, hidden: None, texts: list[str]) -> list[_Answer]:
        return [_Answer(categories=parse_distortions(reply).categories) for reply in texts]

    @torch.inference_mode()
    def _answer_by_likelihood(self, hidden: torch.Tensor, texts: None) -> list[_Answer]:
        output = self.model.lm_head.weight
        rows = log_probabilities(hidden, output, self._valid_replies)
        odds = [distortion_log_odds(row, VALID_ANSWERS) for row in rows]
        return [_Answer(categories=named_categories(row), log_odds=row) for row in odds]

    @cached_property
    def _valid_replies(self) -> Replies:
        # Encoded as for training: what follows the prefix, with the end of the reply.
        encoded = [
            self._encoder.encode("", reply=distortion_reply(named), prefix=REPLY_PREFIX)
            for named in VALID_ANSWERS
        ]
        return reply_tree([dialogue.input_ids[dialogue.read_index + 1 :] for dialogue in encoded])

    @torch.inference_mode()
    def _answer_by_yes_no(self, hidden: torch.Tensor, texts: None) -> list[_Answer]:
        yes, no = (spelling_tokens(self.processor.tokenizer, s) for s in SPELLINGS.values())
        if not yes or not no or set(yes) & set(no):
            raise ModelError(
                f"{self.model.name_or_path}: its tokenizer has no tokens of their own for yes and "
                "no; ask for answers by reply or likelihood"
            )
        logits = self.model.lm_head(hidden).float()
        difference = logits[..., yes].logsumexp(-1) - logits[..., no].logsumexp(-1)
        odds = [dict(zip(FAULTS, row, strict=True)) for row in difference.tolist()]
        for row in odds:
            # A clip is clean when even its likeliest distortion is not there.
            row[NO_DISTORTION] = -max(row.values())
        return [_Answer(categories=named_categories(row), log_odds=row) for row in odds]

    @torch.inference_mode()
    def _saliency(self, clip: Clip) -> np.ndarray:
        views = view_pixels(clip, self.processor.video_processor)
        media = Media(
            grid_thw=views.grid_thw,
            second_per_grid=views.second_per_grid,
            tokens=views.tokens,
            pixel_values=views.values,
        )
        prompt = self.model.metric.saliency.prompt
        batch = self._on_device(view_batch(self._encoder, [media], prompt))
        tokens, taps = self.model.encode_views(
            batch.pop("pixel_values_videos"), batch["video_grid_thw"]
        )
        states = self.model.view_states(**batch, video_embeds=tokens)
        maps = self.model.saliency_decoder(states, taps)
        size = (clip.height, clip.width)
        full = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
        return np.hstack(full[0].clamp(0, 1).cpu().numpy())


def _check_rate(clip: Any, fps: float | None) -> None:
    if fps is not None and not in_memory(clip):
        raise ValueError(f"{clip}: fps is for pictures in memory, a file has its own; leave it out")


# How distortions are answered; see `Scorer.assess`.
ANSWERS = {
    "reply": Scorer._answer_by_reply,
    "likelihood": Scorer._answer_by_likelihood,
    "yes_no": Scorer._answer_by_yes_no,
}
