"""From assessments to the table of scores: which files are scored, which are passed over, and what
is left of a command that was killed.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf import distributed, scores
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.assessment import Assessment, Failure, Rating
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.sources import files_below
from lmme3dhf.files import FileState, file_hash, file_state, write_manifest
from lmme3dhf.scores import ScoreError, ScoreRow, append_row, read_scores
from lmme3dhf.stages import table as module
from lmme3dhf.stages.table import Tally, maps_beside, model_key
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import score_row

score_files = partial(module.score_files, aspects=GEN3DHF)
MODEL, OTHER = "0" * 16, "f" * 16
WORDS = dict.fromkeys(LEVELS, 0.2)


class FakeScorer:
    """Scores a file by the number in it; what holds no number fails for the reason it holds.

    Args:
        batch_size: Clips at a time.
        scores: Whether ratings have scores.
    """

    def __init__(self, batch_size: int = 2, scores: bool = True) -> None:
        self.batch_size, self.scores = batch_size, scores
        self.asked: list[str] = []

    def __call__(self) -> "FakeScorer":
        """Loads it."""
        return self

    def assess(self, paths, *, maps=True):
        """See `lmme3dhf.scorer.Scorer.assess`."""
        for path in paths:
            self.asked.append(path.name)
            told = path.read_text() if path.exists() else "missing"
            try:
                score = float(told)
            except ValueError:
                yield Failure(path, told, f"{path} is {told}; replace it")
                continue
            yield Assessment(
                path=path,
                ratings={
                    "quality": Rating(score=score, level="good", level_probabilities=WORDS),
                    "authenticity": Rating(score=-score, level="bad", level_probabilities=WORDS),
                },
                distortions=DISTORTIONS[:1],
                saliency=np.full((8, 24), score / 100, np.float32) if maps else None,
                decoder="pyav2",
                distortion_log_odds=dict.fromkeys(DISTORTIONS, 0.0),
            )


def forbidden():
    """A model that nobody may load."""
    raise AssertionError("the model was loaded")


@pytest.fixture
def clips(tmp_path) -> Path:
    """Four files: two with scores, one without, and a link that leads nowhere."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, content in (("a", "10.12345"), ("b", "not_a_video"), ("d", "40")):
        (folder / f"{name}.mp4").write_text(content)
    (folder / "c.mp4").symlink_to("nowhere.mp4")
    return folder


def run(scorer: Callable, folder: Path, *, name: str = "scores.csv", **options) -> Tally:
    """Scores all files of a folder into a table beside it."""
    options = {"model": MODEL, "maps": None, **options}
    return score_files(scorer, sorted(folder.iterdir()), folder.parent / name, **options)


def quality_of(row: ScoreRow) -> float | None:
    return row.ratings["quality"].score if row.ratings else None


def rows_of(folder: Path) -> list[tuple[str, str | None, float | None]]:
    rows = read_scores(folder.parent / "scores.jsonl")
    assert rows == read_scores(folder.parent / "scores.csv")
    return [(Path(row.file).name, row.reason, quality_of(row)) for row in rows]


# Once


def test_every_file_gets_its_row(clips):
    """Catches a failure that is left out, a score in another row, and fields that stay empty."""
    scorer = FakeScorer()
    tally = run(scorer, clips)
    assert tally == Tally(good=2, failed={"missing": 1, "not_a_video": 1}, resumed=0, left=0)
    assert str(tally) == "2 files scored, 2 not (missing 1, not_a_video 1; their rows say why)"
    assert rows_of(clips) == [
        ("a.mp4", None, 10.123),
        ("b.mp4", "not_a_video", None),
        ("c.mp4", "missing", None),
        ("d.mp4", None, 40.0),
    ]
    first, second, third, _ = read_scores(clips.parent / "scores.csv")
    assert first.ratings["authenticity"].score == -10.123
    assert [rating.level for rating in first.ratings.values()] == ["good", "bad"]
    assert first.ratings["quality"].level_probabilities == WORDS
    assert first.distortions == DISTORTIONS[:1]
    assert first.distortion_probabilities == dict.fromkeys(DISTORTIONS, 0.5)
    assert (first.decoder, first.model, first.map) == ("pyav2", MODEL, None)
    assert first.content == file_hash(clips / "a.mp4")
    assert second.message == f"{clips / 'b.mp4'} is not_a_video; replace it"
    assert (second.content, third.content) == (file_hash(clips / "b.mp4"), None)


def test_the_same_command_again_scores_nothing(clips):
    """Byte for byte the same files, and no model; a file that was missing is scored once it is
    there. Catches a folder that is scored twice, and a link that was mended and stays missing.
    """
    run(FakeScorer(), clips)
    before = [path.read_bytes() for path in scores.table_files(clips.parent / "scores.csv")]
    assert run(forbidden, clips).resumed == 4
    assert before == [path.read_bytes() for path in scores.table_files(clips.parent / "scores.csv")]
    (clips / "c.mp4").unlink()
    (clips / "c.mp4").write_text("30")
    again = FakeScorer()
    assert run(again, clips) == Tally(good=3, failed={"not_a_video": 1}, resumed=3, left=0)
    assert again.asked == ["c.mp4"]
    assert sorted(rows_of(clips))[2] == ("c.mp4", None, 30.0)


@pytest.mark.parametrize("reason", ["time_out", "out_of_memory", "missing"])
def test_failures_of_the_moment_are_tried_again(clips, reason):
    """Also "missing" of a file that is there again. Catches a busy machine that marks a good file
    for ever.
    """
    (clips / "b.mp4").write_text(reason)
    run(FakeScorer(), clips)
    again = FakeScorer()
    failed = run(again, clips).failed
    assert failed == ({"missing": 2} if reason == "missing" else {"missing": 1, reason: 1})
    assert again.asked == ["b.mp4"]


def test_a_file_that_changed_is_scored_anew(clips):
    """Catches the old score of another clip; the rows of the others stay byte for byte."""
    run(FakeScorer(), clips)
    record = clips.parent / "scores.jsonl"
    kept = [line for line in record.read_bytes().splitlines(True) if b"d.mp4" in line]
    (clips / "a.mp4").write_text("20")
    again = FakeScorer()
    run(again, clips)
    assert again.asked == ["a.mp4"]
    assert ("a.mp4", None, 20.0) in rows_of(clips)
    assert len(rows_of(clips)) == 4
    assert kept[0] in record.read_bytes().splitlines(True)


def test_the_same_content_is_scored_once(clips):
    """Two copies in one command, and a third in the next. Catches a model that runs for nothing,
    and a message or a map of another file.
    """
    shutil.copy(clips / "a.mp4", clips / "aa.mp4")
    shutil.copy(clips / "b.mp4", clips / "bb.mp4")
    scorer = FakeScorer()
    run(scorer, clips, maps=clips.parent / "maps")
    assert scorer.asked == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    shutil.copy(clips / "a.mp4", clips / "aaa.mp4")
    assert run(forbidden, clips, maps=clips.parent / "maps").good == 4
    rows = {Path(row.file).name: row for row in read_scores(clips.parent / "scores.csv")}
    for name in ("aa.mp4", "aaa.mp4"):
        assert rows[name].file == str(clips / name)
        assert (quality_of(rows[name]), rows[name].map) == (10.123, rows["a.mp4"].map)
        assert rows[name].seconds == 0
    assert rows["bb.mp4"].message == f"{clips / 'bb.mp4'} is not_a_video; replace it"


@pytest.mark.parametrize("name", ["maps", "scores_maps"])
def test_the_table_does_not_score_itself(clips, name):
    """With table and maps in the folder, the maps in their usual place or another. Catches rows
    about scores.csv and its maps.
    """
    files, out, maps = files_below([clips]), clips / "scores.csv", clips / name
    score_files(FakeScorer(), files, out, model=MODEL, maps=maps)
    more = files_below([clips])
    assert len(more) == len(files) + 4
    assert score_files(forbidden, more, out, model=MODEL, maps=maps).resumed == 4
    assert len(read_scores(out)) == len(files)
    with pytest.raises(DataError, match="no files to score"):
        score_files(forbidden, [out], out, model=MODEL)


def test_maps_have_names_of_their_own(clips):
    """Two files of one name, and names that are too long or hold what a path may not. Catches a map
    that is written over another, and a path that leads nowhere from the table.
    """
    for folder, score in (("one", 10), ("two", 20)):
        (clips / folder).mkdir()
        for name in ("same.mp4", "\U0001f9d1" * 60 + ".mp4", "-a\nb?.mp4"):
            (clips / folder / name).write_text(f"{score + len(name)}")
    files = sorted(path for path in clips.rglob("*.mp4") if path.exists())
    out = clips.parent / "tables" / "scores.csv"
    score_files(FakeScorer(), files, out, model=MODEL, maps=maps_beside(out))
    rows = [row for row in read_scores(out) if row.status == "ok"]
    maps = {row.map for row in rows}
    assert len(maps) == len(rows) == 8
    for row in rows:
        assert row.map.startswith("scores_maps/")
        assert (out.parent / row.map).is_file()
    elsewhere = clips.parent / "maps"
    score_files(FakeScorer(), files, out.with_name("b.csv"), model=MODEL, maps=elsewhere)
    named = {row.map for row in read_scores(out.with_name("b.csv")) if row.map}
    assert all(name.startswith("../maps/") for name in named)
    # Another model's maps may lie in the same folder.
    score_files(FakeScorer(), files, out.with_name("c.csv"), model=OTHER, maps=elsewhere)
    assert len(list(elsewhere.iterdir())) == 2 * len(named)


def test_the_first_failure_can_end_it(clips):
    """Catches a failure without a row, and one that ends the next command too."""
    tally = run(FakeScorer(batch_size=1), clips, fail_fast=True)
    assert tally == Tally(good=1, failed={"not_a_video": 1}, resumed=0, left=2)
    assert "2 files left out after the failure" in str(tally)
    again = FakeScorer()
    assert run(again, clips, fail_fast=True).failed == {"missing": 1, "not_a_video": 1}
    assert again.asked[0] == "c.mp4"


def test_a_table_needs_scores(clips):
    """Catches a column of empty cells, or a crash after the first batch; and an empty table that
    is left behind.
    """
    out = clips.parent / "new" / "folder" / "scores.csv"
    with pytest.raises(DataError, match="without scores"):
        score_files(FakeScorer(scores=False), sorted(clips.iterdir()), out, model=MODEL)
    assert [path.name for path in clips.parent.iterdir()] == ["clips"]


def test_other_views_do_not_go_on_and_have_maps_of_their_own(clips):
    """In rows with scores and without. Catches a table with maps of two kinds of views, and maps of
    one table that are written over by another.
    """
    elsewhere = (0.875, 0.0, 0.125)
    maps = clips.parent / "maps"
    run(FakeScorer(), clips, maps=maps, views=elsewhere)
    assert {row.views for row in read_scores(clips.parent / "scores.jsonl")} == {elsewhere}
    with pytest.raises(ScoreError, match="--views"):
        run(forbidden, clips, maps=maps)
    run(forbidden, clips, maps=maps, views=elsewhere)
    before = set(maps.iterdir())
    run(FakeScorer(), clips, name="usual.csv", maps=maps)
    assert {row.views for row in read_scores(clips.parent / "usual.jsonl")} == {None}
    assert len(set(maps.iterdir()) - before) == len(before) == 2


def test_flags_and_notes_are_counted(clips):
    """As the command prints it. Catches notes that nobody reads about."""
    (clips / "a.mp4").write_text("178.56")

    class Noted(FakeScorer):
        def assess(self, paths, **options):
            for result in super().assess(paths, **options):
                if isinstance(result, Assessment) and result.path.name == "d.mp4":
                    result = replace(result, notes=("a note", "another"))
                if isinstance(result, Assessment) and result.path.name == "a.mp4":
                    wild = replace(result.quality, outside_training=True)
                    result = replace(result, ratings={**result.ratings, "quality": wild})
                yield result

    tally = run(Noted(), clips)
    assert (tally.flagged, tally.noted) == (1, 1)
    assert "1 flagged" in str(tally)
    assert "1 with notes" in str(tally)
    rows = read_scores(clips.parent / "scores.csv")
    assert [row.outside_training for row in rows] == [("quality",), None, None, ()]
    assert [row.notes for row in rows] == [(), None, None, ("a note", "another")]


def test_another_model_does_not_go_on(clips):
    """Catches scores of two models in one table; the model is not even loaded."""
    run(FakeScorer(), clips)
    with pytest.raises(ScoreError, match=f"model {MODEL}, this is model {OTHER}"):
        run(forbidden, clips, model=OTHER)


def test_a_model_is_known_by_its_weights_and_how_they_are_loaded(tmp_path):
    """Catches 4-bit scores that are mixed with others, and a manifest that changes the key."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("about")
    key = model_key(folder)
    write_manifest(folder)
    (folder / "README.md").write_text("more about")
    assert model_key(folder) == key == model_key(folder, "bf16")
    assert len({key, model_key(folder, "8bit"), model_key(folder, "4bit")}) == 3
    (folder / "model.safetensors").write_bytes(b"others")
    other = model_key(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    assert len({key, other, model_key(folder)}) == 3
    assert len(key) == 16


# Killed, and with several processes


def test_a_batch_that_was_computed_is_in_the_table(clips):
    """Before the next one is begun. Catches rows that wait for the end."""
    seen = []

    class Watched(FakeScorer):
        """Looks at the table before each clip."""

        def assess(self, paths, **options):
            """See `FakeScorer`."""
            for result in super().assess(paths, **options):
                record = clips.parent / "scores.jsonl"
                seen.append(record.read_bytes().count(b"\n"))
                yield result

    run(Watched(batch_size=2), clips)
    assert seen == [0, 0, 2, 2]


def as_rank(monkeypatch, rank: int, gathered: Callable) -> None:
    """This process as one of two, whose other gives what `gathered` makes of this one's."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "all_gather", gathered)


class Ranks:
    """Two ranks that run one after the other in this process: the second first, then the main one,
    which finds what the second left. What they tell each other is worked out beforehand.

    Args:
        files: All files.
        todo: Those that are to be scored.
    """

    def __init__(self, files: list[Path], todo: list[Path]) -> None:
        self.files, self.todo = files, todo

    def gather(self, item):
        """What `distributed.all_gather` would give, by the kind of what is asked."""
        if isinstance(item, list) and item and isinstance(item[0], FileState | None):
            states = [file_state(path) for path in self.files]
            return [states[0::2], states[1::2]]
        if item == self.files:
            return [self.files] * 2
        if isinstance(item, list):
            return [self.todo, []]
        return [item, item]


def test_ranks_share_the_files_and_the_main_one_fills_the_table(clips, monkeypatch):
    """Rows in the order of the files. Catches a table that a rank alone writes, rows that are lost
    or twice there, and parts that stay.
    """
    shutil.copy(clips / "a.mp4", clips / "aa.mp4")
    files = sorted(clips.iterdir())
    ranks = Ranks(files, [path for path in files if path.name != "aa.mp4"])
    out = clips.parent / "scores.csv"
    second, first = FakeScorer(), FakeScorer()
    as_rank(monkeypatch, 1, ranks.gather)
    score_files(second, files, out, model=MODEL)
    assert not out.exists()
    part = clips.parent / ".scores.rank_1.jsonl"
    assert [Path(row.file).name for row in read_scores(part)] == ["b.mp4", "d.mp4"]
    # The main rank took parts before it began, so the second's is put back as if both ran at once.
    content = part.read_bytes()

    class Main(FakeScorer):
        """Scores while the second rank writes."""

        def assess(self, paths, **options):
            """See `FakeScorer`."""
            part.write_bytes(content)
            yield from first.assess(paths, **options)

    part.unlink()
    as_rank(monkeypatch, 0, ranks.gather)
    tally = score_files(Main(), files, out, model=MODEL)
    assert tally == Tally(good=3, failed={"missing": 1, "not_a_video": 1}, resumed=0, left=0)
    assert (second.asked, first.asked) == (["b.mp4", "d.mp4"], ["a.mp4", "c.mp4"])
    names = [name for name, *_ in rows_of(clips)]
    assert names == ["a.mp4", "aa.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert not list(clips.parent.glob(".scores.rank*"))


def test_parts_of_ranks_that_were_killed_are_taken_over(clips):
    """By a process alone; one part ends in half a row. Catches clips that are scored again though a
    rank had them, also one of a file that this command is not about.
    """
    run(FakeScorer(), clips, name="whole.csv")
    rows = {Path(row.file).name: row for row in read_scores(clips.parent / "whole.jsonl")}
    elsewhere = ScoreRow(file="e.mp4", status="failed", reason="empty", model=MODEL)
    for rank, mine in enumerate(((rows["d.mp4"], elsewhere), (rows["b.mp4"], rows["a.mp4"]))):
        with (clips.parent / f".scores.rank_{rank}.jsonl").open("wb") as file:
            for row in mine:
                append_row(file, row)
    part = clips.parent / ".scores.rank_1.jsonl"
    part.write_bytes(part.read_bytes()[:-40])
    again = FakeScorer()
    assert run(again, clips).resumed == 2
    assert again.asked == ["a.mp4", "c.mp4"]
    assert [name for name, *_ in rows_of(clips)] == ["b.mp4", "d.mp4", "e.mp4", "a.mp4", "c.mp4"]
    assert not list(clips.parent.glob(".scores.rank*"))


def test_parts_of_another_model_are_refused(clips):
    """Catches rows of a killed command that come in by the back door; they stay where they are."""
    part = clips.parent / ".scores.rank_1.jsonl"
    row = ScoreRow(file=str(clips / "b.mp4"), status="failed", reason="empty", model=OTHER)
    with part.open("wb") as file:
        append_row(file, row)
    with pytest.raises(ScoreError, match=f"model {OTHER}, this is model {MODEL}"):
        run(forbidden, clips)
    assert json.loads(part.read_bytes())["model"] == OTHER


def test_what_the_main_rank_refuses_all_refuse(clips, monkeypatch):
    """Catches a rank that waits for ever for one that has gone."""
    refused = (None, ScoreError("the table is another's"))
    as_rank(monkeypatch, 1, lambda item: [item if isinstance(item, list) else refused, item])
    with pytest.raises(ScoreError, match="another's"):
        run(forbidden, clips)


def test_a_rank_that_fails_leaves_its_rows(clips, monkeypatch):
    """Catches an hour of a rank that is thrown away because another lost its GPU."""
    files = sorted(clips.iterdir())

    class Failing(FakeScorer):
        """Loses its GPU."""

        def assess(self, paths, **options):
            """See `FakeScorer`."""
            yield next(super().assess(paths, **options))
            raise RuntimeError("lost")

    as_rank(monkeypatch, 1, Ranks(files, files).gather)
    with pytest.raises(RuntimeError, match="lost"):
        run(Failing(batch_size=1), clips)
    (row,) = read_scores(clips.parent / ".scores.rank_1.jsonl")
    assert row.file == str(clips / "b.mp4")


def test_a_loop_of_links_is_a_missing_file(clips):
    """Catches a traceback from a path that has no end."""
    (clips / "c.mp4").unlink()
    (clips / "c.mp4").symlink_to("c.mp4")
    assert os.path.lexists(clips / "c.mp4")
    assert run(FakeScorer(), clips).failed == {"missing": 1, "not_a_video": 1}


# Files that change meanwhile


class Replacing(FakeScorer):
    """Changes files between the taking of their hashes and their decoding.

    Args:
        changes: File's name -> what is done with the file, before its first decoding or, for
            `always`, before each.
        always: Whether it goes on.
    """

    def __init__(self, changes: dict[str, Callable[[Path], None]], always: bool = False) -> None:
        super().__init__(batch_size=3)
        self.changes, self.always = changes, always

    def assess(self, paths, **options):
        """See `FakeScorer`."""
        for path in paths:
            change = self.changes.get(path.name)
            if change is not None:
                change(path)
                if not self.always:
                    del self.changes[path.name]
            yield from super().assess([path], **options)


def replaced_by(content: str) -> Callable[[Path], None]:
    """Another file is moved over it, as downloads and rsync do."""

    def change(path: Path) -> None:
        other = path.with_name(".new")
        other.write_text(content)
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        os.replace(other, path)

    return change


def written_over_by(content: str) -> Callable[[Path], None]:
    """Written in its place, at equal size, with its old time."""

    def change(path: Path) -> None:
        stat = path.stat()
        assert len(content) == stat.st_size
        path.write_text(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    return change


@pytest.mark.parametrize("change", [replaced_by("50"), written_over_by("50")])
def test_a_file_that_changes_after_its_hash_has_the_new_hash_and_the_new_score(clips, change):
    """Catches the hash of the old file beside the score of the new one; by hand, the new file holds
    50, and SHA-256 of "50" is what `sha256sum` gives. The next command finds nothing to do.
    """
    run(Replacing({"d.mp4": change}), clips, maps=clips.parent / "maps")
    row = next(
        row for row in read_scores(clips.parent / "scores.csv") if row.file.endswith("d.mp4")
    )
    content = "1a6562590ef19d1045d06c4055742d38288e9e6dcd71ccde5cee80f1d5a774eb"
    assert (row.content, quality_of(row)) == (content, 50.0)
    assert content[:12] in row.map
    assert run(forbidden, clips).resumed == 4


def test_a_file_that_is_put_back_is_not_taken_for_unchanged(clips):
    """Decoded while another file lay in its place. Catches a comparison of hashes alone."""

    class PuttingBack(FakeScorer):
        """Decodes another file in place of d once, and puts d back."""

        def assess(self, paths, **options):
            """See `FakeScorer`."""
            for path in paths:
                first = path.name == "d.mp4" and "d.mp4" not in self.asked
                if first:
                    replaced_by("50")(path)
                (found,) = super().assess([path], **options)
                if first:
                    replaced_by("40")(path)
                yield found

    run(PuttingBack(), clips)
    assert ("d.mp4", None, 40.0) in rows_of(clips)


def test_a_file_that_never_holds_still_fails_and_is_tried_again(clips):
    """As one that is still being written. Catches a score of half a clip, and an endless loop."""
    numbers = iter(range(100, 200))
    growing = Replacing(
        {"d.mp4": lambda path: path.write_text(path.read_text() + str(next(numbers)))}, always=True
    )
    tally = run(growing, clips)
    assert tally.failed == {"missing": 1, "not_a_video": 1, "changed": 1}
    row = next(row for row in read_scores(clips.parent / "scores.csv") if row.reason == "changed")
    assert row.content is None
    assert str(clips / "d.mp4") in row.message
    assert "again" in row.message
    (clips / "d.mp4").write_text("40")
    assert run(FakeScorer(), clips).good == 2
    assert ("d.mp4", None, 40.0) in rows_of(clips)


def test_what_was_to_share_the_scores_of_a_changed_file_is_scored_itself(clips):
    """Three files of one content of which the first changes; another then has the new content of
    the first. Catches a row of the next file in the turn, and one that is left out.
    """
    for name in ("da", "db"):
        shutil.copy(clips / "d.mp4", clips / f"{name}.mp4")
    (clips / "e.mp4").write_text("50")
    (clips / "f.mp4").write_text("60")
    scorer = Replacing({"d.mp4": replaced_by("50")})
    tally = run(scorer, clips)
    assert (tally.good, tally.left) == (6, 0)
    assert {name: score for name, _, score in rows_of(clips) if score} == {
        "a.mp4": 10.123,
        "d.mp4": 50.0,
        "da.mp4": 40.0,
        "db.mp4": 40.0,
        "e.mp4": 50.0,
        "f.mp4": 60.0,
    }
    for row in read_scores(clips.parent / "scores.jsonl"):
        if row.status == "ok":
            assert row.content == file_hash(Path(row.file))
    assert scorer.asked.count("db.mp4") == 0


def test_ranks_score_a_file_that_was_to_share_the_scores_of_a_changed_one(clips, monkeypatch):
    """The second of two ranks changes b, whose content c was to share. Catches a file that is left
    without a row.
    """
    for path in clips.iterdir():
        path.unlink()
    for name in "abc":
        (clips / f"{name}.mp4").write_text("10" if name == "a" else "20")
    files = sorted(clips.iterdir())
    out = clips.parent / "scores.csv"
    second = row_of_part(clips / "b.mp4", 30.0)

    def gather(item):
        if isinstance(item, list) and item and isinstance(item[0], FileState | None):
            states = {path: file_state(path) for path in files}
            # Hashed again: the one file that is left.
            return (
                [[states[files[2]]], []]
                if looked
                else [list(states.values())[0::2], [states[files[1]]]]
            )
        return [item, item]

    looked: list[bool] = []

    class Main(FakeScorer):
        """Scores while the second rank scores the file that it has changed."""

        def assess(self, paths, **options):
            """See `FakeScorer`."""
            if not looked:
                looked.append(True)
                replaced_by("30")(clips / "b.mp4")
                with (clips.parent / ".scores.rank_1.jsonl").open("wb") as part:
                    append_row(part, second())
            yield from super().assess(paths, **options)

    as_rank(monkeypatch, 0, gather)
    tally = score_files(Main(), files, out, model=MODEL)
    assert (tally.good, tally.left) == (3, 0)
    assert [score for *_, score in rows_of(clips)] == [10.0, 30.0, 20.0]
    assert not list(clips.parent.glob(".scores.rank*"))


def row_of_part(path: Path, score: float) -> Callable[[], ScoreRow]:
    """Makes the row that another rank would write of a file as it is then."""
    return lambda: score_row(
        file=str(path),
        status="ok",
        quality=score,
        authenticity=-score,
        distortions=(),
        decoder="pyav2",
        content=file_hash(path),
        model=MODEL,
    )
