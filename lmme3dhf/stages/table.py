"""A finished model on files -> the table of scores (`lmme3dhf.scores`), which the same command goes
on with.

Rows are keyed by the content of the file and the model. A file whose row stands is passed over; one
whose bytes changed since is scored anew; one with the content of another gets that one's scores
without running the model. The content in a row is that of the bytes that were decoded: a file that
changes meanwhile is read again. Failures stay, but for those of the moment: a file that was missing
is looked for again, and `TRIED_AGAIN`.

With several processes (`distributed`) each scores its share into a hidden part beside the table,
which the main one puts into the table at the end, or the next command where this one was killed.
"""

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

from lmme3dhf import __version__, distributed
from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.aspects import Aspects
from lmme3dhf.assessment import Assessment, Failure, Question
from lmme3dhf.data import container, strips
from lmme3dhf.data.samples import DataError
from lmme3dhf.errors import format_error
from lmme3dhf.files import ChangedError, FileState, file_state, read_unchanged
from lmme3dhf.jsonl import RecordFile, part_file, part_files
from lmme3dhf.models.folder import model_hash
from lmme3dhf.predictions import Prediction
from lmme3dhf.progress import with_progress
from lmme3dhf.scorer import Scorer
from lmme3dhf.scores import (
    FAILED,
    OK,
    ScoreRow,
    ScoreTable,
    append_row,
    read_scores,
    row_of,
    table_files,
)

_File = TypeVar("_File", bound=RecordFile[Any, Any])
# Of clips, and of pictures with three views.
DECODERS = (container.DECODER, strips.DECODER)
# Reasons that may be gone the next time.
MISSING, CHANGED = "missing", "changed"
TRIED_AGAIN = ("time_out", "out_of_memory", CHANGED)
# A name on disk has at most 255 bytes, and a character at most four of them.
_STEM_CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How a command's files stand when it ends.

    Attributes:
        good: Files with scores.
        failed: Reason -> number of files.
        resumed: How many of both had their row before.
        left: Files without a row, where the first failure ended the command.
        flagged: Files whose scores are far outside those of training.
        noted: Files with notes.
    """

    good: int
    failed: dict[str, int]
    resumed: int
    left: int
    flagged: int = 0
    noted: int = 0

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.failed.items())
        said = f"{self.good} files scored, {sum(self.failed.values())} not"
        said += f" ({reasons}; their rows say why)" if self.failed else ""
        if self.flagged:
            said += (
                f"; {self.flagged} flagged as unlike the training clips (column outside_training)"
            )
        said += f"; {self.noted} with notes (column notes)" if self.noted else ""
        said += f"; {self.resumed} of these rows were there before" if self.resumed else ""
        return said + (f"; {self.left} files left out after the failure" if self.left else "")


def model_key(
    folder: Path, load: str | None = None, questions: Mapping[str, Question] | None = None
) -> str:
    """The hash of a model in its rows: 16 hexadecimal digits for all that decides a score, weights
    that are rounded on loading included. Rank 0 reads the files; every rank has to ask.

    Args:
        folder: Folder of a merged model.
        load: "8bit" and "4bit" give other scores, and so another key.
        questions: Further questions, whose answers are in the rows.
    """
    digest = distributed.on_main(lambda: model_hash(folder))
    if load in ("8bit", "4bit"):
        digest = hashlib.sha256(f"{digest} {load}".encode()).hexdigest()
    if questions:
        digest = hashlib.sha256(f"{digest} {sorted(questions.items())}".encode()).hexdigest()
    return digest[:16]


def maps_beside(out: Path) -> Path:
    """Where a table's maps lie unless they are sent elsewhere."""
    return out.with_name(f"{out.stem}_maps")


def score_files(
    load: Callable[[], Scorer],
    files: Sequence[Path],
    out: Path,
    *,
    model: str,
    aspects: Aspects,
    questions: Mapping[str, Question] | None = None,
    maps: Path | None = None,
    views: tuple[float, ...] | None = None,
    fail_fast: bool = False,
) -> Tally:
    """Scores files and adds one row each to a table, failures included, as soon as it is known.

    Args:
        load: Gives the scorer; called only where there is something to score.
        files: The clips. The table's own files and maps among them are left out.
        out: Either file of the table.
        model: The model's hash, from `model_key`.
        aspects: The model's, which the table has columns for.
        questions: Name -> further question on every clip, likewise.
        maps: Folder for the saliency maps; None writes none. Rows that stand keep their maps, or
            stay without.
        views: Where the scorer takes the three views; None for the usual places.
        fail_fast: End at the first new failure, with its row written; of several processes, each at
            its own.

    Returns:
        The tally, on every rank.

    Raises:
        ScoreError: Another process is writing the table, or it is not this model's table.
        DataError: No files, or the scorer gives no scores.
    """
    table_files(out)
    files = _without_own(distributed.all_gather(list(files))[0], out, maps)
    if not files:
        raise DataError(f"{out}: no files to score; give clips, or folders with clips")
    load = cache(load)
    about, options = {"model": model, "views": views}, {"maps": maps is not None}
    if questions:
        options["questions"] = questions
    scales = {name: aspect.scale for name, aspect in aspects.items()}
    columns = {"aspects": scales, "questions": questions or ()}
    with opened(ScoreTable(out, decoders=DECODERS, **columns, **about)) as table:
        states = file_states(files)
        resumed = 0
        if table is not None:
            _take_parts(table, states)
            table.forget(str(p) for p in files if not stands(table.rows.get(str(p)), states[p]))
            resumed = sum(str(path) in table.rows for path in files)
            if resumed:
                print(f"{out}: {resumed} of {len(files)} files have their row already", flush=True)
        left = tuple(files)
        while left:
            todo = _to_score(table, states) if table is not None else []
            todo = distributed.all_gather(todo)[0]
            mine = distributed.share(todo)
            with closing(_scored(load, mine, states, out, about, maps, options)) as rows:
                if distributed.world_size() == 1:
                    _fill(table, states, _in_turn(rows, todo), fail_fast=fail_fast)
                else:
                    _write_part(out, rows, len(mine), fail_fast=fail_fast)
            distributed.barrier()
            left = ()
            if table is not None:
                _take_parts(table, states)
                if not fail_fast:
                    left = tuple(path for path in files if str(path) not in table.rows)
            # One that was to share the scores of another, which has changed since, has none yet.
            left = distributed.all_gather(left)[0]
            states = file_states(left)
        tally = _tally(table.rows, files, resumed) if table is not None else None
        return distributed.all_gather(tally)[0]


def _without_own(files: Iterable[Path], out: Path, maps: Path | None) -> list[Path]:
    """The files without those that the table itself leaves in a folder; each once."""
    own = {os.path.realpath(path) for path in (*table_files(out), maps_beside(out), maps or out)}
    kept = {}
    for path in files:
        real = Path(os.path.realpath(path))
        if not own & {str(real), *map(str, real.parents)}:
            kept[path] = None
    return list(kept)


def file_states(files: Sequence[Path]) -> dict[Path, FileState | None]:
    """File -> its bytes and identity, on every rank; None where they cannot be read."""
    if not files:
        return {}
    mine = distributed.share(files)
    read = with_progress(mine, distributed.named("reading files"), len(mine))
    states = distributed.all_gather([file_state(path) for path in read])
    return dict(zip(files, distributed.interleave(states), strict=True))


def _content(state: FileState | None) -> str | None:
    return None if state is None else state.content


@contextmanager
def opened(file: _File) -> Iterator[_File | None]:
    """The open file on the main rank, None on the others; why it cannot be opened on all."""
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(file)

        distributed.on_main(enter)
        yield file if distributed.is_main() else None


def stands(row: ScoreRow | Prediction | None, state: FileState | None) -> bool:
    """Whether a row is there that need not be made anew: the file is as it was, and a failure would
    come again.
    """
    if row is None:
        return False
    if row.reason == MISSING:  # and has just been looked for
        return state is None
    return row.content == _content(state) and row.reason not in TRIED_AGAIN


def _by_content(rows: Iterable[ScoreRow]) -> dict[str, ScoreRow]:
    passing = (MISSING, *TRIED_AGAIN)
    return {row.content: row for row in rows if row.content and row.reason not in passing}


def _to_score(table: ScoreTable, states: Mapping[Path, FileState | None]) -> list[Path]:
    """The files that need the model: the first of each content that the table does not know."""
    known: set[str | None] = set(_by_content(table.rows.values()))
    todo = []
    for path, state in states.items():
        content = _content(state)
        if str(path) not in table.rows and content not in known:
            todo.append(path)
            # Files that cannot be read have no content to share.
            known |= {content} - {None}
    return todo


def _in_turn(rows: Iterator[ScoreRow], files: Iterable[Path]) -> Callable[[Path], ScoreRow | None]:
    """Gives the next row for each of these files, in their order, and None for others."""
    waiting = set(files)
    return lambda path: next(rows) if path in waiting else None


def _fill(
    table: ScoreTable,
    states: Mapping[Path, FileState | None],
    scored: Callable[[Path], ScoreRow | None],
    *,
    fail_fast: bool = False,
) -> None:
    """Adds the missing rows in the order of the files.

    Args:
        table: The open table.
        states: File -> its state when it was looked at.
        scored: Gives a file's own row; None where it has none and may share another's.
        fail_fast: End after the first that failed.
    """
    known = _by_content(table.rows.values())
    pending = [path for path in states if str(path) not in table.rows]
    for path in with_progress(pending, "scoring", len(pending)):
        row, same = scored(path), known.get(_content(states[path]))
        if row is None and same is not None:
            row = _copied(same, path)
        if row is None:
            continue
        table.append(row)
        if row.content:
            known[row.content] = row
        if fail_fast and row.status == FAILED:
            return


def _copied(row: ScoreRow, path: Path) -> ScoreRow:
    """The row of a file with the same content; messages begin with the file."""
    message = row.message
    if message and message.startswith(row.file):
        message = f"{path}{message.removeprefix(row.file)}"
    return replace(row, file=str(path), message=message, seconds=0.0)


def _scored(
    load: Callable[[], Scorer],
    files: Sequence[Path],
    states: Mapping[Path, FileState | None],
    out: Path,
    about: Mapping[str, Any],
    maps: Path | None,
    options: Mapping[str, Any],
) -> Iterator[ScoreRow]:
    """Rows of files, in their order."""
    if not files:
        return
    scorer = load()
    if not scorer.scores:
        raise DataError("a scorer without scores cannot fill a table of scores; use predict")
    began = time.monotonic()
    remaining = iter(files)
    with closing(scorer.assess(files, **options)) as results:
        # The results of a batch are there at the same time.
        while batch := list(islice(results, scorer.batch_size)):
            now = time.monotonic()
            seconds, began = round((now - began) / len(batch), 3), now
            for result in batch:
                path = next(remaining)
                again = partial(scorer.assess, [path], **options)
                result, content = with_content(path, result, states[path], again)
                row = _row(path, result, content, out, about, maps=maps)
                yield replace(row, seconds=seconds)


def with_content(
    path: Path,
    result: Assessment | Failure,
    before: FileState | None,
    again: Callable[[], Iterable[Assessment | Failure]],
) -> tuple[Assessment | Failure, str | None]:
    """The result with the hash of the bytes that it is about.

    Args:
        path: The clip.
        result: From the first reading.
        before: The file's state before that.
        again: Reads and assesses the clip alone, for one that has changed since.
    """
    results = chain([result], (one for _ in count() for one in again()))
    try:
        found, state = read_unchanged(path, before, lambda: next(results))
    except ChangedError as error:
        return Failure(path, CHANGED, format_error(error)), None
    return found, _content(state)


def _row(
    path: Path,
    result: Assessment | Failure,
    content: str | None,
    out: Path,
    about: Mapping[str, Any],
    *,
    maps: Path | None,
) -> ScoreRow:
    about = {**about, "file": str(path), "content": content, "version": __version__}
    if isinstance(result, Failure):
        return ScoreRow(status=FAILED, reason=result.reason, message=result.message, **about)
    where = None
    if maps is not None and result.saliency is not None:
        maps.mkdir(parents=True, exist_ok=True)
        # Files of one name differ in content, and two models, or other views, may share the folder.
        # A copied row keeps its map when the file that it was copied from changes.
        stem = re.sub(r"[^\w.-]", "_", path.stem)[:_STEM_CHARACTERS]
        at = "".join(f"_{place:g}" for place in about["views"] or ())
        picture = maps / f"{stem}_{str(content)[:12]}_{about['model'][:8]}{at}.png"
        write_saliency_png(picture, result.saliency)
        where = Path(os.path.relpath(picture, out.parent)).as_posix()
    return row_of(result, map=where, **about)


def _write_part(out: Path, rows: Iterator[ScoreRow], total: int, *, fail_fast: bool) -> None:
    """Writes this rank's rows."""
    with part_file(out, distributed.rank()).open("ab") as part:
        for row in with_progress(rows, distributed.named("scoring"), total):
            append_row(part, row)
            if fail_fast and row.status == FAILED:
                return


def _take_parts(table: ScoreTable, states: Mapping[Path, FileState | None]) -> None:
    """Puts the ranks' rows into the table in the order of the files, with those of files of the
    same content, and removes the parts.
    """
    parts = part_files(table.record)
    if not parts:
        return
    found = {row.file: row for part in parts for row in read_scores(part)}
    _fill(table, states, lambda path: found.get(str(path)))
    # Those of files that an earlier command had and this one has not.
    for row in found.values():
        if row.file not in table.rows:
            table.append(row)
    for part in parts:
        part.unlink()


def _tally(rows: Mapping[str, ScoreRow], files: Sequence[Path], resumed: int) -> Tally:
    there = [rows[str(path)] for path in files if str(path) in rows]
    failed = Counter(row.reason for row in there if row.status == FAILED)
    return Tally(
        good=sum(row.status == OK for row in there),
        failed=dict(sorted(failed.items())),
        resumed=resumed,
        left=len(files) - len(there),
        flagged=sum(bool(row.outside_training) for row in there),
        noted=sum(bool(row.notes) for row in there),
    )
