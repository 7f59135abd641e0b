"""The public API: a finished model folder -> scores, levels, distortions and maps of clips.

from lmme3dhf import Scorer
Scorer.from_pretrained("runs/demo/model").score("face.mp4")
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, distortion_reply, parse_distortions
from lmme3dhf.data.collation import Media, packed_batch, view_batch, written_batch
from lmme3dhf.data.decoding import ClipLoader, Clips, decoded
from lmme3dhf.data.dialogue import DialogueEncoder, level_token_ids
from lmme3dhf.data.gen3dhf import CATEGORY_PROMPT, PROMPTS
from lmme3dhf.data.packing import Path as Packed
from lmme3dhf.data.packing import expand, pack
from lmme3dhf.data.pixels import frame_pixels, view_pixels
from lmme3dhf.data.video import Clip, FrameChoice, VideoError
from lmme3dhf.models.configuration import ModelError
from lmme3dhf.models.likelihood import Replies, log_probabilities, reply_tree
from lmme3dhf.models.loading import load_model
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.vocabulary import DIMENSIONS, DISTORTIONS, LEVELS, NO_DISTORTION

_REPLY_TOKENS = 64  # all nine categories fit
_FAULTS = tuple(category for category in DISTORTIONS if category != NO_DISTORTION)
# Every answer that `distortion_reply` can write: 255 sets of the eight, and the clean one.
VALID_ANSWERS = (
    *(named for n in range(1, len(_FAULTS) + 1) for named in combinations(_FAULTS, n)),
    (NO_DISTORTION,),
)
# Only those that are one token of the tokenizer are looked at.
_SPELLINGS = {
    "yes": ("Yes", " Yes", "yes", " yes", "YES", " YES"),
    "no": ("No", " No", "no", " no", "NO", " NO"),
}


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One dimension of one clip.

    Attributes:
        score: Predicted opinion score on the scale 0 to 100, higher is better; a regression may
            overshoot the ends a little. None from a scorer without scores.
        level: The level word, bad to excellent.
        level_probabilities: Probability of each level word at the position that predicts it.
        text: What the model says when it is asked, or None when it was not asked to write.
    """

    score: float | None
    level: str
    level_probabilities: dict[str, float]
    text: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What the metric says about one clip.

    Attributes:
        path: The clip.
        quality: Perceptual quality; None when no ratings were asked for.
        authenticity: How much it looks like a real face; None as above.
        distortions: Categories that the model names, in vocabulary order; empty when a free reply
            names none of the nine, None when no answer was asked for.
        saliency: (H, 3W) float32 in 0..1, the maps of the three views side by side at the clip's
            own size, as predicted; None for a model without a saliency decoder, or when no maps
            were asked for.
        decoder: What decoded the clip; scores belong to a decoder.
        distortion_log_odds: Category -> log P(it is there) - log P(it is not), natural; None for
            free replies, which have none.
    """

    path: Path
    quality: Rating | None
    authenticity: Rating | None
    distortions: tuple[str, ...] | None
    saliency: np.ndarray | None
    decoder: str
    distortion_log_odds: dict[str, float] | None = None


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


@dataclass(frozen=True, kw_only=True)
class _Answer:
    categories: tuple[str, ...]
    log_odds: dict[str, float] | None = None


def distortion_log_odds(log_probability_R: torch.Tensor) -> dict[str, float]:
    """How likely each category is to be named, with P(r) the model's own distribution over the
    replies of `VALID_ANSWERS` (`models.likelihood`).

    The marginal of category c is P(c) = sum of P(r) over the replies r that name c, its log-odds
    are log P(c) - log(1 - P(c)). All replies are summed, nothing is pruned.

    These are not the steps of a walk through the list, in which "is c named next?" is asked under
    the categories accepted before: its yes is P(c | earlier decisions), which equals P(c) where the
    earlier decisions are certain. Elsewhere the walk follows one branch and loses what the others
    say about c.

    Args:
        log_probability_R: log P(r) of each of `VALID_ANSWERS`.
    """
    odds = {}
    for category in DISTORTIONS:
        names_R = torch.tensor([category in named for named in VALID_ANSWERS])
        yes, no = log_probability_R[names_R].logsumexp(0), log_probability_R[~names_R].logsumexp(0)
        odds[category] = float(yes - no)
    return odds


def named_categories(log_odds: Mapping[str, float]) -> tuple[str, ...]:
    """The categories that are likelier than not, in vocabulary order; where none is, the likeliest
    alone (of equal ones the last, so that `NO_DISTORTION` wins).

    Always a valid answer: NO_DISTORTION excludes the others, so with more than half of the
    probability it is alone.
    """
    named = tuple(category for category in DISTORTIONS if log_odds[category] > 0)
    return named or (max(reversed(DISTORTIONS), key=log_odds.__getitem__),)


def spelling_tokens(
    tokenizer: PreTrainedTokenizerBase, spellings: Sequence[str]
) -> tuple[int, ...]:
    """Tokens of those spellings of a word that are one token each."""
    encoded = [tokenizer.encode(word, add_special_tokens=False) for word in spellings]
    return tuple(dict.fromkeys(tokens[0] for tokens in encoded if len(tokens) == 1))


class Scorer:
    """Scores clips with a finished model.

    Args:
        model: With a trained head; the saliency decoder is used when it has one. Without `scores`
            any Qwen2.5-VL will do; one that has not seen the level words gets their tokens.
        processor: Of the model's folder.
        batch_size: Clips at a time. Scores do not depend on it beyond rounding.
        workers: Processes that decode ahead; 0 decodes in this one.
        scores: Whether ratings have scores. False takes models that have no trained head, such as a
            merged stage 1: their ratings are levels and level probabilities.

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
        scores: bool = True,
    ) -> None:
        metric = model.metric
        if scores and ("score_head" in model.missing_parts or metric.level_token_ids is None):
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
        if metric.level_token_ids is None:
            prefix = metric.answer_prefix.format(dimension=DIMENSIONS[0])
            tokens = level_token_ids(processor.tokenizer, prefix, LEVELS)
            model.config.set_metric(metric.replace(level_token_ids=tokens))
        self.model = model.eval()
        self.processor = processor
        self.batch_size, self.workers, self.scores = batch_size, workers, scores
        self.choice = FrameChoice(**(metric.frames or {}))
        self._encoder = DialogueEncoder(processor.tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        quantization: str = "none",
        batch_size: int = 8,
        workers: int = 0,
        scores: bool = True,
    ) -> "Scorer":
        """Loads a finished model.

        Args:
            folder: Folder (or hub id) of a merged model.
            device: As of `models.loading.load_model`.
            dtype: Likewise.
            attn_implementation: Likewise.
            quantization: Likewise.
            batch_size: Clips at a time.
            workers: Processes that decode ahead.
            scores: Whether ratings have scores; False for models without a trained head.

        Raises:
            ModelError: The folder holds no model that was trained to score, there is no such
                device, or a kernel or quantisation does not work here.
        """
        model = load_model(
            folder,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantization=quantization,
        )
        processor = load_processor(folder)
        return cls(model, processor, batch_size=batch_size, workers=workers, scores=scores)

    def score(self, path: str | Path, *, answers: str | None = "likelihood") -> Assessment:
        """Assesses one clip; `answers` as in `assess`.

        Raises:
            VideoError: The file gives no clip; its `reason` says why in one word.
        """
        result = next(self.assess([Path(path)], answers=answers))
        if isinstance(result, Failure):
            raise VideoError(result.reason, result.message)
        return result

    def assess(
        self,
        paths: Iterable[Path],
        *,
        prompts: Mapping[str, str] = PROMPTS,
        ratings: bool = True,
        answers: str | None = "likelihood",
        maps: bool = True,
        write_text: bool = False,
    ) -> Iterator[Assessment | Failure]:
        """Assesses clips in order, a batch at a time; a bad file is a `Failure` and the rest go on.

        What is not asked for is not computed, and None in the result.

        Args:
            paths: The clips.
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
            ValueError: Unknown way to answer.
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
        assess = partial(
            self._assess_batch,
            prompts=prompts,
            ratings=ratings,
            answers=answers,
            write_text=write_text,
        )
        paths = list(paths)
        # One decode gives both.
        loader = ClipLoader(paths, self.choice, frames=frames, views=maps)
        pending: list[tuple[Path, Clips | VideoError]] = []
        for path, clips in zip(paths, decoded(loader, self.workers), strict=True):
            pending.append((path, clips))
            if len(pending) == self.batch_size:
                yield from assess(pending)
                pending = []
        if pending:
            yield from assess(pending)

    def _assess_batch(
        self,
        pending: list[tuple[Path, Clips | VideoError]],
        *,
        prompts: Mapping[str, str],
        ratings: bool,
        answers: str | None,
        write_text: bool,
    ) -> Iterator[Assessment | Failure]:
        clips = [clip for _, clip in pending if not isinstance(clip, VideoError)]
        asked = self._asked(prompts, ratings, answers)
        written = self._written(prompts, ratings and write_text, answers == "reply")
        media = [self._media(clip.frames) for clip in clips] if asked or written else []
        # One pass over the batch for all that is read, one for each text.
        hidden = self._read(media, asked) if clips and asked else {}
        texts = {name: self._write(media, *question) for name, question in written.items() if clips}
        rated = {d: self._ratings(hidden[d], texts.get(d)) for d in DIMENSIONS if d in hidden}
        answered: list[_Answer] = []
        if clips and answers is not None:
            answered = ANSWERS[answers](self, hidden.get("distortion"), texts.get("distortion"))
        index = 0
        for path, clip in pending:
            if isinstance(clip, VideoError):
                yield Failure(path, clip.reason, str(clip))
                continue
            answer = answered[index] if answered else None
            yield Assessment(
                path=path,
                quality=rated["quality"][index] if rated else None,
                authenticity=rated["authenticity"][index] if rated else None,
                distortions=answer.categories if answer else None,
                saliency=self._saliency(clip.views) if clip.views else None,
                decoder=(clip.frames or clip.views).decoder,
                distortion_log_odds=answer.log_odds if answer else None,
            )
            index += 1

    @torch.inference_mode()
    def _media(self, clip: Clip) -> Media:
        pixels = frame_pixels(clip, self.processor.video_processor)
        grid = torch.tensor([pixels.grid_thw], device=self.model.device)
        embeds = self.model.encode_video(pixels.values.to(self.model.device), grid)
        return Media(
            grid_thw=pixels.grid_thw,
            second_per_grid=pixels.second_per_grid,
            tokens=pixels.tokens,
            video_embeds=embeds,
        )

    def _asked(
        self, prompts: Mapping[str, str], ratings: bool, answers: str | None
    ) -> dict[str, list[Packed]]:
        """What is read: name -> the dialogues that end where a hidden state is needed."""

        def dialogue(prompt: str, prefix: str | None, more: tuple[int, ...] = ()) -> Packed:
            ids = (*self._encoder.encode(prompt, prefix=prefix).input_ids, *more)
            return Packed(ids, (len(ids) - 1,))

        asked = {}
        if ratings:
            prefix = self.model.metric.answer_prefix
            for d in DIMENSIONS:
                asked[d] = [dialogue(prompts[d], prefix.format(dimension=d))]
        if answers == "likelihood":
            forks = self._valid_replies.forks
            asked["distortion"] = [dialogue(prompts["distortion"], REPLY_PREFIX, f) for f in forks]
        elif answers == "yes_no":
            questions = [CATEGORY_PROMPT.format(category=category) for category in _FAULTS]
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
        """Name -> hidden states (clips, dialogues of this name, hidden); all in one pass."""
        packed = pack(tuple(path for paths in asked.values() for path in paths))
        encoder, tokenizer = self._encoder, self.processor.tokenizer
        packs = [expand(packed, encoder.video_pad, clip.tokens) for clip in media]
        batch = packed_batch(packs, media, encoder.video_pad, tokenizer.pad_token_id)
        hidden = self.model.hidden_at(**self._on_device(batch))
        places = iter(place for (place,) in packed.places)
        return {name: hidden[:, [next(places) for _ in paths]] for name, paths in asked.items()}

    def _on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(self.model.device) for name, value in batch.items()}

    @torch.inference_mode()
    def _ratings(self, hidden: torch.Tensor, texts: list[str] | None) -> list[Rating]:
        hidden = hidden[:, 0]
        scores = (100 * self.model.score_head(hidden)).tolist()
        probabilities = torch.softmax(self.model.level_logits(hidden), -1).tolist()
        return [
            Rating(
                score=score if self.scores else None,
                level=LEVELS[int(np.argmax(row))],
                level_probabilities=dict(zip(LEVELS, row, strict=True)),
                text=text,
            )
            for score, row, text in zip(
                scores, probabilities, texts or [None] * len(scores), strict=True
            )
        ]

    @torch.inference_mode()
    def _write(self, media: list[Media], prompt: str, prefix: str | None) -> list[str]:
        tokenizer = self.processor.tokenizer
        dialogue = self._encoder.encode(prompt, prefix=prefix)
        batch = self._on_device(
            written_batch([dialogue] * len(media), media, tokenizer.pad_token_id)
        )
        embeds = self.model.embed(batch["input_ids"], batch.pop("video_embeds"))
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

    def _answer_by_reply(self, hidden: None, texts: list[str]) -> list[_Answer]:
        return [_Answer(categories=parse_distortions(reply).categories) for reply in texts]

    @torch.inference_mode()
    def _answer_by_likelihood(self, hidden: torch.Tensor, texts: None) -> list[_Answer]:
        output = self.model.lm_head.weight
        odds = map(distortion_log_odds, log_probabilities(hidden, output, self._valid_replies))
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
        yes, no = (spelling_tokens(self.processor.tokenizer, s) for s in _SPELLINGS.values())
        if not yes or not no or set(yes) & set(no):
            raise ModelError(
                f"{self.model.name_or_path}: its tokenizer has no tokens of their own for yes and "
                "no; ask for answers by reply or likelihood"
            )
        logits = self.model.lm_head(hidden).float()
        difference = logits[..., yes].logsumexp(-1) - logits[..., no].logsumexp(-1)
        odds = [dict(zip(_FAULTS, row, strict=True)) for row in difference.tolist()]
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


# How distortions are answered; see `Scorer.assess`.
ANSWERS = {
    "reply": Scorer._answer_by_reply,
    "likelihood": Scorer._answer_by_likelihood,
    "yes_no": Scorer._answer_by_yes_no,
}
