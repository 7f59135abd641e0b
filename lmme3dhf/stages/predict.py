"""A finished model on a list of clips -> prediction records; no label has a way in.

With several processes (`distributed`) each takes its share of the clips, and the main one writes
the same file as a process alone.
"""

from collections.abc import Iterable
from pathlib import Path

from lmme3dhf import distributed
from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.predictions import Prediction, write_predictions
from lmme3dhf.progress import with_progress
from lmme3dhf.scorer import Assessment, Failure, Scorer
from lmme3dhf.vocabulary import DIMENSIONS

METHOD = "LMME3DHF"


def predict(
    scorer: Scorer,
    samples: Iterable[Sample],
    out: Path,
    *,
    maps: bool,
    write_text: bool = False,
    ratings: bool = True,
    answers: str | None = "likelihood",
) -> int:
    """Predicts every video of a list and writes one record per video and dimension.

    Args:
        scorer: The model.
        samples: The questions; replies are never looked at. A list on one dimension gives records
            on that one, a list of distortion questions records on both.
        out: JSONL file; maps go to the folder `<name>_maps` beside it.
        maps: Predict saliency maps when the model can.
        write_text: Let the model write its ratings as sentences too.
        ratings: Rate quality and authenticity.
        answers: How the distortions are answered (`Scorer.assess`); None for no answer.

    Returns:
        Number of records, those of all ranks.

    Raises:
        DataError: Nothing is asked for, or some clips cannot be read; all are named (by the main
            rank). A test set is never shortened silently.
    """
    if not (maps or ratings or answers):
        raise DataError("no ratings, no answers and no maps are asked for; ask for some of them")
    samples = list(samples)
    asked = [d for d in DIMENSIONS if any(sample.task == d for sample in samples)] or DIMENSIONS
    prompts = dict(PROMPTS) | {sample.task: sample.prompt for sample in samples}
    clips = {sample.video: sample.path for sample in samples}
    folder = out.with_name(f"{out.stem}_maps")
    mine = distributed.share(list(clips))
    results = scorer.assess(
        [clips[video] for video in mine],
        prompts=prompts,
        ratings=ratings,
        answers=answers,
        maps=maps,
        write_text=write_text,
    )
    results = with_progress(results, distributed.named("predicting"), len(mine))
    outcomes: list[list[Prediction] | str] = []
    for video, result in zip(mine, results, strict=True):
        if isinstance(result, Failure):
            outcomes.append(f"{video} ({result.reason}): {result.message}")
        else:
            outcomes.append(_records(video, result, asked, folder))
    outcomes = distributed.interleave(distributed.all_gather(outcomes))
    records = [record for outcome in outcomes if isinstance(outcome, list) for record in outcome]
    if distributed.is_main():
        failures = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if failures:
            listed = "\n  ".join(failures)
            raise DataError(f"{len(failures)} of {len(clips)} clips cannot be read:\n  {listed}")
        write_predictions(out, records)
    return len(records)


def _records(
    video: str, result: Assessment, asked: Iterable[str], folder: Path
) -> list[Prediction]:
    where = None
    if result.saliency is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_saliency_png(folder / f"{video}.png", result.saliency)
        where = f"{folder.name}/{video}.png"
    records = []
    for dimension in asked:
        rating = getattr(result, dimension)
        rated = {}
        if rating is not None:
            names = ("score", "level", "level_probabilities", "text")
            rated = {name: getattr(rating, name) for name in names}
        records.append(
            Prediction(
                video=video,
                dimension=dimension,
                method=METHOD,
                **rated,
                distortions=result.distortions,
                distortion_log_odds=result.distortion_log_odds,
                map=where,
                decoder=result.decoder,
            )
        )
    return records
