"""A finished model on a list of clips -> prediction records; no label has a way in.

With several processes (`distributed`) each takes its share of the clips, and the main one writes
the same file as a process alone.
"""

import csv
import glob
import io
from collections.abc import Iterable
from pathlib import Path

from lmme3dhf import distributed
from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.files import replace_file
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


SCORE_COLUMNS = (
    "file",
    "status",
    "reason",
    "message",
    "quality",
    "quality_level",
    "authenticity",
    "authenticity_level",
    "distortions",
    "map",
    "decoder",
)


def files_below(paths: Iterable[Path]) -> list[Path]:
    """Files, and all visible files of folders, sorted within each folder.

    Raises:
        DataError: A path does not exist, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")
            )
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; check the path")
    if not found:
        raise DataError("no files to score; give clips, or folders with clips")
    return found


def score_files(
    scorer: Scorer, files: list[Path], out: Path, *, maps: Path | None = None
) -> tuple[int, int]:
    """Scores files and writes one CSV row each, failures included, as soon as it is known.

    Several processes write hidden parts beside `out`, which the main one puts together at the end.

    Args:
        scorer: The model.
        files: The clips.
        out: CSV file.
        maps: Folder for the saliency maps; None writes none.

    Returns:
        Number of files with scores, and of files without, those of all ranks.

    Raises:
        DataError: The scorer gives no scores.
    """
    if not scorer.scores:
        raise DataError("a scorer without scores cannot fill a table of scores; use predict")
    out.parent.mkdir(parents=True, exist_ok=True)
    mine = distributed.share(files)
    results = scorer.assess(mine, maps=maps is not None)
    if distributed.world_size() == 1:
        good = _write_rows(out, results, len(mine), maps)
        return good, len(files) - good
    try:
        good = _write_rows(_part(out, distributed.rank()), results, len(mine), maps)
        good = sum(distributed.all_gather(good))
        if distributed.is_main():
            _merge_parts(out)
            _remove_parts(out)
    except BaseException:
        # The launcher ends the other ranks too: a table without this rank's rows is of no use.
        _remove_parts(out)
        raise
    return good, len(files) - good


def _write_rows(
    out: Path, results: Iterable[Assessment | Failure], total: int, maps: Path | None
) -> int:
    """Writes each row when it is known; returns the number of files with scores."""
    good = 0
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SCORE_COLUMNS)
        writer.writeheader()
        for result in with_progress(results, distributed.named("scoring"), total):
            writer.writerow(_row(result, maps))
            file.flush()
            good += isinstance(result, Assessment)
    return good


def _part(out: Path, rank: int) -> Path:
    """A rank's rows; hidden, so that nobody scores it as a file of the folder."""
    return out.with_name(f".{out.name}.rank_{rank}.part")


def _merge_parts(out: Path) -> None:
    """Writes the ranks' rows in the order of the files."""
    parts = []
    for rank in range(distributed.world_size()):
        with _part(out, rank).open(encoding="utf-8", newline="") as file:
            parts.append(list(csv.reader(file)))
    merged = io.StringIO(newline="")
    writer = csv.writer(merged)
    writer.writerow(SCORE_COLUMNS)
    writer.writerows(distributed.interleave([rows[1:] for rows in parts]))
    replace_file(out, merged.getvalue())


def _remove_parts(out: Path) -> None:
    for path in out.parent.glob(f".{glob.escape(out.name)}.rank_*.part"):
        path.unlink(missing_ok=True)


def _row(result: Assessment | Failure, maps: Path | None) -> dict[str, str]:
    if isinstance(result, Failure):
        return {
            "file": str(result.path),
            "status": "failed",
            "reason": result.reason,
            "message": result.message,
        }
    where = ""
    if maps is not None and result.saliency is not None:
        maps.mkdir(parents=True, exist_ok=True)
        # Two folders may hold files of one name.
        where = f"{'_'.join(result.path.parts[-2:])}.png"
        write_saliency_png(maps / where, result.saliency)
    return {
        "file": str(result.path),
        "status": "ok",
        "quality": f"{result.quality.score:.3f}",
        "quality_level": result.quality.level,
        "authenticity": f"{result.authenticity.score:.3f}",
        "authenticity_level": result.authenticity.level,
        "distortions": "; ".join(result.distortions),
        "map": where,
        "decoder": result.decoder,
    }
