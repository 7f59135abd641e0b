"""A finished model on a list of clips -> prediction records, which the same command continues; no
label has a way in.

Records are on the disk as soon as they are known, failures included. A record stands while model,
prompts, options, decoder and the clip's content stay what they were; every other one is made anew.

With several processes (`distributed`) each predicts its share of the clips into a hidden part
beside the file, which the main one puts into the file at the end, or the next command where this
one was killed: the file is the same as of a process alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lmme3dhf import distributed
from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.aspects import DISTORTION, Aspects
from lmme3dhf.assessment import Question
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.escaping import visible
from lmme3dhf.files import FileState
from lmme3dhf.jsonl import append, json_line, part_file, part_files
from lmme3dhf.predictions import (
    Prediction,
    PredictionFile,
    content_of,
    predicted,
    read_predictions,
)
from lmme3dhf.progress import with_progress
from lmme3dhf.scorer import Assessment, Failure, Scorer
from lmme3dhf.stages.table import DECODERS, file_states, opened, stands, with_content

METHOD = "LMME3DHF"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a predictions file holds when the command ends.

    Attributes:
        out: The file.
        records: Number of records that say something.
        clips: Number of clips of the list.
        failures: A failure of each clip that could not be predicted.
    """

    out: Path
    records: int
    clips: int
    failures: tuple[Prediction, ...]

    def __str__(self) -> str:
        if not self.failures:
            return f"{self.out}: {self.records} records"
        named = (f"{f.video} ({f.reason}): {f.message}" for f in self.failures)
        listed = "".join(f"\n  {visible(name)}" for name in named)
        return (
            f"{self.out}: {self.records} records; {len(self.failures)} of {self.clips} clips "
            "cannot be predicted; replace them, and the same command adds their records:" + listed
        )

    def require_all(self) -> None:
        """Refuses a test set that is not whole.

        Raises:
            DataError: Some clips could not be predicted; all are named.
        """
        if self.failures:
            raise DataError(str(self))


def predict(
    load: Callable[[], Scorer],
    samples: Iterable[Sample],
    out: Path,
    *,
    model: str,
    aspects: Aspects,
    maps: bool,
    write_text: bool = False,
    ratings: bool = True,
    scores: bool = True,
    answers: str | None = "likelihood",
    questions: Mapping[str, Question] | None = None,
    views: tuple[float, ...] | None = None,
) -> Outcome:
    """Predicts every video of a list and writes one record per video and aspect, in the order of
    the list.

    Args:
        load: Gives the scorer; called only where there is something to predict.
        samples: The questions; replies are never looked at. A list on one aspect gives records on
            that one, a list of other questions records on all that the model rates. Questions with
            candidates are answered in every record.
        out: JSONL file; maps go to the folder `<name>_maps` beside it. Records of another model,
            of other prompts, options or clips are replaced, and their number is printed.
        model: The model's hash, from `stages.table.model_key`.
        aspects: What the model rates.
        maps: Predict saliency maps when the model can.
        write_text: Let the model write its ratings as sentences too.
        ratings: Rate the model's aspects.
        scores: Whether the scorer that `load` gives has scores.
        answers: How the distortions are answered (`Scorer.assess`); None for no answer.
        questions: Name -> further question on every clip; the answers are in every record.
        views: Where the scorer takes the three views; None for the usual places.

    Returns:
        The outcome, on every rank. A clip that cannot be read has failures in place of its records:
        see `Outcome.require_all`.

    Raises:
        DataError: Nothing is asked for, the list asks for what the model does not rate, or one of
            its questions with candidates has two wordings.
        PredictionError: Another process is writing the file, or it is no file of ours.
    """
    samples = list(samples)
    questions = {**_questions(samples), **(questions or {})}
    if not (maps or ratings or answers or questions):
        raise DataError("no ratings, no answers and no maps are asked for; ask for some of them")
    tasks = dict.fromkeys(sample.task for sample in samples)
    if foreign := [task for task in tasks if task not in (*aspects, DISTORTION, *questions)]:
        raise DataError(
            f"{out}: the list asks for {', '.join(foreign)}, and this model rates "
            f"{', '.join(aspects)}; give a list on these, or a model of those"
        )
    asked = [name for name in aspects if name in tasks] or list(aspects)
    slots = {sample.video: sample.slots for sample in samples if getattr(sample, "slots", None)}
    options = {
        "prompts": {DISTORTION: PROMPTS[DISTORTION]},
        "ratings": ratings,
        "answers": answers,
        "maps": maps,
        "write_text": write_text,
    }
    if not slots:  # with them the model's own prompts are filled
        options["prompts"] |= {name: aspect.question() for name, aspect in aspects.items()}
        options["prompts"] |= {sample.task: sample.prompt for sample in samples}
    decided_by = [dict(options), scores, asked, DECODERS, *[views] * (views is not None)]
    if questions:
        decided_by.append({name: asdict(question) for name, question in questions.items()})
    clips = {sample.video: sample.path for sample in samples}
    settings = {v: _settings([*decided_by, *([slots[v]] if v in slots else [])]) for v in clips}
    known = {"method": METHOD, "model": model}
    if questions:
        options["questions"] = questions
    with opened(PredictionFile(out, METHOD)) as file:
        states = file_states(list(dict.fromkeys(clips.values())))
        states = {video: states[path] for video, path in clips.items()}
        todo, stale = [], {}
        if file is not None:
            _take_parts(file)
            stale = _stale(file, states, asked, known, settings)
            there = {video for video, _ in file.rows.keys() - stale.keys()}
            todo = [video for video in clips if video not in there]
            if there:
                print(f"{out}: {len(there)} of {len(clips)} clips are there already", flush=True)
        todo = distributed.all_gather(todo)[0]
        mine = distributed.share(todo)
        scorer = load() if todo else None
        if file is not None and stale:
            causes = ", ".join(f"{cause} {n}" for cause, n in Counter(stale.values()).items())
            print(f"{out}: {len(stale)} records do not stand ({causes})", flush=True)
            file.forget(stale)
        if mine:
            clips_of_mine = {video: clips[video] for video in mine}
            known = {video: {**known, "settings": settings[video]} for video in mine}
            found = _records(scorer, clips_of_mine, slots, states, out, asked, known, options)
            with closing(found) as results:
                results = with_progress(results, distributed.named("predicting"), len(mine))
                if distributed.world_size() == 1:
                    for records in results:
                        file.append(*records)
                else:
                    _write_part(out, results)
        distributed.barrier()
        outcome = None
        if file is not None:
            _take_parts(file)
            file.arrange((video, aspect) for video in clips for aspect in asked)
            good, failed = predicted(file.rows.values())
            outcome = Outcome(
                out=out, records=len(good), clips=len(clips), failures=tuple(failed.values())
            )
        return distributed.all_gather(outcome)[0]


def _questions(samples: Iterable[Sample]) -> dict[str, Question]:
    """The questions of a list that have candidates."""
    found: dict[str, Question] = {}
    for sample in samples:
        if candidates := getattr(sample, "candidates", ()):
            prompt = sample.prompt.replace("{", "{{").replace("}", "}}")
            question = Question(prompt, candidates)
            if found.setdefault(sample.task, question) != question:
                raise DataError(
                    f"{sample.video}: {sample.task!r} is asked in two wordings, or with other "
                    f"candidates ({', '.join(candidates)}); give each its own task"
                )
    return found


def _settings(decided_by: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]


def _stale(
    file: PredictionFile,
    states: Mapping[str, FileState | None],
    asked: Sequence[str],
    known: Mapping[str, str],
    settings: Mapping[str, str],
) -> dict[tuple[str, str], str]:
    """Key of each record that does not stand -> why."""
    stale = {}
    for key, record in file.rows.items():
        if record.settings is None or record.method != known["method"]:
            stale[key] = "of another method or version"
        elif record.model != known["model"]:
            stale[key] = "of another model"
        elif record.video not in states:
            stale[key] = "of another list"
        elif record.settings != settings[record.video]:
            stale[key] = "of other prompts or options"
        elif not stands(record, states[record.video]):
            stale[key] = "failures, tried again" if record.reason else "of clips that have changed"
        elif record.map is not None and not (file.record.parent / record.map).is_file():
            stale[key] = "without their maps"
    # A kill between the records of a clip leaves one without the other.
    standing = Counter(video for video, _ in file.rows.keys() - stale.keys())
    for key in file.rows.keys() - stale.keys():
        if standing[key[0]] < len(asked):
            stale[key] = "of clips whose other record does not stand"
    return stale


def _records(
    scorer: Scorer,
    clips: Mapping[str, Path],
    slots: Mapping[str, Mapping[str, str]],
    states: Mapping[str, FileState | None],
    out: Path,
    asked: Iterable[str],
    known: Mapping[str, Mapping[str, str]],
    options: Mapping[str, object],
) -> Iterator[list[Prediction]]:
    """The records of each clip, in their order."""
    of_clips = {"slots": [slots.get(video, {}) for video in clips]} if slots else {}
    with closing(scorer.assess(list(clips.values()), **options, **of_clips)) as results:
        for (video, path), result in zip(clips.items(), results, strict=True):
            own = {"slots": slots.get(video, {})} if slots else {}
            again = partial(scorer.assess, [path], **options, **own)
            result, content = with_content(path, result, states[video], again)
            about = {"video": video, "content": content, **known[video]}
            if isinstance(result, Failure):
                # The file is to be read elsewhere too.
                message = result.message.replace(str(path), path.name)
                about |= {"reason": result.reason, "message": message}
                yield [Prediction(dimension=aspect, **about) for aspect in asked]
            else:
                yield _of_assessment(result, about, asked, out)


def _of_assessment(
    result: Assessment, about: dict[str, str], asked: Iterable[str], out: Path
) -> list[Prediction]:
    where = None
    if result.saliency is not None:
        folder = out.with_name(f"{out.stem}_maps")
        folder.mkdir(parents=True, exist_ok=True)
        write_saliency_png(folder / f"{about['video']}.png", result.saliency)
        where = f"{folder.name}/{about['video']}.png"
    answers = {name: answer.probabilities for name, answer in result.answers.items()}
    records = []
    for aspect in asked:
        rated = {}
        if rating := result.ratings.get(aspect):
            names = ("score", "level", "level_probabilities", "text")
            rated = {name: getattr(rating, name) for name in names}
            rated["by_head"] = rating.by_head if len(rating.by_head) > 1 else None
        records.append(
            Prediction(
                **about,
                dimension=aspect,
                **rated,
                answers=answers or None,
                distortions=result.distortions,
                distortion_log_odds=result.distortion_log_odds,
                map=where,
                decoder=result.decoder,
            )
        )
    return records


def _write_part(out: Path, results: Iterable[list[Prediction]]) -> None:
    """Writes this rank's records."""
    with part_file(out, distributed.rank()).open("ab") as part:
        for records in results:
            append(part, b"".join(json_line(content_of(record)) for record in records))


def _take_parts(file: PredictionFile) -> None:
    """Puts the ranks' records into the file and removes the parts."""
    for part in part_files(file.record):
        records = [(r.video, r.dimension, r) for r in read_predictions(part)]
        file.append(*(r for video, dimension, r in records if (video, dimension) not in file.rows))
        part.unlink()
