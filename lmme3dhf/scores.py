"""The table of scores: one row a file, failures included, in two files side by side.

`<name>.jsonl` is the record: a JSON object a line, appended and synced to the disk row by row.
`<name>.csv` holds the same rows for spreadsheets and is made anew from the record whenever the
table is opened. A kill at any byte leaves whole rows and at most the beginning of one, which is
dropped. Rows are read here too, from either file; nothing here needs the model.

The header names the aspects, each with the columns NAME, NAME_level and NAME_probabilities, and
NAME_scale where the scale is not Gen3DHF's; and the further questions, each with NAME_answer and
NAME_probabilities.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lmme3dhf.aspects import AspectError, Scale
from lmme3dhf.assessment import (
    GEN3DHF_SCALE,
    Answer,
    Assessment,
    Rating,
    are_probabilities,
    digits,
    is_finite,
    is_outside_training,
)
from lmme3dhf.errors import UserError
from lmme3dhf.files import csv_lines, replace_file
from lmme3dhf.jsonl import RecordFile, append, check_fields, json_line, whole_lines
from lmme3dhf.sheets import read_sheet, sheet_header
from lmme3dhf.vocabulary import DISTORTIONS, VIEWS

OK, FAILED = "ok", "failed"
# On 0..100; a score is not better than that, and batches differ below it.
_SCORE_DIGITS, _PROBABILITY_DIGITS = 3, 6
_ELSEWHERE = "give another --out, or remove the table"
_HASHES = {"content": re.compile("[0-9a-f]{64}"), "model": re.compile("[0-9a-f]{16}")}


_USUAL = tuple(view.clip_fraction for view in VIEWS)


class ScoreError(UserError, ValueError):
    """A table of scores that cannot be read or gone on with; the message says where and why."""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """What the metric says about one file; a failed file has a reason and no scores.

    Attributes:
        file: The path as it was given or found.
        status: "ok" or "failed".
        reason: Why it failed, one of `data.container.REASONS`; None where it did not.
        message: The reason as a sentence, with what to do; None where it did not fail.
        ratings: Aspect -> score, raw, with scale, level and its probabilities; empty where the
            file failed.
        answers: Question -> answer.
        distortions: Categories that the model names, a subset of `DISTORTIONS`.
        distortion_probabilities: Category -> probability in 0..1 that it is there.
        map: Path of the saliency map, relative to the table's folder, with forward slashes; None
            without one.
        content: SHA-256 of the file's bytes, hexadecimal; None where they cannot be read.
        model: Hash of the model, 16 hexadecimal digits.
        decoder: What decoded the clip; scores belong to a decoder. None where it failed.
        version: The version of lmme3dhf.
        seconds: Wall time: the row's share of its batch's. 0 where scores were copied from a file
            of the same content.
        outside_training: Aspects whose scores are far outside those that the model was trained
            on; where that is not given, by the scale alone. None where it failed.
        notes: What to know about how the clip was read (`data.video.Clip`); None where it failed.
        views: Where the three views were taken, as fractions of the clip; None for the usual
            places (`vocabulary.VIEWS`).

    Raises:
        ScoreError: A field has a wrong type or value.
    """

    file: str
    status: str
    reason: str | None = None
    message: str | None = None
    ratings: dict[str, Rating] = dataclasses.field(default_factory=dict)
    answers: dict[str, Answer] = dataclasses.field(default_factory=dict)
    distortions: tuple[str, ...] | None = None
    distortion_probabilities: dict[str, float] | None = None
    map: str | None = None
    content: str | None = None
    model: str | None = None
    decoder: str | None = None
    version: str | None = None
    seconds: float | None = None
    outside_training: tuple[str, ...] | None = None
    notes: tuple[str, ...] | None = None
    views: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not self.file:
            self._refuse("file", "a path")
        if self.status not in (OK, FAILED):
            self._refuse("status", f"{OK} or {FAILED}")
        for field in ("reason", "message", "map", "decoder", "version"):
            if not isinstance(getattr(self, field), str | None):
                self._refuse(field, "a text or null")
        if (self.status == FAILED) != bool(self.reason):
            self._refuse("reason", "a reason where the file failed, and none where it did not")
        if self.seconds is not None:
            if not is_finite(self.seconds):
                self._refuse("seconds", "a finite number, or null")
            object.__setattr__(self, "seconds", float(self.seconds))
        if (self.status == OK) != bool(self.ratings):
            self._refuse("ratings", "scores of an aspect where the file is ok, and none elsewhere")
        for name, rating in self.ratings.items():
            self._check_rating(name, rating)
        for name, answer in self.answers.items():
            if not (answer.probabilities and are_probabilities(answer.probabilities)):
                self._refuse(
                    f"{name}_probabilities", "an object of numbers in 0..1", answer.probabilities
                )
        given = self.distortion_probabilities
        if given is not None and not are_probabilities(given, DISTORTIONS):
            what = f"an object of {', '.join(DISTORTIONS)} with numbers in 0..1, or null"
            self._refuse("distortion_probabilities", what)
        if self.status == OK and self.outside_training is None:
            outside = [n for n, r in self.ratings.items() if is_outside_training(r.score, r.scale)]
            object.__setattr__(self, "outside_training", outside)
        if self.status == OK and self.notes is None:
            object.__setattr__(self, "notes", ())
        for field, words in (("distortions", DISTORTIONS), ("outside_training", self.ratings)):
            self._check_list(field, words.__contains__, f"texts out of {', '.join(words)}")
        self._check_list("notes", lambda note: isinstance(note, str), "texts")
        self._check_list("views", is_finite, "fractions of the clip")
        if self.views == _USUAL:
            object.__setattr__(self, "views", None)
        for field, form in _HASHES.items():
            value = getattr(self, field)
            if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
                self._refuse(field, f"{form.pattern[-3:-1]} hexadecimal digits, or null")

    def _check_rating(self, name: str, rating: Rating) -> None:
        if not is_finite(rating.score):
            self._refuse(name, "a finite number, or null where the file failed", rating.score)
        words, given = rating.scale.levels, rating.level_probabilities
        if rating.level not in (*words, None):
            self._refuse(f"{name}_level", f"one of {', '.join(words)}, or null", rating.level)
        if given is not None and not are_probabilities(given, words):
            what = f"an object of {', '.join(words)} with numbers in 0..1, or null"
            self._refuse(f"{name}_probabilities", what, given)

    def _check_list(self, field: str, fits: Callable[[Any], bool], what: str) -> None:
        given = getattr(self, field)
        if given is None:
            return
        if not isinstance(given, tuple | list) or not all(map(fits, given)):
            self._refuse(field, f"a list of {what}, or null")
        object.__setattr__(self, field, tuple(given))

    def _refuse(self, field: str, expected: str, *given: object) -> None:
        value = given[0] if given else getattr(self, field)
        raise ScoreError(f"{field} of {self.file!r} is {value!r}, expected {expected}")


_FIELDS = tuple(field.name for field in dataclasses.fields(ScoreRow))
_AT = _FIELDS.index("ratings")
_FIRST, _LAST = _FIELDS[:_AT], _FIELDS[_AT + 2 :]
REQUIRED = ("file", "status")
# Tables without the fields that came later are read, and continued.
_LATER = ("outside_training", "notes", "views")
_LISTS = ("distortions", "outside_training", "notes")
_ENDS = ("_level", "_probabilities", "_scale")  # of an aspect's further columns


def fields_of(aspects: Mapping[str, Scale], questions: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns of a table.

    Args:
        aspects: Aspect -> scale.
        questions: Names of further questions.

    Raises:
        ScoreError: Two columns of one name.
    """
    fields = list(_FIRST)
    for name, scale in aspects.items():
        fields += [name, f"{name}_level", f"{name}_probabilities"]
        fields += [f"{name}_scale"] * (_as_stored(scale) != _as_stored(GEN3DHF_SCALE))
    for name in questions:
        fields += [f"{name}_answer", f"{name}_probabilities"]
    fields += _LAST
    twice = [field for field, count in Counter(fields).items() if count > 1]
    if twice:
        raise ScoreError(
            f"two columns {twice[0]!r} in a table of scores; give the aspect or question that "
            "makes it another name"
        )
    return tuple(fields)


def _as_stored(scale: Scale) -> dict[str, Any]:
    keys = ("minimum", "maximum", "higher_is_better", "levels")
    return {key: getattr(scale, key) for key in keys}


def _names(fields: Iterable[str]) -> tuple[list[str], list[str]]:
    """The aspects and the questions of a header. An aspect has a column with its name, and one
    with more about it; a table from which people removed the latter has the former alone.
    """
    own = [field for field in fields if field not in (*_FIRST, *_LAST)]
    aspects = [name for name in own if {name + end for end in _ENDS} & set(own)]
    if not any(name.endswith((*_ENDS, "_answer")) for name in own):
        aspects = own
    answers = [name for name in own if name.endswith("_answer") and name not in aspects]
    return aspects, [name.removesuffix("_answer") for name in answers]


def _check_fields(given: Iterable[str], where: str) -> None:
    given = list(given)
    aspects, questions = _names(given)
    known = [*_FIRST]
    known += [name + end for name in aspects for end in ("", *_ENDS)]
    known += [name + end for name in questions for end in ("_answer", "_probabilities")]
    check_fields(given, [*known, *_LAST], REQUIRED, where, ScoreError)


def row_of(assessment: Assessment, **about: Any) -> ScoreRow:
    """The row of a clip that has scores, rounded.

    Args:
        assessment: With ratings that have scores.
        **about: The other fields of the row: file, content, model, map, version, seconds, views.
    """
    ratings = {
        name: Rating(
            score=round(rating.score, digits(rating.scale, _SCORE_DIGITS)),
            level=rating.level,
            level_probabilities=_rounded(rating.level_probabilities),
            scale=Scale(**_as_stored(rating.scale)),
        )
        for name, rating in assessment.ratings.items()
    }
    answers = {n: Answer(_rounded(a.probabilities)) for n, a in assessment.answers.items()}
    return ScoreRow(
        status=OK,
        ratings=ratings,
        answers=answers,
        distortions=assessment.distortions,
        distortion_probabilities=_rounded(assessment.distortion_probabilities),
        decoder=assessment.decoder,
        outside_training=assessment.outside_training,
        notes=assessment.notes,
        **about,
    )


def _rounded(probabilities: Mapping[str, float] | None) -> dict[str, float] | None:
    if probabilities is None:
        return None
    return {word: round(p, _PROBABILITY_DIGITS) for word, p in probabilities.items()}


def _places(views: tuple[float, ...] | None) -> str:
    return ", ".join(f"{at:g}" for at in views or _USUAL)


# Reading


def read_scores(path: Path) -> list[ScoreRow]:
    """Reads the rows of a table, from its CSV or its JSONL file, in the order of the file.

    A last row that is not whole, of a table that is being written or was cut off, is passed over.
    In the CSV, names that are no UTF-8 have escapes in place of their odd bytes; the JSONL file has
    them exactly.

    Raises:
        ScoreError: With path and row: another suffix, no table of scores, an unknown or missing
            field, a wrong value, or a second row of one file and model.
        FileNotFoundError: No such file.
    """
    path = Path(path)
    read = {".csv": _read_csv, ".jsonl": _read_jsonl}.get(path.suffix.lower())
    if read is None:
        raise ScoreError(f"{path}: expected a table of scores, that is a .csv or a .jsonl file")
    rows = read(path)
    _refuse_twice(path, rows)
    return rows


def _refuse_twice(path: Path, rows: Iterable[ScoreRow]) -> None:
    for (file, model), count in Counter((row.file, row.model) for row in rows).items():
        if count > 1:
            raise ScoreError(f"{path}: {count} rows of {file!r} by model {model}; keep one")


def _read_jsonl(path: Path) -> list[ScoreRow]:
    return [row for row, _ in _lines(path)]


def _lines(path: Path) -> list[tuple[ScoreRow, bytes]]:
    """Rows of a JSONL file with their lines (without line ends)."""
    return [
        (_row(lambda line=line: json.loads(line.decode("utf-8")), f"{path}:{number}"), line)
        for number, line in whole_lines(path)
    ]


def _read_csv(path: Path) -> list[ScoreRow]:
    header, rows = read_sheet(path, ScoreError, fits=_fits, exact=True)
    _check_fields(header, f"{path}:1")
    return [
        _row(lambda cells=cells: _content(dict(zip(header, cells, strict=True))), f"{path}:{line}")
        for line, cells in rows
    ]


def _fits(header: tuple[str, ...]) -> bool:
    return set(REQUIRED) <= set(header)


def _row(content: Callable[[], object], where: str) -> ScoreRow:
    try:
        fields = content()
    except ValueError as error:  # not UTF-8, not JSON, not a number
        raise ScoreError(f"{where}: cannot be read ({error}); expected a row of scores") from error
    if not isinstance(fields, dict):
        raise ScoreError(f"{where}: {type(fields).__name__} instead of a JSON object a line")
    _check_fields(fields, where)
    try:
        return _row_of_fields(fields)
    except (ScoreError, AspectError) as error:
        raise ScoreError(f"{where}: {error}") from error


def _row_of_fields(fields: Mapping[str, Any]) -> ScoreRow:
    """Undoes `_flat`."""
    aspects, questions = _names(fields)
    ratings = {}
    for name in aspects if fields["status"] == OK else ():
        try:
            scale = Scale(**(fields.get(f"{name}_scale") or {}))
        except TypeError as error:
            raise ScoreError(f"{name}_scale: {error}; expected {_as_stored(Scale())}") from error
        score = fields[name]
        ratings[name] = Rating(
            score=float(score) if is_finite(score) else score,
            level=fields.get(f"{name}_level"),
            level_probabilities=fields.get(f"{name}_probabilities"),
            scale=scale,
        )
    answers = {
        name: Answer(fields[f"{name}_probabilities"])
        for name in questions
        if fields.get(f"{name}_probabilities")
    }
    own = {field: fields[field] for field in (*_FIRST, *_LAST) if field in fields}
    return ScoreRow(**own, ratings=ratings, answers=answers)


def _flat(row: ScoreRow, fields: Iterable[str]) -> dict[str, Any]:
    """A row as these columns have it."""
    flat = {field: getattr(row, field) for field in (*_FIRST, *_LAST)}
    for name, rating in row.ratings.items():
        flat[name], flat[f"{name}_level"] = rating.score, rating.level
        flat[f"{name}_probabilities"] = rating.level_probabilities
        flat[f"{name}_scale"] = _as_stored(rating.scale)
    for name, answer in row.answers.items():
        flat[f"{name}_answer"] = answer.likeliest
        flat[f"{name}_probabilities"] = answer.probabilities
    return {field: flat.get(field) for field in fields}


# The CSV file


def scores_csv(rows: Iterable[ScoreRow], fields: Sequence[str]) -> bytes:
    """A whole CSV file: the header, and a line for each row.

    Args:
        rows: The rows.
        fields: Its columns (`fields_of`).
    """
    return _csv_lines([fields, *(_cells(row, fields) for row in rows)])


def _cells(row: ScoreRow, fields: Sequence[str]) -> list[str]:
    cells = []
    for field, value in _flat(row, fields).items():
        if value is None:
            cells.append("")
        elif field in _LISTS:
            cells.append("; ".join(value))
        elif isinstance(value, dict | tuple):
            cells.append(json.dumps(value))
        else:
            cells.append(value if isinstance(value, str) else repr(value))
    return cells


def _content(cells: Mapping[str, str]) -> dict[str, object]:
    """Undoes `_cells`."""
    content: dict[str, object] = {}
    numbers = ("seconds", *_names(cells)[0])
    for field, text in cells.items():
        if field in _LISTS:
            named = tuple(text.split("; ")) if text else ()
            content[field] = named if text or cells["status"] == OK else None
        elif not text:
            content[field] = None
        elif field in numbers:
            content[field] = float(text)
        else:
            stored = field == "views" or field.endswith(("_probabilities", "_scale"))
            content[field] = json.loads(text) if stored else text
    return content


def _csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
    return csv_lines(rows).encode("utf-8", "backslashreplace")


# Writing


def table_files(out: Path) -> tuple[Path, Path]:
    """The JSONL and the CSV file of a table that is named by either.

    Raises:
        ScoreError: Another suffix.
    """
    if out.suffix not in (".csv", ".jsonl"):
        raise ScoreError(f"{out}: a table of scores is a .csv and a .jsonl file; name one of them")
    return out.with_suffix(".jsonl"), out.with_suffix(".csv")


def append_row(file: BinaryIO, row: ScoreRow) -> None:
    """Adds a row to a JSONL file; when this returns, it is on the disk."""
    scales = {name: rating.scale for name, rating in row.ratings.items()}
    append(file, json_line(_flat(row, fields_of(scales, row.answers))))


class ScoreTable(RecordFile[str, ScoreRow]):
    """A table that is open for writing, by one process at a time (see `jsonl.RecordFile`); the CSV
    file is made from the record on opening.

    Args:
        out: Either file of the table; both and their folder are made where they are missing.
        model: Hash of the model whose rows these are.
        decoders: What decodes clips and pictures here.
        aspects: Aspect -> scale of what the model rates.
        questions: Names of the further questions.
        views: Where the views are taken, as in a row.

    Attributes:
        rows: Path as given -> row, in the order of the table.

    Raises:
        ScoreError: On opening: another process has it open; it was written by another model or
            decoder, with other aspects, questions, views or another layout; or one of the files is
            something else.
    """

    error = ScoreError

    def __init__(
        self,
        out: Path,
        *,
        model: str,
        decoders: Collection[str],
        aspects: Mapping[str, Scale],
        questions: Iterable[str] = (),
        views: tuple[float, ...] | None = None,
    ) -> None:
        record, self.sheet = table_files(out)
        super().__init__(record)
        self.fields = fields_of(aspects, questions)
        self.model, self.decoders, self.views = model, decoders, views

    def append(self, *records: ScoreRow) -> None:
        """Adds rows to both files; when this returns, they are on the disk.

        Raises:
            ScoreError: The table has a row of this file, or the row is of another model.
        """
        for row in records:
            self._check_row(row)
        # The record first: a row that is in the CSV file alone would be lost.
        super().append(*records)
        append(self._open[1], _csv_lines(_cells(row, self.fields) for row in records))

    def _read(self) -> Iterator[tuple[ScoreRow, bytes]]:
        self._check_sheet()
        self._check_record()
        for row, line in _lines(self.record) if self.record.exists() else ():
            self._check_row(row)
            yield row, line

    def _key(self, record: ScoreRow) -> str:
        return record.file

    def _content(self, record: ScoreRow) -> dict[str, Any]:
        return _flat(record, self.fields)

    def _files(self) -> tuple[Path, ...]:
        return self.record, self.sheet

    def _check_sheet(self) -> None:
        """Refuses to write over a CSV file that is not made from the record."""
        if not self.sheet.exists():
            return
        header = sheet_header(self.sheet, ScoreError, _fits)
        if header not in self._layouts():
            raise self._foreign(self.sheet, header)
        if not self.record.exists():
            raise ScoreError(
                f"{self.sheet} is there without {self.record.name}, from which the table goes on; "
                f"restore that, or {_ELSEWHERE}"
            )

    def _check_record(self) -> None:
        """Refuses to write over rows of another kind or version."""
        if not self.record.exists():
            return
        with self.record.open("rb") as file:
            first = file.readline()
        try:
            fields = tuple(json.loads(first))
        except (ValueError, TypeError):  # refused with its place when all rows are read
            return
        if fields not in self._layouts():
            raise self._foreign(self.record, fields)

    def _layouts(self) -> tuple[tuple[str, ...], ...]:
        """The fields of this table, and those of one that an earlier version wrote."""
        return self.fields, tuple(field for field in self.fields if field not in _LATER)

    def _foreign(self, path: Path, found: Iterable[str]) -> ScoreError:
        return ScoreError(
            f"{path}: a table of other aspects, questions or another version: its fields are "
            f"{','.join(map(str, found))[:500]}, expected {','.join(self.fields)}; {_ELSEWHERE}"
        )

    def _check_row(self, row: ScoreRow) -> None:
        if row.model != self.model:
            raise ScoreError(
                f"{self.record}: its rows are of model {row.model}, this is model {self.model} "
                f"(another folder, other weights, or another --load); {_ELSEWHERE}"
            )
        if row.decoder not in (None, *self.decoders):
            raise ScoreError(
                f"{self.record}: its clips were decoded by {row.decoder}, here by "
                f"{' and '.join(self.decoders)}; {_ELSEWHERE}"
            )
        if row.views != self.views:
            raise ScoreError(
                f"{self.record}: its views were taken at {_places(row.views)} of a clip, here at "
                f"{_places(self.views)}; give the same --views, or {_ELSEWHERE}"
            )

    def _replace(self) -> None:
        # The record first: a CSV file without one is refused on opening.
        super()._replace()
        replace_file(self.sheet, scores_csv(self.rows.values(), self.fields))
