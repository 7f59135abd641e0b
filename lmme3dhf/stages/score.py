"""Stage 2: regression of the opinion score from final hidden states, L1, LoRA and head (Section
4.2).

Departure D1: the released code feeds the ground-truth level word to the head. Here the head reads
the position before that word; the reply is not even part of the input, except when language is
rehearsed, and there causality keeps it from the score. `score.read` "label" trains the released
protocol as an ablation, whose model cannot be used for anything else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lmme3dhf.annotations import other_scale
from lmme3dhf.annotations.levels import fit_level_scale, read_levels
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.config import Config
from lmme3dhf.data.collation import FACTS, Collator, Question
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import level_reply
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.modeling import LMME3DHF, load_configuration, load_processor
from lmme3dhf.stages import run as runs
from lmme3dhf.training import StageLoss, train
from lmme3dhf.vocabulary import DIMENSIONS


def targets(batch: dict[str, Any]) -> torch.Tensor | None:
    """(S,) the target of the aspect that each scored question asks for, NaN where unknown."""
    if "values" not in batch:
        return None
    return batch["values"].gather(1, batch["asked"][:, None])[:, 0]


class _Ranked(StageLoss):
    """A loss on scores, with SRCC of each dimension and their mean on validation data."""

    measured = ("srcc", *(f"srcc_{dimension}" for dimension in DIMENSIONS))

    def rows(
        self, names: list[str], predicted: torch.Tensor | None, mos: torch.Tensor | None
    ) -> list[list[float]]:
        """Index of the dimension, predicted and true score of each question with a score."""
        if predicted is None:
            return []
        tasks = [name.rpartition(" ")[2] for name in names]
        scored = [DIMENSIONS.index(task) for task in tasks if task in DIMENSIONS]
        values = zip(scored, predicted.tolist(), mos.tolist(), strict=True)
        return [list(row) for row in values if np.isfinite(row[2])]

    def measures(self, rows: list[list[float]]) -> dict[str, float]:
        """SRCC of each dimension, NaN where undefined, and the mean over those with scores."""
        table = np.array(rows, dtype=float).reshape(-1, 3)
        srcc = {}
        for index, dimension in enumerate(DIMENSIONS):
            predicted, mos = table[table[:, 0] == index, 1:].T
            if len(mos):
                finite = np.isfinite(predicted).all()
                srcc[dimension] = correlations(predicted, mos).srcc if finite else np.nan
        mean = float(np.mean(list(srcc.values()))) if srcc else np.nan
        return {"srcc": mean} | {f"srcc_{d}": srcc.get(d, np.nan) for d in DIMENSIONS}


class ScoreLoss(_Ranked):
    """L1 between predicted and true MOS / 100, plus the weighted language loss.

    Args:
        language_weight: 0 leaves the language loss out.
    """

    def __init__(self, language_weight: float) -> None:
        self.language_weight = language_weight

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """Questions with a score, and learnt tokens."""
        scores = int(torch.isfinite(targets(batch)).sum()) if "values" in batch else 0
        learnt = len(batch["learnt"]) if "learnt" in batch else 0
        return [scores, learnt] if self.language_weight else [scores]

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """(2,) sums of the absolute errors and of the tokens' weighted losses; (1,) without
        language.
        """
        return self._sums(model, batch)[0]

    def judge(
        self, model: nn.Module, batch: dict[str, Any], names: list[str]
    ) -> tuple[torch.Tensor, list[list[float]]]:
        """`sums`, and the rows of `_Ranked`."""
        sums, predicted = self._sums(model, batch)
        return sums, self.rows(names, predicted, targets(batch))

    def _sums(
        self, model: nn.Module, batch: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        left_out = FACTS if self.language_weight else (*FACTS, "learnt", "targets")
        output = model(**{name: value for name, value in batch.items() if name not in left_out})
        error = torch.zeros((), device=batch["reads"].device)
        # A batch of rehearsal questions alone has no score to learn.
        if output.score is not None:
            known = torch.isfinite(targets(batch))
            error = (output.score[known] - targets(batch)[known]).abs().sum()
        if not self.language_weight:
            return error[None], output.score
        said = error.new_zeros(()) if output.token_losses is None else output.token_losses.sum()
        return torch.stack([error, self.language_weight * said]), output.score


def spoken_reply(sample: Sample) -> str:
    """What the model is to say: the level sentence without the number that the numerical lists
    append.
    """
    if sample.task not in DIMENSIONS:
        return sample.reply
    return level_reply(GEN3DHF[sample.task], sample.level)


def scored_samples(config: Config) -> tuple[list[Sample], list[Sample]]:
    """The samples of the stage, those of rehearsal last, and those to validate on.

    Raises:
        DataError: A sample of the numerical lists has no score, or all scores of a dimension lie on
            another scale.
    """
    settings = config.score.trainer | (config.hardware if config.lora.trained else {})
    samples = runs.listed_samples(config, config.score.lists)
    validation = runs.validation_samples(config, config.score.lists, settings, "stage 2")
    for sample in (*samples, *validation):
        if sample.mos is None:
            raise DataError(
                f"{sample.video} {sample.task}: no score; score.lists takes lists of the "
                "numerical kind"
            )
    for dimension in DIMENSIONS:
        known = [s.mos for s in (*samples, *validation) if s.task == dimension]
        if other := other_scale(known, GEN3DHF[dimension].scale):
            raise DataError(f"score.lists: the {dimension} scores {other}")
    # Rehearsal has nothing to teach a head.
    if config.score.language_weight and config.lora.trained:
        rehearsal = config.score.rehearsal
        samples += runs.listed_samples(config, rehearsal)
        if validation:
            validation += runs.validation_samples(config, rehearsal, settings, "stage 2, rehearsal")
    return samples, validation


def level_edges(root: Path, samples: list[Sample]) -> dict[str, tuple[float, ...]]:
    """Edges of the level scales by dimension: those stored with the data set, which its lists were
    labelled with; where it has none (the release), Eq. 4 on the training scores.

    Args:
        root: Folder of the data set.
        samples: The training samples.
    """
    stored = root / "levels.json"
    if stored.exists():
        return {dimension: scale.edges for dimension, scale in read_levels(stored, GEN3DHF).items()}
    fitted = {}
    for name, aspect in GEN3DHF.items():
        scores = [s.mos for s in samples if s.task == name and s.mos is not None]
        if scores:
            fitted[name] = fit_level_scale(np.array(scores), aspect).edges
    return fitted


def question_for(
    config: Config, encoder: DialogueEncoder, answer_prefix: str
) -> Callable[[Sample], Question]:
    """Encodes questions up to the read position; with language rehearsal, or where the label is
    read, the rest of the reply follows.
    """

    def question(sample: Sample) -> Question:
        prefix = None
        if sample.task in DIMENSIONS:
            prefix = answer_prefix.format(dimension=sample.task)
            if config.score.read == "question":
                prefix = ""
            elif config.score.read == "label":
                prefix += f" {sample.level}"
        replies = config.score.language_weight or config.score.read == "label"
        reply = spoken_reply(sample) if replies else None
        return Question(
            name=f"{sample.video} {sample.task}",
            encoded=encoder.encode(sample.prompt, reply=reply, prefix=prefix),
            aspect=sample.task if sample.task in DIMENSIONS else None,
            values={} if sample.mos is None else {sample.task: sample.mos / 100},
        )

    return question


def train_score(config: Config, run: Path) -> Path:
    """Runs, or goes on with, stage 2.

    Without LoRA (`lora.language` and `lora.vision` off) the head is trained alone, on hidden states
    that are computed once; there is nothing then that could rehearse language.

    Args:
        config: Settings; `config.model` is the merged model of stage 1.
        run: The run folder.

    Returns:
        The run folder, with the trained adapter and head.
    """
    runs.check_trainer(config, "score")
    folder = runs.base_folder(config)
    if runs.is_done(run, "score", config, folder):
        print(f"{run}: stage 2 is done")
        return run
    samples, validation = scored_samples(config)
    processor = load_processor(folder)
    edges = level_edges(config.data.root, samples)
    metric = runs.metric_of(folder, processor, config, level_edges=edges, read=config.score.read)
    runs.open_run(run, "score", config, folder, {"metric": metric.to_dict()})
    encoder = DialogueEncoder(processor.tokenizer)
    question = question_for(config, encoder, metric.answer_prefix)
    dataset = runs.clip_questions(
        config, folder, processor, samples, question, "stage 2", validation
    )
    model = runs.load_model(config, folder)
    collator = Collator(processor.tokenizer.pad_token_id, config.pad_to, DIMENSIONS)
    if not config.lora.trained:
        _train_head(config, run, model, dataset, collator, metric, validation)
        return run
    runs.train_adapters(
        config,
        run,
        model,
        dataset,
        collator,
        name="stage 2",
        loss=ScoreLoss(config.score.language_weight),
        settings=config.score.trainer,
        train_head=True,
        metric=metric,
        validation=validation,
    )
    return run


class HeadLoss(_Ranked):
    """L1 between predicted and true MOS / 100 of the head alone, on frozen states."""

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """Scores."""
        return [len(targets(batch))]

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """(1,) sum of the absolute errors."""
        return (model(batch["hidden"]) - targets(batch)).abs().sum()[None]

    def judge(
        self, model: nn.Module, batch: dict[str, Any], names: list[str]
    ) -> tuple[torch.Tensor, list[list[float]]]:
        """`sums`, and the rows of `_Ranked`."""
        predicted = model(batch["hidden"])
        sums = (predicted - targets(batch)).abs().sum()[None]
        return sums, self.rows(names, predicted, targets(batch))


def _train_head(
    config: Config,
    run: Path,
    model: LMME3DHF,
    dataset: runs.ClipQuestions,
    collator: Collator,
    metric: MetricConfig,
    validation: Sequence[Sample],
) -> None:
    runs.save_probe(run, runs.probe_batches(dataset, collator, metric))
    items, validation_items = (
        [
            {"name": name, "hidden": hidden, "values": values, "asked": asked}
            for batch in _batches(part, collator, config.batch_size)
            for name, hidden, values, asked in zip(
                batch["names"],
                _read_states(model, batch),
                batch["values"],
                batch["asked"],
                strict=True,
            )
        ]
        for part in (dataset, dataset.on(validation))
    )
    model.requires_grad_(False)
    head = model.score_head.requires_grad_(True)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        stacked = {
            key: torch.stack([row[key] for row in rows]) for key in ("hidden", "values", "asked")
        }
        return {"names": [row["name"] for row in rows], **stacked}

    train(
        name="stage 2",
        model=head,
        loss=HeadLoss(),
        dataset=items,
        collator=collate,
        settings=config.score.trainer,
        run=run,
        seed=config.seed,
        validation=validation_items or None,
    )
    runs.finish_part(run, head, runs.HEAD)


def _batches(
    dataset: runs.ClipQuestions, collator: Collator, size: int
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(dataset), size):
        yield collator([dataset[i] for i in range(start, min(start + size, len(dataset)))])


@torch.no_grad()
def _read_states(model: LMME3DHF, batch: dict[str, Any]) -> torch.Tensor:
    """Hidden states (scored reads, hidden), float32."""
    left_out = (*FACTS, "learnt", "targets", "scored")
    tensors = {
        name: value.to(model.device) for name, value in batch.items() if name not in left_out
    }
    if "video_embeds" not in tensors:
        tensors["video_embeds"] = model.encode_video(
            tensors.pop("pixel_values_videos"), tensors["video_grid_thw"]
        )
    hidden = model.hidden_at(**tensors).flatten(0, 1)
    return hidden[batch["scored"].to(hidden.device)].float().cpu()


def read_scores(config: Config, folder: Path, lists: list[str]) -> dict[tuple[str, str], float]:
    """Scores of a merged model on labelled lists, read where the model reads.

    For ablations alone. `Scorer` scores clips and knows no label; here the lists' labels are part
    of the input where `score.read` is "label", and then the figures say nothing about new videos.

    Args:
        config: Settings of the run that trained the model.
        folder: The merged model.
        lists: Lists of the numerical kind, relative to `data.root`.

    Returns:
        (video, dimension) -> score, 0-100.
    """
    # Nothing is trained here: an adapter that the folder keeps stays as it is.
    config = replace(config, lora=replace(config.lora, language=False, vision=False))
    processor = load_processor(folder)
    samples = runs.listed_samples(config, lists)
    prefix = load_configuration(folder).get_metric().answer_prefix
    question = question_for(config, DialogueEncoder(processor.tokenizer), prefix)
    dataset = runs.clip_questions(config, folder, processor, samples, question, "scores")
    model = runs.load_model(config, folder)
    collator = Collator(processor.tokenizer.pad_token_id, config.pad_to, DIMENSIONS)
    scores: list[float] = []
    for batch in _batches(dataset, collator, config.batch_size):
        with torch.no_grad():
            head = model.score_head(_read_states(model, batch).to(model.device))
        scores += (100 * head).tolist()
    keys = [(sample.video, sample.task) for group in dataset.groups for sample in group]
    return dict(zip(keys, scores, strict=True))
