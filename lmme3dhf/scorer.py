"""The public API: a finished model folder -> scores, levels, distortions and maps of clips.

from lmme3dhf import Scorer
Scorer.from_pretrained("runs/demo/model").score("face.mp4")
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers import GenerationConfig, ProcessorMixin

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, distortion_reply, parse_distortions
from lmme3dhf.aspects import DISTORTION, Aspect, Aspects
from lmme3dhf.assessment import (
    Answer,
    Assessment,
    Failure,
    Question,
    QuestionError,
    Rating,
    is_outside_training,
)
from lmme3dhf.data.collation import Media, packed_batch, view_batch, written_batch
from lmme3dhf.data.container import VideoError
from lmme3dhf.data.decoding import ClipReader, decoded, worker_count
from lmme3dhf.data.dialogue import DialogueEncoder, Encoded, Turn, turns_before, with_tokens
from lmme3dhf.data.gen3dhf import CATEGORY_PROMPT, PROMPTS
from lmme3dhf.data.packing import TokenPath, expand, pack
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
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.folder import ModelError, verify_folder
from lmme3dhf.models.hub import model_folder
from lmme3dhf.models.likelihood import Replies, log_probabilities, reply_tree
from lmme3dhf.models.loading import load_model, loading_options
from lmme3dhf.models.memory import in_parts
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.progress import with_progress
from lmme3dhf.vocabulary import NO_DISTORTION

Slots = Mapping[str, str]  # name -> text that fills the fields of prompts

_REPLY_TOKENS = 64  # all nine categories fit


@dataclass(frozen=True, kw_only=True)
class _Named:
    categories: tuple[str, ...]
    log_odds: dict[str, float] | None = None


class _Read(NamedTuple):
    path: Path | None
    slots: Slots
    clips: Clips | VideoError


@dataclass(frozen=True)
class _Asked:
    """What is asked of each clip, as of `Scorer.assess`."""

    prompts: Mapping[str, str]
    ratings: bool
    answers: str | None
    questions: Mapping[str, Question]
    write_text: bool


def aspects_of_folder(folder: Path) -> dict[str, Aspect]:
    """The aspects that the model of a folder rates, without loading it; Gen3DHF's where its
    config.json cannot be read, which loading it says.
    """
    try:
        section = json.loads((folder / "config.json").read_bytes()).get("metric")
    except (OSError, ValueError, AttributeError):
        section = None
    return dict(MetricConfig.from_dict(section or {}).aspects)


def rating_dialogues(
    encoder: DialogueEncoder,
    aspects: Aspects,
    slots: Slots | None = None,
    prompts: Mapping[str, str] | None = None,
) -> dict[str, list[TokenPath]]:
    """The questions for ratings: aspect -> the dialogue that ends where its level and score are
    read.

    Args:
        encoder: The model's.
        aspects: The model's.
        slots: Fill the aspects' prompts and prefixes.
        prompts: Questions that take the place of an aspect's own.

    Raises:
        AspectError: A slot is missing.
    """
    own = prompts or {}
    return {
        name: [
            _dialogue(
                encoder,
                own.get(name) or a.question(slots),
                a.prefix(slots),
                before=turns_before(a, slots or {}),
            )
        ]
        for name, a in aspects.items()
    }


def _dialogue(
    encoder: DialogueEncoder,
    prompt: str,
    prefix: str | None,
    more: tuple[int, ...] = (),
    before: Sequence[Turn] = (),
) -> TokenPath:
    ids = (*encoder.encode(prompt, prefix=prefix, before=before).input_ids, *more)
    return TokenPath(ids, (len(ids) - 1,))


def encoded_clip(model: LMME3DHF, processor: ProcessorMixin, clip: Clip) -> Media:
    """A clip's frames as the language model takes them.

    Args:
        model: The model.
        processor: The model's.
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
    asked: Sequence[Mapping[str, Sequence[TokenPath]]],
    pad_token_id: int,
) -> dict[str, torch.Tensor]:
    """Reads all dialogues on all clips in one pass.

    Args:
        model: The model.
        encoder: The model's.
        media: The clips.
        asked: For each clip, name -> dialogues that end where they are read; as many of a name on
            every clip.
        pad_token_id: Fills shorter clips up.

    Returns:
        Name -> hidden states (clips, dialogues of this name, hidden).
    """
    packed = [pack(tuple(path for paths in of.values() for path in paths)) for of in asked]
    packs = [
        expand(one, encoder.marker, encoder.placeholders[clip.kind], clip.tokens)
        for one, clip in zip(packed, media, strict=True)
    ]
    batch = packed_batch(packs, media, pad_token_id)
    hidden = model.hidden_at(**{name: value.to(model.device) for name, value in batch.items()})
    row_B1 = torch.arange(len(media))[:, None]
    places = iter(zip(*([place for (place,) in one.places] for one in packed), strict=True))
    return {
        name: hidden[row_B1, torch.tensor([next(places) for _ in paths]).T]
        for name, paths in asked[0].items()
    }


class Scorer:
    """Scores clips with a finished model.

    Args:
        model: With a trained head; the saliency decoder is used when it has one. Without `scores`
            any Qwen2.5-VL will do; one that has not seen the level words gets their tokens.
        processor: The processor in the model's folder.
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
        scales = [aspect.scale for aspect in metric.aspects.values()]
        unseen = any(scale.levels and scale.tokens is None for scale in scales)
        if scores and (untrained or unseen):
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
        if unseen:
            aspects = with_tokens(metric.aspects, processor.tokenizer)
            model.config.set_metric(metric.replace(aspects=aspects))
        self.model = model.eval()
        self.aspects = dict(model.metric.aspects)
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
        slots: Any = None,
        answers: str | None = "likelihood",
        questions: Mapping[str, Question] | None = None,
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
            slots: Texts for the fields of prompts, as of `assess`.
            answers: How the distortions are answered, as of `assess`.
            questions: Name -> further question, as of `assess`.
            maps: Predict saliency maps when the model can.
            write_text: Let the model write its ratings as sentences too.
            progress: Print every ten seconds how many of several clips are done.

        Raises:
            VideoError: One clip was given, and it gives no scores; its `reason` says why in one
                word.
            DataError: A folder or pattern without files.
            TypeError: Nothing that clips come from.
            ValueError: No fps where it decides which pictures are seen, or one for a file; or an
                unknown way to answer.
            ModelError: The model cannot answer in this way.
        """
        options = {
            "fps": fps,
            "slots": slots,
            "answers": answers,
            "questions": questions,
            "maps": maps,
            "write_text": write_text,
        }
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
        ((path, _, clips),) = self._clips([clip], fps, None, frames=True, views=False)
        if isinstance(clips, VideoError):
            raise clips

        def answer(part: Sequence[Clips]) -> list[str]:
            media = [self._media(clips.frames) for clips in part]
            return self._write(media, [self._encoder.encode(question)] * len(media), max_new_tokens)

        ((text,), _) = in_parts([clips], answer)
        if text is None:
            raise self._too_much(path)
        return text

    def assess(
        self,
        clips: Iterable[Any],
        *,
        fps: float | None = None,
        slots: Any = None,
        prompts: Mapping[str, str] | None = None,
        ratings: bool = True,
        answers: str | None = "likelihood",
        questions: Mapping[str, Question] | None = None,
        maps: bool = True,
        write_text: bool = False,
    ) -> Iterator[Assessment | Failure]:
        """Assesses clips in order, a batch at a time; a bad file is a `Failure` and the rest go on.

        What is not asked for is not computed, and None in the result. An iterator that is closed
        early ends the processes that decode.

        Args:
            clips: Paths of clips, and pictures in memory (`data.pictures.pictures_of`).
            fps: Pictures per second of those in memory, as of `score`.
            slots: Texts for the fields of the prompts of aspects and questions, such as the prompt
                that a clip was generated from: name -> text for all clips alike, one such mapping
                a clip in their order, or a function that gives it for a clip.
            prompts: Question of an aspect or of "distortion", in place of its own.
            ratings: Rate the model's aspects (`Scorer.aspects`).
            answers: How the distortions are answered, a key of `ANSWERS`. "reply": the model writes
                its list, which is parsed; what cannot be parsed is lost. "likelihood", for a model
                that was tuned on such lists: the marginals of its distribution over all valid lists
                (`distortion_log_odds`). "yes_no", for any model that follows instructions: one
                question a category, of which the log-odds of "yes" against "no" at the first token
                of the reply are taken, each summed over its spellings that are one token; the
                log-odds of no distortion are those of the likeliest one, negated. The last two name
                what `named_categories` says. None: no answer.
            questions: Name -> further question, each answered by the probabilities of its
                candidates as the model's whole reply (`Assessment.answers`).
            maps: Predict saliency maps when the model can.
            write_text: Let the model write its ratings, when there are any, as sentences too
                (`Rating.text`).

        Raises:
            ValueError: Unknown way to answer, no fps where it is needed, or more or fewer slots
                than clips.
            AspectError: A slot that an aspect needs is missing; `QuestionError` for a question.
            QuestionError: As above, or a question has an aspect's name.
            ModelError: The model cannot answer in this way, or has none of what is asked for.
        """
        if answers is not None and answers not in ANSWERS:
            raise ValueError(f"answers={answers!r}, expected one of {', '.join(ANSWERS)}, or None")
        taken = set(questions or ()) & {*self.aspects, DISTORTION}
        if taken:
            raise QuestionError(
                f"question {sorted(taken)[0]!r} has the name of something that the model is asked "
                "anyway; give it another name"
            )
        maps = maps and self.model.saliency_decoder is not None
        frames = ratings or answers is not None or bool(questions)
        if not (frames or maps):
            raise ModelError(
                f"{self.model.name_or_path}: nothing but maps is asked for, and this model has no "
                "saliency decoder; train stage 3 and merge it, or take another folder"
            )
        asked = _Asked(
            prompts={DISTORTION: PROMPTS[DISTORTION], **(prompts or {})},
            ratings=ratings,
            answers=answers,
            questions=questions or {},
            write_text=write_text,
        )
        # One decode gives both.
        read = self._clips(clips, fps, slots, frames=frames, views=maps)
        return self._results(read, partial(self._assess_part, asked))

    def _clips(
        self, given: Iterable[Any], fps: float | None, slots: Any, *, frames: bool, views: bool
    ) -> Iterator[_Read]:
        """What was read of each clip."""
        about: list[tuple[Path | None, Slots]] = []

        def pieces() -> Iterator[Path | Clips | VideoError]:
            for number, (clip, texts) in enumerate(_with_slots(given, slots), 1):
                if not in_memory(clip):
                    about.append((Path(clip), texts))
                    yield about[-1][0]
                    continue
                about.append((None, texts))
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
                yield _Read(*about.pop(0), clips)

    def _results(
        self, read: Iterator[_Read], run: Callable[[Sequence[_Read]], list[Assessment]]
    ) -> Iterator[Assessment | Failure]:
        with closing(read):
            while pending := list(islice(read, self.batch_size)):
                yield from self._assess_batch(pending, run)

    def _assess_batch(
        self, pending: list[_Read], run: Callable[[Sequence[_Read]], list[Assessment]]
    ) -> Iterator[Assessment | Failure]:
        whole = [one for one in pending if not isinstance(one.clips, VideoError)]
        results, fitted = in_parts(whole, run) if whole else ([], None)
        if fitted is not None:
            self.batch_size = min(self.batch_size, fitted)
        remaining = iter(results)
        for one in pending:
            result = one.clips if isinstance(one.clips, VideoError) else next(remaining)
            if result is None:
                result = self._too_much(one.path)
            if isinstance(result, VideoError):
                result = Failure(one.path, result.reason, str(result))
            yield result

    def _too_much(self, path: Path | None) -> VideoError:
        return VideoError(
            "out_of_memory",
            f"{'pictures in memory' if path is None else path}: too large for the memory of "
            f"{self.model.device}, even alone; scale the clip down, or load the model in fewer "
            "bits (load='4bit')",
        )

    def _assess_part(self, asked: _Asked, part: Sequence[_Read]) -> list[Assessment]:
        # Clips mostly have the same slots, or none.
        ask = cache(
            lambda slots: (self._asked(asked, dict(slots)), self._written(asked, dict(slots)))
        )
        media = [self._media(one.clips.frames) for one in part if one.clips.frames]
        slots = [dict(one.slots) for one in part]
        if asked.ratings:
            self._write_rounds(media, slots)
        keys = (tuple(sorted(texts.items())) for texts in slots)
        read, written = zip(*map(ask, keys), strict=True)
        # One pass over the batch for all that is read, one for each text.
        hidden = self._read(media, read) if read[0] else {}
        texts = {name: self._write(media, [w[name] for w in written]) for name in written[0]}
        rated = {
            name: self._ratings(aspect, hidden[name], texts.get(name) or _said(aspect, slots))
            for name, aspect in self.aspects.items()
            if asked.ratings
        }
        named: list[_Named] = []
        if asked.answers is not None:
            named = ANSWERS[asked.answers](self, hidden.get(DISTORTION), texts.get(DISTORTION))
        answered = {
            name: self._answers(question.candidates, hidden[name])
            for name, question in asked.questions.items()
        }
        return [
            Assessment(
                path=one.path,
                ratings={name: ratings[i] for name, ratings in rated.items()},
                distortions=named[i].categories if named else None,
                saliency=self._saliency(one.clips.views) if one.clips.views else None,
                decoder=(one.clips.frames or one.clips.views).decoder,
                notes=one.clips.notes,
                distortion_log_odds=named[i].log_odds if named else None,
                answers={name: answers[i] for name, answers in answered.items()},
            )
            for i, one in enumerate(part)
        ]

    @torch.inference_mode()
    def _media(self, clip: Clip) -> Media:
        return encoded_clip(self.model, self.processor, clip)

    def _asked(self, asked: _Asked, slots: Slots) -> dict[str, list[TokenPath]]:
        """What is read: name -> the dialogues that end where a hidden state is needed."""
        read = {}
        if asked.ratings:
            read = rating_dialogues(self._encoder, self.aspects, slots, asked.prompts)
        dialogue = partial(_dialogue, self._encoder)
        if asked.answers == "likelihood":
            forks, prompt = self._valid_replies.forks, asked.prompts[DISTORTION]
            read[DISTORTION] = [dialogue(prompt, REPLY_PREFIX, fork) for fork in forks]
        elif asked.answers == "yes_no":
            questions = [CATEGORY_PROMPT.format(category=category) for category in FAULTS]
            read[DISTORTION] = [dialogue(question, None) for question in questions]
        for name, question in asked.questions.items():
            forks = self._replies("", question.candidates).forks
            read[name] = [dialogue(question.text(slots), None, fork) for fork in forks]
        return read

    def _written(self, asked: _Asked, slots: Slots) -> dict[str, Encoded]:
        """What is written: name -> the dialogue that the reply goes on from."""
        written: dict[str, Encoded] = {}
        if asked.ratings and asked.write_text:
            written = {
                name: self._encoder.encode(
                    asked.prompts.get(name) or aspect.question(slots),
                    before=turns_before(aspect, slots),
                )
                for name, aspect in self.aspects.items()
            }
        if asked.answers == "reply":
            prompt = asked.prompts[DISTORTION]
            written[DISTORTION] = self._encoder.encode(prompt, prefix=REPLY_PREFIX)
        return written

    def _write_rounds(self, media: list[Media], slots: list[dict[str, str]]) -> None:
        """Lets the model write the replies of earlier rounds that the slots do not hold, and puts
        them there.
        """
        for aspect in self.aspects.values():
            for number in range(len(aspect.before)):
                slot = aspect.before[number].slot
                rows = [row for row, texts in enumerate(slots) if slot not in texts]
                dialogues = []
                for row in rows:
                    *before, (prompt, _) = aspect.rounds(slots[row])
                    said = [Turn(prompt=one, reply=slots[row][at]) for one, at in before]
                    dialogues.append(self._encoder.encode(prompt, before=said))
                for row, text in zip(
                    rows,
                    self._write([media[row] for row in rows], dialogues) if rows else [],
                    strict=True,
                ):
                    slots[row][slot] = text

    @torch.inference_mode()
    def _read(
        self, media: list[Media], asked: Sequence[Mapping[str, list[TokenPath]]]
    ) -> dict[str, torch.Tensor]:
        return read(self.model, self._encoder, media, asked, self.processor.tokenizer.pad_token_id)

    def _on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(self.model.device) for name, value in batch.items()}

    @torch.inference_mode()
    def _ratings(
        self, aspect: Aspect, hidden: torch.Tensor, texts: list[str] | None
    ) -> list[Rating]:
        hidden, scale, count = hidden[:, 0], aspect.scale, len(hidden)
        heads = {}
        if self.scores:
            values = self.model.scores(hidden, aspect.name)
            heads = {head: scale.from_unit(value).tolist() for head, value in values.items()}
        chances: list[dict[str, float] | None] = [None] * count
        if scale.levels:
            rows = torch.softmax(self.model.level_logits(hidden, aspect.name), -1).tolist()
            chances = [dict(zip(scale.levels, row, strict=True)) for row in rows]
        training = self._training.get(aspect.name)
        rated = []
        for i, (chance, text) in enumerate(zip(chances, texts or [None] * count, strict=True)):
            by_head = {head: scores[i] for head, scores in heads.items()}
            score = next(iter(by_head.values()), None)
            rated.append(
                Rating(
                    score=score,
                    level=None if chance is None else max(chance, key=chance.__getitem__),
                    level_probabilities=chance,
                    scale=scale,
                    by_head=by_head,
                    text=text,
                    outside_training=score is not None
                    and is_outside_training(score, scale, training),
                )
            )
        return rated

    @cached_property
    def _training(self) -> dict[str, Any]:
        """Aspect -> distribution of its training scores, where that is known."""
        return {name: scale["training"] for name, scale in self.scales["dimensions"].items()}

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
        dialogues: Sequence[Encoded],
        max_new_tokens: int = _REPLY_TOKENS,
    ) -> list[str]:
        """Replies, one a clip, with the start that its dialogue has."""
        tokenizer = self.processor.tokenizer
        batch = self._on_device(written_batch(dialogues, media, tokenizer.pad_token_id))
        embeds = self.model.embed(batch["input_ids"], batch.pop("video_embeds"))
        written = self._writer.generate(
            **batch, inputs_embeds=embeds, max_new_tokens=max_new_tokens
        )
        new = written[:, batch["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        starts = [one.input_ids[one.reads["reply"].start :] for one in dialogues]
        return [
            f"{tokenizer.decode(start)}{text}".strip()
            for start, text in zip(starts, texts, strict=True)
        ]

    def _answer_by_reply(self, hidden: None, texts: list[str]) -> list[_Named]:
        return [_Named(categories=parse_distortions(reply).categories) for reply in texts]

    @torch.inference_mode()
    def _answer_by_likelihood(self, hidden: torch.Tensor, texts: None) -> list[_Named]:
        rows = log_probabilities(hidden, self.model.lm_head.weight, self._valid_replies)
        odds = [distortion_log_odds(row, VALID_ANSWERS) for row in rows]
        return [_Named(categories=named_categories(row), log_odds=row) for row in odds]

    @torch.inference_mode()
    def _answers(self, candidates: tuple[str, ...], hidden: torch.Tensor) -> list[Answer]:
        replies = self._replies("", candidates)
        rows = log_probabilities(hidden, self.model.lm_head.weight, replies).exp().tolist()
        return [Answer(dict(zip(candidates, row, strict=True))) for row in rows]

    @cached_property
    def _valid_replies(self) -> Replies:
        return self._replies(REPLY_PREFIX, tuple(map(distortion_reply, VALID_ANSWERS)))

    def _replies(self, prefix: str, replies: tuple[str, ...]) -> Replies:
        # Encoded as for training: what follows the prefix, with the end of the reply.
        encoded = [self._encoder.encode("", reply=reply, prefix=prefix) for reply in replies]
        return reply_tree([dialogue.input_ids[dialogue.read_index + 1 :] for dialogue in encoded])

    @torch.inference_mode()
    def _answer_by_yes_no(self, hidden: torch.Tensor, texts: None) -> list[_Named]:
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
        return [_Named(categories=named_categories(row), log_odds=row) for row in odds]

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


def _said(aspect: Aspect, slots: list[dict[str, str]]) -> list[str] | None:
    """What was said in the last round before an aspect's question, where there is one."""
    return [texts[aspect.before[-1].slot] for texts in slots] if aspect.before else None


def _with_slots(clips: Iterable[Any], slots: Any) -> Iterator[tuple[Any, Slots]]:
    """Each clip with the texts for it, as of `Scorer.assess`."""
    if callable(slots):
        return ((clip, slots(clip)) for clip in clips)
    if slots is None or isinstance(slots, Mapping):
        return zip(clips, repeat(slots or {}), strict=False)
    return zip(clips, slots, strict=True)


def _check_rate(clip: Any, fps: float | None) -> None:
    if fps is not None and not in_memory(clip):
        raise ValueError(f"{clip}: fps is for pictures in memory, a file has its own; leave it out")


# How distortions are answered; see `Scorer.assess`.
ANSWERS = {
    "reply": Scorer._answer_by_reply,
    "likelihood": Scorer._answer_by_likelihood,
    "yes_no": Scorer._answer_by_yes_no,
}
