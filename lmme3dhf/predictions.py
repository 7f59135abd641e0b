"""The record that every method writes, and its writers and its one reader: JSON lines, a record
per video and aspect. A video that a method could not predict has records too, with the reason.

Our own stages and every baseline end here; metrics and reports begin here and never see a model.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lmme3dhf.assessment import are_probabilities, is_finite
from lmme3dhf.errors import UserError
from lmme3dhf.files import is_inside, replace_file
from lmme3dhf.jsonl import RecordFile, check_fields, json_line, whole_lines
from lmme3dhf.vocabulary import DISTORTIONS

ASPECT_NAME = re.compile("[a-z][a-z0-9_]*")


class PredictionError(UserError, ValueError):
    """A prediction record that cannot be used; the message says which field, what was expected and,
    for files, where.
    """


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one method says about one aspect of one video; None where the method does not say it.

    Attributes:
        video: Name of the video, without folder and suffix.
        dimension: Name of the aspect.
        method: Name of the method, as in the tables.
        score: Predicted opinion score. Ours are in the units of the aspect's scale, but a regressor
            may overshoot a little and foreign methods have scales of their own: it has to be
            finite, no more.
        level: A level word of the aspect's scale.
        level_probabilities: Level word -> probability in 0..1.
        distortions: Predicted categories, a subset of `DISTORTIONS`; empty where an answer named
            none.
        text: The answer as the model wrote it.
        map: Path of the saliency map, relative to the predictions file, with forward slashes.
        decoder: Name of the video decoder.
        distortion_log_odds: Category -> log P(it is there) - log P(it is not), natural; of
            `DISTORTIONS`, not necessarily all.
        by_head: Head -> its score, where the model has several for the aspect.
        answers: Further question -> candidate -> probability that it is the reply.
        reason: Why the video could not be predicted, one word; None where it was.
        message: The reason as a sentence, with what to do.
        content: SHA-256 of the clip's bytes, hexadecimal.
        model: Hash of the model, 16 hexadecimal digits, as in a table of scores.
        settings: Hash of what was asked and how clips are decoded, 16 hexadecimal digits: a
            command that continues a file takes records of its own settings only.

    Raises:
        PredictionError: A field has a wrong type or value.
    """

    video: str
    dimension: str
    method: str
    score: float | None = None
    level: str | None = None
    level_probabilities: dict[str, float] | None = None
    distortions: tuple[str, ...] | None = None
    text: str | None = None
    map: str | None = None
    decoder: str | None = None
    distortion_log_odds: dict[str, float] | None = None
    by_head: dict[str, float] | None = None
    answers: dict[str, dict[str, float]] | None = None
    reason: str | None = None
    message: str | None = None
    content: str | None = None
    model: str | None = None
    settings: str | None = None

    def __post_init__(self) -> None:
        for field in ("video", "dimension", "method"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                self._refuse(field, "a text that is not empty")
        for field in ("text", "map", "decoder", "reason", "message"):
            if not isinstance(getattr(self, field), str | None):
                self._refuse(field, "a text or null")
        for field, digits in _HASHES.items():
            value = getattr(self, field)
            if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", str(value)):
                self._refuse(field, f"{digits} hexadecimal digits, or null")
        if self.reason is not None and any(getattr(self, said) is not None for said in _SAID):
            self._refuse("reason", "null where something was predicted")
        if not ASPECT_NAME.fullmatch(self.dimension):
            self._refuse("dimension", "the name of an aspect (lower-case letters, digits and _)")
        if self.level is not None and not re.fullmatch(r"\w+", str(self.level)):
            self._refuse("level", "a level word or null")
        if self.score is not None:
            if not is_finite(self.score):
                self._refuse("score", "a finite number or null")
            # NumPy scalars become floats, which JSON can write.
            object.__setattr__(self, "score", float(self.score))
        said = self.level_probabilities
        if said is not None and not are_probabilities(said):
            self._refuse("level_probabilities", "an object of numbers in 0..1, or null")
        for field in ("level_probabilities", "by_head"):
            self._check_numbers(field)
        self._check_numbers("distortion_log_odds", DISTORTIONS)
        answers = self.answers
        if answers is not None and not (
            isinstance(answers, dict) and all(map(are_probabilities, answers.values()))
        ):
            self._refuse("answers", "an object of objects of numbers in 0..1, or null")
        if self.distortions is not None:
            known = isinstance(self.distortions, tuple | list) and all(
                name in DISTORTIONS for name in self.distortions
            )
            if not known or len(set(self.distortions)) != len(self.distortions):
                self._refuse(
                    "distortions",
                    f"a list of different categories out of {', '.join(DISTORTIONS)}, or null",
                )
            object.__setattr__(self, "distortions", tuple(self.distortions))
        if self.map is not None and not _relative(self.map):
            self._refuse("map", "a path below the predictions file's folder, with forward slashes")

    def _check_numbers(self, field: str, words: Collection[str] | None = None) -> None:
        given = getattr(self, field)
        if given is None:
            return
        known = isinstance(given, dict) and (words is None or set(given) <= set(words))
        if not known or not all(map(is_finite, given.values())):
            what = f"an object{' of ' + ', '.join(words) if words else ''} with finite numbers"
            self._refuse(field, f"{what}, or null")
        object.__setattr__(self, field, {name: float(value) for name, value in given.items()})

    def _refuse(self, field: str, expected: str) -> None:
        raise PredictionError(
            f"{field} of {self.video!r} is {getattr(self, field)!r}, expected {expected}"
        )


FIELDS = tuple(field.name for field in dataclasses.fields(Prediction))
_HASHES = {"content": 64, "model": 16, "settings": 16}
_SAID = ("score", "level", "level_probabilities", "distortions", "text", "map", "answers")
# Fields that only our own commands write: they are left out where there is nothing to say.
_OPTIONAL = ("by_head", "answers", "reason", "message", *_HASHES)
REQUIRED = tuple(
    field.name for field in dataclasses.fields(Prediction) if field.default is dataclasses.MISSING
)


def _relative(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and "\\" not in path
        and ".." not in parts
        and not PurePosixPath(path).is_absolute()
        and not PureWindowsPath(path).drive
    )


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> int:
    """Writes the records as JSON lines, replacing the file as a whole, and returns their number.

    Raises:
        PredictionError: Two records of one video, aspect and method; the target stays as it was.
    """
    seen: set[tuple[str, str, str]] = set()
    lines = []
    for prediction in predictions:
        _note(prediction, seen, str(path))
        lines.append(json_line(content_of(prediction)))
    replace_file(path, b"".join(lines))
    return len(seen)


def content_of(prediction: Prediction) -> dict[str, Any]:
    """The fields of a record as its line in the file has them."""
    content = dataclasses.asdict(prediction)
    return {k: v for k, v in content.items() if v is not None or k not in _OPTIONAL}


def _note(prediction: Prediction, seen: set[tuple[str, str, str]], where: str) -> None:
    key = (prediction.video, prediction.dimension, prediction.method)
    if key in seen:
        raise PredictionError(
            f"{where}: second record of video {key[0]!r}, dimension {key[1]!r}, method "
            f"{key[2]!r}; keep one"
        )
    seen.add(key)


def read_predictions(path: Path) -> list[Prediction]:
    """Reads the records in the order of the file; fields that are absent are None, empty lines and
    a last line that was cut off are passed over. Failures are among them (`predicted`).

    Raises:
        PredictionError: With path and line: no JSON object, unknown or missing field, wrong value,
            or a second record of the same video, dimension and method.
        FileNotFoundError: No such file.
    """
    return [prediction for prediction, _ in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[Prediction, bytes]]:
    seen: set[tuple[str, str, str]] = set()
    for number, line in whole_lines(path):
        where = f"{path}:{number}"
        try:
            content = json.loads(line.decode("utf-8"))
        except ValueError as error:  # not UTF-8, or not JSON
            raise PredictionError(
                f"{where}: not a JSON object in UTF-8 ({error}); each line holds one record"
            ) from error
        prediction = _prediction(content, where)
        _note(prediction, seen, where)
        yield prediction, line


def predicted(
    records: Iterable[Prediction],
) -> tuple[list[Prediction], dict[str, Prediction]]:
    """Records that say something, and for each video that could not be predicted the first of its
    failures.
    """
    records = list(records)
    failed: dict[str, Prediction] = {}
    for record in records:
        if record.reason is not None:
            failed.setdefault(record.video, record)
    return [record for record in records if record.reason is None], failed


def require_predicted(
    records: Iterable[Prediction], videos: Collection[str], where: str = "predictions"
) -> list[Prediction]:
    """The records that say something.

    Args:
        records: Records of a file, failures among them.
        videos: The videos of a test.
        where: The file, for the message.

    Raises:
        PredictionError: There are none, or some of the videos could not be predicted.
    """
    good, failed = predicted(records)
    lacking = [failed[video] for video in videos if video in failed]
    if lacking:
        first = lacking[0]
        raise PredictionError(
            f"{where}: {len(lacking)} of {len(videos)} labelled videos could not be predicted, the "
            f"first is {first.video} ({first.reason}: {first.message}); replace the clips and "
            "predict again, or evaluate on lists without them"
        )
    if videos and not good:
        raise PredictionError(f"{where}: no predictions; `lmme3dhf predict` writes them")
    return good


class PredictionFile(RecordFile[tuple[str, str], Prediction]):
    """A predictions file of one method that is open for writing (see `jsonl.RecordFile`); the keys
    are video and dimension.

    Args:
        record: The file. One of another method that no command of ours wrote is not touched.
    """

    error = PredictionError

    def __init__(self, record: Path, method: str) -> None:
        super().__init__(record)
        self.method = method

    def _read(self) -> Iterator[tuple[Prediction, bytes]]:
        for prediction, line in _lines(self.record) if self.record.exists() else ():
            if prediction.method != self.method and prediction.settings is None:
                raise PredictionError(
                    f"{self.record} holds predictions of {prediction.method}, expected those of "
                    f"{self.method}; give another --out, or remove the file"
                )
            yield prediction, line

    def _key(self, record: Prediction) -> tuple[str, str]:
        return record.video, record.dimension

    def _content(self, record: Prediction) -> dict[str, Any]:
        return content_of(record)


def map_path(prediction: Prediction, path: Path) -> Path:
    """Where a record's map is.

    Args:
        prediction: A record with a map.
        path: The file of the record.

    Raises:
        PredictionError: A symbolic link leads out of the file's folder.
    """
    found = path.parent / prediction.map
    if not is_inside(found, path.parent):
        raise PredictionError(
            f"{path}: the map of {prediction.video!r}, {prediction.map}, leads out of "
            f"{path.parent}; put the map itself there"
        )
    return found


def _prediction(content: object, where: str) -> Prediction:
    if not isinstance(content, dict):
        raise PredictionError(
            f"{where}: {type(content).__name__} instead of a JSON object; each line holds one "
            "record"
        )
    check_fields(content, FIELDS, REQUIRED, where, PredictionError)
    try:
        return Prediction(**content)
    except PredictionError as error:
        raise PredictionError(f"{where}: {error}") from error
