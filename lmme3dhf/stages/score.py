"""Stage 2: regression of the opinion score from final hidden states, L1, LoRA and head (Section
4.2).

Departure D1: the released code feeds the ground-truth level word to the head. Here the head reads
the position before that word; the reply is not even part of the input, except when language is
rehearsed, and there causality keeps it from the score. `score.read` "label" trains the released
protocol as an ablation, whose model cannot be used for anything else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lmme3dhf.annotations import other_scale
from lmme3dhf.annotations.levels import fit_level_scale, read_levels
from lmme3dhf.aspects import GEN3DHF, Aspect, Aspects
from lmme3dhf.config import Config, ConfigError
from lmme3dhf.data.collation import FACTS, Collator, Question
from lmme3dhf.data.dialogue import DialogueEncoder, turns_before
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.metrics.correlation import correlations
from lmme3dhf.models.configuration import MetricConfig, heads_from
from lmme3dhf.models.modeling import LMME3DHF, LMME3DHFOutput, load_configuration, load_processor
from lmme3dhf.stages import run as runs
from lmme3dhf.training import StageLoss, train
from lmme3dhf.training.losses import LOSSES


class ScoreLoss(StageLoss):
    """Losses of the heads' values, plus the weighted language loss; with SRCC of each aspect and
    their mean on validation data.

    Args:
        losses: Name in `training.losses.LOSSES` -> weight, or a mapping with `weight` and options.
        metric: Names the aspects and the heads.
        language_weight: 0 leaves the language loss out.

    Raises:
        ConfigError: There is no such loss.
    """

    def __init__(
        self, losses: Mapping[str, Any], metric: MetricConfig, language_weight: float = 0.0
    ) -> None:
        self.terms = []
        for name, given in losses.items():
            if name not in LOSSES:
                raise ConfigError(
                    f"losses: {name!r} is not one of {', '.join(sorted(LOSSES))}; --plugin MODULE "
                    "adds others"
                )
            options = dict(given) if isinstance(given, Mapping) else {"weight": given}
            self.terms.append((options.pop("weight", 1.0), partial(LOSSES[name], **options)))
        self.aspects, self.heads = tuple(metric.aspects), metric.heads
        self.language_weight = language_weight
        self.measured = ("srcc", *(f"srcc_{aspect}" for aspect in self.aspects))

    def _targets(self, batch: dict[str, Any]) -> dict[tuple[str, str], torch.Tensor]:
        """(head, output) -> (scored reads,) targets, NaN where unknown."""
        if "values" not in batch:
            return {}
        values, asked = batch["values"], batch["asked"]
        columns = dict(zip(self.aspects, values.unbind(1), strict=True))
        columns["score"] = values.gather(1, asked[:, None])[:, 0]
        return {
            (name, output): columns[output]
            for name, head in self.heads.items()
            for output in head.outputs
            if output in columns
        }

    def counts(self, batch: dict[str, Any]) -> list[int]:
        """Known targets, for each loss, and learnt tokens."""
        known = sum(int(torch.isfinite(target).sum()) for target in self._targets(batch).values())
        learnt = len(batch["learnt"]) if "learnt" in batch else 0
        return [known] * len(self.terms) + ([learnt] if self.language_weight else [])

    def sums(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """(losses,) weighted sums over the known targets, and with language that of the tokens."""
        return self._sums(model, batch)[0]

    def judge(
        self, model: nn.Module, batch: dict[str, Any], names: list[str]
    ) -> tuple[torch.Tensor, list[list[float]]]:
        """`sums`; and index of the aspect, predicted and true value of each question that is scored
        by the first head with its aspect.
        """
        sums, found = self._sums(model, batch)
        rows = []
        for index, aspect in enumerate(self.aspects if found else ()):
            names = ((head, name) for head in found for name in (aspect, "score"))
            output = next((found[head][name] for head, name in names if name in found[head]), None)
            asked = (batch["asked"] == index) & torch.isfinite(batch["values"][:, index])
            if output is not None:
                pairs = zip(
                    output[asked].tolist(), batch["values"][asked, index].tolist(), strict=True
                )
                rows += [[index, *pair] for pair in pairs]
        return sums, rows

    def measures(self, rows: list[list[float]]) -> dict[str, float]:
        """SRCC of each aspect, NaN where undefined, and the mean over those with scores."""
        table = np.array(rows, dtype=float).reshape(-1, 3)
        srcc = {}
        for index, aspect in enumerate(self.aspects):
            predicted, mos = table[table[:, 0] == index, 1:].T
            if len(mos):
                finite = np.isfinite(predicted).all()
                srcc[aspect] = correlations(predicted, mos).srcc if finite else np.nan
        mean = float(np.mean(list(srcc.values()))) if srcc else np.nan
        return {"srcc": mean} | {f"srcc_{name}": srcc.get(name, np.nan) for name in self.aspects}

    def _sums(
        self, model: nn.Module, batch: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, dict[str, torch.Tensor]] | None]:
        left_out = FACTS if self.language_weight else (*FACTS, "learnt", "targets")
        output = model(**{name: value for name, value in batch.items() if name not in left_out})
        errors = [torch.zeros((), device=batch["reads"].device) for _ in self.terms]
        # A batch of rehearsal questions alone has no score to learn.
        for (head, name), target in self._targets(batch).items() if output.heads else ():
            known = torch.isfinite(target)
            prediction = output.heads[head][name][known]
            for i, (weight, loss) in enumerate(self.terms):
                errors[i] = errors[i] + weight * loss(prediction, target[known]).sum()
        if self.language_weight:
            said = output.token_losses
            said = errors[0].new_zeros(()) if said is None else said.sum()
            errors.append(self.language_weight * said)
        return torch.stack(errors), output.heads


def spoken_reply(sample: Sample, aspects: Aspects) -> str | None:
    """What the model is to say: the level sentence without the number that the numerical lists
    append; None for an aspect that is not put in words.
    """
    if sample.task not in aspects:
        return sample.reply
    if sample.level is None:
        return None
    return f"{aspects[sample.task].prefix(sample.slots)} {sample.level}."


def scored_samples(config: Config, aspects: Aspects = GEN3DHF) -> tuple[list[Sample], list[Sample]]:
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
    for name, aspect in aspects.items():
        known = [s.mos for s in (*samples, *validation) if s.task == name]
        if other := other_scale(known, aspect.scale):
            raise DataError(f"score.lists: the {name} scores {other}")
    # Rehearsal has nothing to teach a head.
    if config.score.language_weight and config.lora.trained:
        rehearsal = config.score.rehearsal
        samples += runs.listed_samples(config, rehearsal)
        if validation:
            validation += runs.validation_samples(config, rehearsal, settings, "stage 2, rehearsal")
    return samples, validation


def with_edges(aspects: Aspects, root: Path, samples: list[Sample]) -> dict[str, Aspect]:
    """The aspects with the edges of their levels: their own; those stored with the data set, which
    its lists were labelled with; where there are none (the release), Eq. 4 on the training scores.

    Args:
        aspects: What is rated.
        root: Folder of the data set.
        samples: The training samples.
    """
    stored = root / "levels.json"
    known = read_levels(stored, aspects) if stored.exists() else {}
    found = dict(aspects)
    for name, aspect in aspects.items():
        if not aspect.scale.levels or aspect.scale.edges:
            continue
        edges = known[name].edges if name in known else None
        mos = np.array([s.mos for s in samples if s.task == name and s.mos is not None])
        if not known and len(mos):
            edges = fit_level_scale(mos, aspect).edges
        found[name] = replace(aspect, scale=aspect.scale.replace(edges=edges))
    return found


def question_for(
    config: Config, encoder: DialogueEncoder, aspects: Aspects
) -> Callable[[Sample], Question]:
    """Encodes questions up to the read position; with language rehearsal, or where the label is
    read, the rest of the reply follows.
    """

    def question(sample: Sample) -> Question:
        aspect, prefix = aspects.get(sample.task), None
        if aspect:
            prefix = aspect.prefix(sample.slots)
            if config.score.read == "question":
                prefix = ""
            elif config.score.read == "label":
                prefix += f" {sample.level}"
        replies = config.score.language_weight or config.score.read == "label"
        reply = spoken_reply(sample, aspects) if replies else None
        return Question(
            name=f"{sample.video} {sample.task}",
            encoded=encoder.encode(
                sample.prompt,
                reply=reply,
                prefix=prefix,
                before=turns_before(aspect, sample.slots),
            ),
            aspect=aspect and aspect.name,
            values={
                name: aspects[name].scale.to_unit(value)
                for name, value in sample.values.items()
                if name in aspects
            },
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
    aspects = runs.aspects_at(config)
    samples, validation = scored_samples(config, aspects)
    processor = load_processor(folder)
    aspects = with_edges(aspects, config.data.root, samples)
    heads = heads_from(config.score.heads, read=config.score.read)
    metric = runs.metric_of(folder, processor, config, aspects, heads=heads)
    runs.open_run(run, "score", config, folder, {"metric": metric.to_dict()})
    encoder = DialogueEncoder(processor.tokenizer)
    question = question_for(config, encoder, metric.aspects)
    dataset = runs.clip_questions(
        config, folder, processor, samples, question, "stage 2", validation
    )
    model = runs.load_model(config, folder)
    model.set_heads(heads)
    collator = Collator(processor.tokenizer.pad_token_id, config.pad_to, tuple(metric.aspects))
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
        loss=ScoreLoss(config.score.losses, metric, config.score.language_weight),
        settings=config.score.trainer,
        heads=tuple(heads),
        metric=metric,
        validation=validation,
    )
    return run


class _LoneHeads(nn.Module):
    """The heads of a model on hidden states that are known, for `ScoreLoss`.

    Args:
        model: Theirs; nothing else of it is trained.
    """

    def __init__(self, model: LMME3DHF) -> None:
        super().__init__()
        self.heads, self.values = model.heads, model.head_values
        self.read = model.metric.read

    def forward(self, reads: torch.Tensor) -> LMME3DHFOutput:
        """The heads' values of hidden states (reads, hidden)."""
        return LMME3DHFOutput(heads=self.values({self.read: reads}))


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
            {"name": name, "reads": hidden, "values": values, "asked": asked}
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
    model.heads.requires_grad_(True)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        keys = ("reads", "values", "asked")
        stacked = {key: torch.stack([row[key] for row in rows]) for key in keys}
        return {"names": [row["name"] for row in rows], **stacked}

    train(
        name="stage 2",
        model=_LoneHeads(model),
        loss=ScoreLoss(config.score.losses, metric),
        dataset=items,
        collator=collate,
        settings=config.score.trainer,
        run=run,
        seed=config.seed,
        validation=validation_items or None,
    )
    runs.finish_part(run, model.heads, runs.HEAD)


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
        (video, aspect) -> score, in units of its scale.
    """
    # Nothing is trained here: an adapter that the folder keeps stays as it is.
    config = replace(config, lora=replace(config.lora, language=False, vision=False))
    processor = load_processor(folder)
    samples = runs.listed_samples(config, lists)
    aspects = load_configuration(folder).get_metric().aspects
    question = question_for(config, DialogueEncoder(processor.tokenizer), aspects)
    dataset = runs.clip_questions(config, folder, processor, samples, question, "scores")
    model = runs.load_model(config, folder)
    collator = Collator(processor.tokenizer.pad_token_id, config.pad_to, tuple(aspects))
    found = []
    for batch in _batches(dataset, collator, config.batch_size):
        hidden = _read_states(model, batch).to(model.device)
        with torch.no_grad():
            found.append(
                {name: next(iter(model.scores(hidden, name).values())) for name in aspects}
            )
    units = {name: torch.cat([part[name] for part in found]) for name in aspects}
    scores = {name: aspects[name].scale.from_unit(units[name]).tolist() for name in aspects}
    keys = [(sample.video, sample.task) for group in dataset.groups for sample in group]
    return {key: scores[key[1]][index] for index, key in enumerate(keys)}
