"""Files that are whole or not there."""

import csv
import hashlib
import io
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from lmme3dhf import files
from lmme3dhf.files import (
    MANIFEST,
    ChangedError,
    Hashes,
    csv_cells,
    csv_lines,
    csv_text,
    damage,
    file_hash,
    file_state,
    hashes_file,
    is_inside,
    read_unchanged,
    replace_file,
    write_manifest,
)


def test_file_hash_is_that_of_the_bytes(tmp_path):
    """The published SHA-256 of "abc"; a file larger than one block catches a hash of the first
    block only.
    """
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    assert (
        file_hash(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert file_hash(tmp_path / "large") == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_replace_file_leaves_nothing_beside_the_file(tmp_path):
    """Catches temporary files that stay behind, and a second write that appends."""
    target = tmp_path / "folder" / "file.txt"
    replace_file(target, "first, and longer")
    replace_file(target, "second")
    assert target.read_text() == "second"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_every_kind_of_damage_is_told(tmp_path):
    """A folder without manifest, a missing, a cut and a changed file: each was a silent resume in
    plain Trainer checkpoints.
    """
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"weights")
    assert "no manifest" in damage(tmp_path)
    write_manifest(tmp_path)
    assert damage(tmp_path) is None
    (tmp_path / "sub" / "b").write_bytes(b"weightz")
    assert "sub/b is not what was written" in damage(tmp_path)
    (tmp_path / "sub" / "b").write_bytes(b"weig")
    assert "has 4 bytes, expected 7" in damage(tmp_path)
    (tmp_path / "sub" / "b").unlink()
    assert "sub/b is missing" in damage(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"other": 1}))
    assert "cannot be read" in damage(tmp_path)


# Hashes that are remembered


@pytest.fixture
def read(monkeypatch, tmp_path) -> list[Path]:
    """The files that are read, with an empty memory that keeps the youngest file too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_SETTLED_NS", -(10**12))
    paths = []
    monkeypatch.setattr(files, "file_hash", lambda path: paths.append(path) or file_hash(path))
    return paths


@pytest.fixture
def three(tmp_path) -> list[Path]:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


def test_a_file_is_read_once(three, read):
    """By any path to it. Catches a memory that another run does not find, and one that writes
    down where a user's files are.
    """
    expected = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in three}
    assert Hashes().of(three) == expected
    assert Hashes().of([three[0].parent / "." / "a", *three[1:]]) == expected
    assert sorted(read) == three
    assert str(three[0].parent) not in hashes_file().read_text()


@pytest.mark.parametrize("change", ["in place", "by rename", "time alone"])
def test_a_file_that_changed_is_read_again(three, read, change):
    """With its size, and with its time where a program can set it. Catches a hash of what was
    there before.
    """
    hashes = Hashes()
    hashes.of(three)
    stat = three[1].stat()
    time.sleep(0.02)  # longer than the resolution of a file's times
    if change == "in place":
        three[1].write_bytes(b"x" * 1000)
    elif change == "by rename":
        (three[1].parent / "new").write_bytes(b"x" * 1000)
        os.replace(three[1].parent / "new", three[1])
    os.utime(three[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    read.clear()
    for known in (lambda: hashes, Hashes):
        assert known().of(three)[three[1]] == hashlib.sha256(three[1].read_bytes()).hexdigest()
    assert read == [three[1]]


def test_the_hash_of_a_young_file_is_not_kept(three, read, monkeypatch):
    """It may change twice within the resolution of its times. Catches the hash of its first
    version, kept for ever.
    """
    monkeypatch.setattr(files, "_SETTLED_NS", 10**12)
    Hashes().of(three)
    Hashes().of(three)
    assert len(read) == 6


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 3}', '{"a": ["b"]}', "\x00", '{"a": [1, 2]'])
def test_a_damaged_memory_only_costs_time(three, read, content):
    """Catches a start that fails on a file that nobody needs."""
    replace_file(hashes_file(), content)
    assert Hashes().of(three)[three[0]] == file_hash(three[0])
    Hashes().of(three)
    assert len(read) == 3


@pytest.mark.parametrize("home", ["no folder", "nobody's", "relative"])
def test_without_a_cache_folder_nothing_is_remembered(three, read, monkeypatch, tmp_path, home):
    """Catches a run that dies where it may not write, and files in the working directory."""
    (tmp_path / "file").touch()
    if home == "no folder":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "cache" if home == "relative" else "")
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert Hashes().of(three)[three[2]] == file_hash(three[2])
    assert len(read) == 6
    assert not (tmp_path / "cache").exists()


def _remember(paths: list[Path]) -> None:
    for path in paths:
        Hashes().of([path])


def test_several_processes_remember_at_once(tmp_path, read):
    """Catches a memory that is half one process's and half another's: every file is whole, and
    nothing in it is wrong.
    """
    paths = [tmp_path / f"file{n}" for n in range(60)]
    for path in paths:
        path.write_bytes(path.name.encode())
    fork = multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_remember, args=(paths[n::3],)) for n in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    kept = json.loads(hashes_file().read_bytes())
    assert len(kept) >= 20
    known = {hashlib.sha256(path.name.encode()).hexdigest() for path in paths}
    assert {entry[-1] for entry in kept.values()} <= known
    assert list(Hashes().of(paths).values()) == [file_hash(path) for path in paths]


def test_damage_is_looked_for_on_the_disk_unless_hashes_are_given(tmp_path, read, monkeypatch):
    """A disk may change a file without its times. Catches a check that only asks the memory, and
    one at each start that reads everything.
    """
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"weights")
    write_manifest(folder)
    read.clear()
    assert damage(folder, Hashes()) is None
    assert damage(folder, Hashes()) is None
    assert read == [folder / "a"]
    monkeypatch.setattr(files, "file_hash", lambda path: "0" * 64)
    assert damage(folder, Hashes()) is None
    assert "a is not what was written" in damage(folder)


TEXTS = ["", "a", "'", "''", "'a", "=1", "'=1", "-1", "-1 ", "+1e5", "-", "@x", " =1", "\t=1"]
TEXTS += [
    "\r=1",
    "a\r=1",
    "a\n=1",
    'a"b',
    "a,b",
    "\uff1d1",
    "-1+cmd|' /C calc'!A0",
    "\u202ea",
    "inf",
]


def test_what_is_written_into_a_cell_comes_back(tmp_path):
    """Catches an apostrophe that stays or that was somebody's own, a cell that a line end cuts, and
    a number that becomes a text.
    """
    for end in ("\r\n", "\n"):
        lines = csv_lines(([text, text] for text in TEXTS), end)
        rows = map(csv_cells, csv.reader(io.StringIO(lines, newline="")))
        assert list(rows) == [[text, text] for text in TEXTS]
    assert csv_text(["n"], [["\udcff"]]) == "n\n\\udcff\n"
    numbers = csv_text(["n"], [[-3.25], [float("nan")], [None], ["-3.25"], [7]])
    assert numbers == 'n\n-3.25\n""\n""\n-3.25\n7\n'


def test_no_cell_is_a_formula():
    """Nor is what a spreadsheet would take for a row of its own, behind a line end of any kind."""
    written = csv_text(["=header"], [[text] for text in TEXTS])
    cells = [cell for row in csv.reader(io.StringIO(written, newline="")) for cell in row]
    assert len(cells) == len(TEXTS) + 1
    for cell in cells:
        formula = cell.strip()[:1] in tuple("=+-@\uff1d") and cell not in ("-1", "+1e5")
        assert not formula, cell


def test_a_file_is_read_again_until_it_holds_still(tmp_path):
    """Changed during the first of two readings; then during every one. Catches the old hash with
    the new content, and a loop without end.
    """
    path = tmp_path / "file"
    path.write_text("old")
    seen = []

    def read() -> str:
        seen.append(path.read_text())
        if len(seen) == 1:
            path.write_text("new")
        return seen[-1]

    value, state = read_unchanged(path, file_state(path), read)
    assert (value, seen) == ("new", ["old", "new"])
    assert state.content == hashlib.sha256(b"new").hexdigest()
    with pytest.raises(ChangedError, match=f"{path} changed .* again"):
        read_unchanged(path, file_state(path), lambda: path.write_text(path.read_text() + "x"))


def test_only_regular_files_have_a_state(tmp_path):
    """Catches a pipe that is waited for."""
    os.mkfifo(tmp_path / "pipe")
    assert file_state(tmp_path / "pipe") is None
    assert file_state(tmp_path / "absent") is None
    assert file_state(tmp_path) is None


def test_a_folder_may_be_a_link_but_none_in_it_leads_out(tmp_path):
    """Catches "..", an absolute path and a link that are taken for inside."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    (real / "out").symlink_to(tmp_path)
    (real / "in").symlink_to(real / "file")
    for name in ("file", "in", "more/../file"):
        assert is_inside(link / name, link)
        assert is_inside(link / name, real)
    for name in ("../file", "out/file", "/etc/passwd", "more/../../file"):
        assert not is_inside(link / name, link)
