"""The table of scores as files: what is written comes back, whatever files are called and wherever
a process was killed.
"""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.container import DECODER
from lmme3dhf.scores import (
    ScoreError,
    ScoreRow,
    ScoreTable,
    read_scores,
    scores_csv,
    table_files,
)
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import GEN3DHF_FIELDS, score_row

SCALES = {name: aspect.scale for name, aspect in GEN3DHF.items()}
MODEL = "0123456789abcdef"
ROOT = Path(__file__).resolve().parents[1]
# From the lists of names that break tables: formulas of spreadsheets (OWASP, "CSV Injection"),
# separators, quotes, line ends of three systems, and letters of all lengths.
NAMES = (
    "plain.mp4",
    "=cmd|' /C calc'!A0.mp4",
    "+1.mp4",
    "-x.mp4",
    "-5",
    "@a.mp4",
    "\t=a.mp4",
    " =a.mp4",
    "\uff1da.mp4",
    "'quoted.mp4",
    "''=a.mp4",
    'say "a", b; c.mp4',
    "two\nlines.mp4",
    "old\rmac\r\nand.mp4",
    "\u2028separator\x85.mp4",
    "\u202egnp.mp4",
    "\u4eba\u8138.mp4",
    "\U0001f9d1\U0001f3fd\u200d\U0001f3a4.mp4",
    "x" * 251 + ".mp4",
    "null",
    "1e5",
    "{}.mp4",
)


def good(file: str, **changes) -> ScoreRow:
    """A row with everything in it."""
    return score_row(
        **{
            "file": file,
            "status": "ok",
            "quality": -3.25,
            "quality_level": "bad",
            "quality_probabilities": {level: 0.2 for level in LEVELS},
            "authenticity": 101.5,
            "authenticity_level": "excellent",
            "authenticity_probabilities": {LEVELS[0]: 1e-06, LEVELS[4]: 0.999999},
            "distortions": DISTORTIONS[:2],
            "distortion_probabilities": {name: 0.125 for name in DISTORTIONS},
            "map": f"scores_maps/{len(file)}.png",
            "content": "ab" * 32,
            "model": MODEL,
            "decoder": DECODER,
            "version": "1.0",
            "seconds": 0.25,
            **changes,
        }
    )


def failed(file: str, **changes) -> ScoreRow:
    """A row of a file that is no clip."""
    about = {"reason": "empty", "message": f"{file} has 0 bytes", "model": MODEL, "seconds": 0.0}
    return ScoreRow(file=file, status="failed", **(about | changes))


def opened(out: Path, model: str = MODEL, decoders: tuple[str, ...] = (DECODER,)) -> ScoreTable:
    return ScoreTable(out, model=model, decoders=decoders, aspects=SCALES)


def written(out: Path, *rows: ScoreRow) -> tuple[bytes, bytes]:
    """The bytes of both files."""
    with opened(out) as table:
        for row in rows:
            table.append(row)
    return tuple(path.read_bytes() for path in table_files(out))


# What is written comes back


def test_names_of_all_kinds_come_back_from_both_files(tmp_path):
    """Catches a name that shifts the columns, or is another one after reading; and a cell that a
    spreadsheet takes for a formula.
    """
    out = tmp_path / "scores.csv"
    rows = [make(name) for name in NAMES for make in (good,)]
    rows += [failed(f"{name} failed", message=f"{name} has 0 bytes") for name in NAMES]
    rows += [good("no distortion", distortions=()), good("unanswered", map=None)]
    written(out, *rows)
    assert read_scores(out) == rows
    assert read_scores(out.with_suffix(".jsonl")) == rows
    with out.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == GEN3DHF_FIELDS
    assert len(lines) == len(rows)
    for cell in (cell for line in lines for cell in line):
        assert not cell.lstrip().startswith(("=", "+", "@", "\uff1d")), cell
        if cell.startswith("-"):
            float(cell)


def test_scores_below_zero_stay_numbers(tmp_path):
    """Catches the guard against formulas on a number, which would become text."""
    out = tmp_path / "scores.csv"
    written(out, good("a"))
    (row,) = csv.DictReader(io.StringIO(out.read_text(encoding="utf-8")))
    assert (row["quality"], row["authenticity"]) == ("-3.25", "101.5")
    assert json.loads(row["quality_probabilities"])["bad"] == 0.2
    assert row["distortions"] == "Eye Distortions; Mouth Distortions"


def test_a_name_that_is_no_utf8_is_written(tmp_path):
    """As Python has such names from the disk. Catches a table that ends at the first one; the
    record keeps it exactly, the CSV can be read by anybody.
    """
    name = os.fsdecode(b"caf\xe9.mp4")
    out = tmp_path / "scores.csv"
    written(out, good(name), good("next"))
    assert [row.file for row in read_scores(out.with_suffix(".jsonl"))] == [name, "next"]
    assert [row.file for row in read_scores(out)] == ["caf\\udce9.mp4", "next"]
    out.read_text(encoding="utf-8")


def test_the_record_is_json_lines_in_the_order_of_the_fields(tmp_path):
    """Catches a header in the JSONL file, and fields in another order or under another name."""
    record, _ = written(tmp_path / "scores.csv", good("a"), failed("b"))
    assert record.count(b"\n") == 2
    for line in record.splitlines():
        assert tuple(json.loads(line)) == (
            *("file", "status", "reason", "message"),
            *("quality", "quality_level", "quality_probabilities"),
            *("authenticity", "authenticity_level", "authenticity_probabilities"),
            *("distortions", "distortion_probabilities"),
            *("map", "content", "model", "decoder", "version", "seconds"),
            *("outside_training", "notes", "views"),
        )
    first = json.loads(record.splitlines()[0])
    assert (first["quality"], first["authenticity_level"], first["seconds"]) == (
        *(-3.25, "excellent"),
        0.25,
    )


LATER = ("outside_training", "notes", "views")


def as_of_before(record: bytes, sheet: bytes) -> tuple[bytes, bytes]:
    """The files of a table as they were before the columns `LATER`."""
    lines = [json.loads(line) for line in record.splitlines()]
    lines = [{key: fields[key] for key in fields if key not in LATER} for fields in lines]
    rows = [row[: -len(LATER)] for row in csv.reader(io.StringIO(sheet.decode(), newline=""))]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines), text.getvalue().encode()


def test_an_older_table_is_read_and_continued(tmp_path):
    """Of a version without notes and views. Catches hours of scores that have to be made again, a
    flag that old rows cannot have, and lines of the record that change.
    """
    out = tmp_path / "scores.csv"
    rows = [good("a", quality=178.56), failed("b")]
    record, sheet = as_of_before(*written(out, *rows))
    out.with_suffix(".jsonl").write_bytes(record)
    out.write_bytes(sheet)
    assert read_scores(out) == read_scores(out.with_suffix(".jsonl")) == rows
    assert read_scores(out)[0].outside_training == ("quality",)
    with opened(out) as table:
        table.append(good("c", notes=("a note", "another"), outside_training=()))
    assert out.with_suffix(".jsonl").read_bytes().startswith(record)
    again = read_scores(out)
    assert again == read_scores(out.with_suffix(".jsonl"))
    assert [row.notes for row in again] == [(), None, ("a note", "another")]


def test_a_table_of_other_views_is_refused(tmp_path):
    """Catches maps of two kinds of views in one table; the usual places are the default."""
    out = tmp_path / "scores.csv"
    elsewhere = (0.875, 0.0, 0.125)
    with ScoreTable(
        out, model=MODEL, decoders=(DECODER,), aspects=SCALES, views=elsewhere
    ) as table:
        table.append(good("a", views=elsewhere))
        table.append(failed("b", views=elsewhere))
    assert [row.views for row in read_scores(out)] == [elsewhere] * 2
    assert read_scores(out) == read_scores(out.with_suffix(".jsonl"))
    with pytest.raises(ScoreError, match=r"0\.875, 0, 0\.125 of .*0\.25, 0\.5, 0\.75.*--views"):
        opened(out).__enter__()
    assert good("a", views=(0.25, 0.5, 0.75)).views is None


# Killed at any byte


def test_a_record_cut_at_any_byte_goes_on(tmp_path):
    """The record and the CSV cut at every byte of the last two rows, each for itself. Catches a row
    that is lost though whole, half a row that stays, and rows before it that change.
    """
    rows = [good("a"), failed("=b\n"), good("c")]
    record, sheet = written(tmp_path / "whole.csv", *rows)
    ends = [i + 1 for i, byte in enumerate(record) if byte == ord("\n")]
    for cut in range(ends[0], len(record) + 1):
        out = tmp_path / "scores.csv"
        out.with_suffix(".jsonl").write_bytes(record[:cut])
        out.write_bytes(sheet[: max(len(scores_csv([], GEN3DHF_FIELDS)), cut)])
        # A row that lacks its line end alone is whole.
        whole = sum(end - 1 <= cut for end in ends)
        assert read_scores(out.with_suffix(".jsonl")) == rows[:whole]
        with opened(out) as table:
            assert list(table.rows.values()) == rows[:whole]
            assert out.read_bytes() == scores_csv(rows[:whole], GEN3DHF_FIELDS)
            for row in rows[whole:]:
                table.append(row)
        assert out.with_suffix(".jsonl").read_bytes() == record
        assert out.read_bytes() == sheet


def test_a_csv_file_that_is_being_written_can_be_read(tmp_path):
    """Catches a report on a running table that fails at the row that is not whole yet."""
    rows = [good("a"), good("b\nc")]
    _, sheet = written(tmp_path / "whole.csv", *rows)
    out = tmp_path / "scores.csv"
    for cut in range(len(scores_csv(rows[:1], GEN3DHF_FIELDS)), len(sheet)):
        out.write_bytes(sheet[:cut])
        assert read_scores(out)[0] == rows[0]


def test_rows_are_on_the_disk_one_by_one(tmp_path):
    """Killed with no chance to write. Catches rows that wait in a buffer."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.test_scores import good, opened\n"
        "with opened(Path(sys.argv[1])) as table:\n"
        "    table.append(good('a'))\n"
        "    table.append(good('b'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    out = tmp_path / "scores.csv"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT, timeout=60)
    assert done.returncode == -9
    assert read_scores(out) == read_scores(out.with_suffix(".jsonl")) == [good("a"), good("b")]
    written(out, good("c"))
    assert len(read_scores(out)) == 3


def test_rows_that_are_forgotten_leave_the_others_as_they_are(tmp_path):
    """Byte for byte, also a line that somebody else wrote. Catches a record that is written anew
    from what was understood of it.
    """
    out = tmp_path / "scores.csv"
    record, _ = written(out, good("a"), failed("b"), good("c"))
    lines = [line.replace(b'": ', b'":  ') for line in record.splitlines(keepends=True)]
    out.with_suffix(".jsonl").write_bytes(b"".join(lines))
    with opened(out) as table:
        table.forget(["b", "never there"])
        table.append(good("b"))
    assert out.with_suffix(".jsonl").read_bytes().startswith(lines[0] + lines[2])
    assert [row.file for row in read_scores(out)] == ["a", "c", "b"]


# What is refused


def test_a_second_process_is_refused(tmp_path):
    """Catches two writers, whose rows would mix."""
    out = tmp_path / "scores.csv"
    with opened(out) as table:
        with pytest.raises(ScoreError, match="another process is writing it"):
            opened(out.with_suffix(".jsonl")).__enter__()
        table.append(good("a"))
    assert len(written(out, good("b"))[0].splitlines()) == 2


def test_a_table_of_something_else_is_refused_and_left_alone(tmp_path):
    """Another model, decoder, version or kind of file: the sentence names what is there and what
    was expected. Catches mixed rows, and a file of somebody that is written over.
    """
    out = tmp_path / "scores.csv"
    record, sheet = written(out, good("a"))
    line = json.loads(record)
    other = "f" * 16
    cases = [
        (record, sheet, {"model": other}, (MODEL, other)),
        (record, sheet, {"decoders": ("decord", "pillow")}, (DECODER, "decord and pillow")),
        (json.dumps(line | {"mood": 1}).encode() + b"\n", sheet, {}, ("views,mood", "views;")),
        (b'{"video": "a"}\n', None, {}, ("fields are video,", "file,status")),
        (record, b"file,status,reason\r\n", {}, ("file,status,reason,", "message,quality")),
        (None, sheet, {}, ("scores.jsonl", "without")),
        (b"no row\n" + record, sheet, {}, ("scores.jsonl:1", "expected a row of scores")),
        (record + record, sheet, {}, ("two rows of 'a'", "keep one")),
    ]
    for content, table, options, named in cases:
        for path, data in zip(table_files(out), (content, table), strict=True):
            path.unlink(missing_ok=True)
            if data is not None:
                path.write_bytes(data)
        before = {path.name: path.read_bytes() for path in tmp_path.glob("scores*")}
        with pytest.raises(ScoreError) as refused:
            opened(out, **options).__enter__()
        assert all(part in str(refused.value) for part in named), refused.value
        assert {path.name: path.read_bytes() for path in tmp_path.glob("scores*")} == before
        # The lock is free again.
    written(tmp_path / "another.csv", good("a"))


def test_another_suffix_is_refused(tmp_path):
    """Catches `--out scores`, of which nobody knows which of the two files it is."""
    for name in ("scores", "scores.xlsx"):
        with pytest.raises(ScoreError, match=r"\.csv and a \.jsonl file"):
            table_files(tmp_path / name)
        with pytest.raises(ScoreError, match=r"\.csv or a \.jsonl file"):
            read_scores(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "fine"}, "expected ok or failed"),
        ({"quality": float("nan")}, "expected a finite number"),
        ({"quality": None}, "expected a finite number"),
        ({"reason": "empty"}, "reason of 'a'"),
        ({"quality_level": "great"}, "one of bad, poor"),
        ({"quality_probabilities": {"bad": 1.5}}, "numbers in 0..1"),
        ({"distortions": ("Wings",)}, "texts out of"),
        ({"content": "abc"}, "64 hexadecimal digits"),
        ({"model": "ABC"}, "16 hexadecimal digits"),
        ({"file": ""}, "expected a path"),
    ],
)
def test_a_value_that_cannot_be_is_refused(change, told):
    """Catches a table that holds what no reader can use."""
    with pytest.raises(ScoreError, match=told):
        good(**{"file": "a", **change})


def test_damaged_tables_are_refused_with_their_place(tmp_path):
    """Catches a traceback, and a row that is passed over in silence."""
    out = tmp_path / "scores.csv"
    record, sheet = written(out, good("a"), good("b"))
    lines = sheet.splitlines(keepends=True)
    for data, told in (
        (b"", "field 'file' is missing"),
        (b"name,score\r\na,1\r\n", "field 'file' is missing"),
        (lines[0].replace(b"map", b"mapp") + lines[1], "unknown field 'mapp'; the nearest.*'map'"),
        (lines[0] + b"a,ok\r\n" + lines[1], ":2: 2 cells, expected 21"),
        (sheet.replace(b"-3.25", b"many", 1), ":2: cannot be read"),
        (sheet + lines[1], "2 rows of 'a'"),
    ):
        out.write_bytes(data)
        with pytest.raises(ScoreError, match=told):
            read_scores(out)
    for data, told in (
        (b"[]\n", ":1: list instead of"),
        (b"\xff\n" + record, ":1: cannot be read"),
        (record + record.splitlines(keepends=True)[0], "2 rows of 'a'"),
    ):
        out.with_suffix(".jsonl").write_bytes(data)
        with pytest.raises(ScoreError, match=told):
            read_scores(out.with_suffix(".jsonl"))


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    """With the mark before the first column, columns left out, and an empty line at the end.
    Catches a first column under another name.
    """
    out = tmp_path / "scores.csv"
    out.write_bytes(b"\xef\xbb\xbffile,status,quality,authenticity\r\na,ok,1,2.5\r\n\r\n")
    assert read_scores(out) == [score_row(file="a", status="ok", quality=1, authenticity=2.5)]
