"""Every kind of bad input of the data verbs, through the real command line: exit status 1, one
sentence that names the file, the place in it and the way on, and nothing changed on disk. Input
that is odd but legal ends in a set with finite numbers and a line that names what was odd.
"""

import csv
import io
import json
import math
import os
import re
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from lmme3dhf import cli
from lmme3dhf.data.synthetic.render import write_clip
from tests.conftest import DIMENSIONS
from tests.data.fake_hub import FakeHub, serving

# Four faces under two generators.
VIDEOS = [f"seed{200 * generator + face:04d}" for generator in range(2) for face in range(4)]
SPLIT = {
    "train": [v for v in VIDEOS if int(v[-1]) < 2],
    "val": [v for v in VIDEOS if v[-1] == "2"],
    "eval": [v for v in VIDEOS if v[-1] == "3"],
}
SUBJECTS = ("ann", "ben", "cid", "dot")
SIDE = 32

# Words of the command line; the current folder is the one that `good` makes.
INTO = " --videos clips --strips strips --split raw/split.json --out {out}"
LABELS = (
    "data labels --ratings raw/ratings.csv --marks raw/points.csv --remarks raw/remarks.csv "
    "--rules raw/rules.yaml" + INTO
)
WIDE = LABELS.replace("ratings.csv", "wide.csv")
STRIPS = LABELS.replace("points.csv", "marks")
POINTS = LABELS.replace("points.csv", "points.json")
FINISHED = "data labels --mos raw/MOS.json --distortions raw/distortion_label.json" + INTO
STATS = "data stats made --out page"


# The good input


def rating(subject: int, place: int) -> float:
    """Everybody sees the same order and uses the slider otherwise; ties are broken."""
    return round(0.4 + 0.1 * subject + (0.4 + 0.04 * subject) * place + 0.03 * (place % 3), 2)


def rating_rows() -> list[str]:
    """Line 2 of the table is the first: ann on the quality of seed0000."""
    return [
        f"{name},{video},{dimension},{rating(s, VIDEOS.index(video) if d == 0 else 7 - v)}"
        for s, name in enumerate(SUBJECTS)
        for d, dimension in enumerate(DIMENSIONS)
        for v, video in enumerate(VIDEOS)
    ]


def wide_rows() -> list[str]:
    cells = {tuple(row.split(",")[:3]): row.split(",")[3] for row in rating_rows()}
    return [
        ",".join([video, dimension, *(cells[name, video, dimension] for name in SUBJECTS)])
        for dimension in DIMENSIONS
        for video in VIDEOS
    ]


def save(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_input(root: Path) -> None:
    """Clips, unmarked strips and `raw/`: every input of `lmme3dhf data labels` in every form."""
    for folder in ("clips", "strips", "raw/marks/ann", "raw/marks/ben"):
        (root / folder).mkdir(parents=True)
    frames = [np.full((SIDE, SIDE, 3), 30 + 40 * n, np.uint8) for n in range(5)]
    write_clip(root / "clips/seed0000.mp4", frames, 10)
    strip = np.random.default_rng(0).integers(60, 180, (SIDE, 3 * SIDE, 3), np.uint8)
    marked = strip.copy()
    marked[9:14, 9:14] = (255, 0, 0)
    for video in VIDEOS:
        if video != "seed0000":
            shutil.copy(root / "clips/seed0000.mp4", root / f"clips/{video}.mp4")
        Image.fromarray(strip).save(root / f"strips/{video}.png")
    for marker in ("ann", "ben"):
        Image.fromarray(marked).save(root / f"raw/marks/{marker}/seed0001.png")
    raw = root / "raw"
    save(raw / "ratings.csv", "subject,video,dimension,rating", *rating_rows())
    save(raw / "wide.csv", "video,dimension," + ",".join(SUBJECTS), *wide_rows())
    save(raw / "points.csv", "marker,video,x,y", "ann,seed0001,11,11", "ben,seed0001,12,11")
    points = {"seed0001": {"ann": [[11, 11]], "ben": [[12, 11]]}}
    save(raw / "points.json", json.dumps(points))
    remarks = [f"{m},{v},the eyes look wrong" for v in VIDEOS for m in ("ann", "ben")]
    save(raw / "remarks.csv", "marker,video,remark", *remarks)
    save(raw / "rules.yaml", "categories:", "  Hair Distortions: [wig]", "good: [splendid]")
    save(raw / "split.json", json.dumps(SPLIT))
    mos = {v: {"quality": 20.0 + 5 * i, "authenticity": 70.0 - 5 * i} for i, v in enumerate(VIDEOS)}
    save(raw / "MOS.json", json.dumps(mos, indent=1))
    save(raw / "distortion_label.json", json.dumps({v: ["Eye Distortions"] for v in VIDEOS}))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """The input, and in `made/` and `finished/` the data sets that are made of it."""
    root = tmp_path_factory.mktemp("good")
    write_input(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        patch.chdir(root)
        assert cli.main(LABELS.format(out="made").split()) == 0
        assert cli.main(FINISHED.format(out="finished").split()) == 0
    return root


@pytest.fixture
def root(good, tmp_path, monkeypatch) -> Path:
    """A copy of it to be spoilt, which is the current folder."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    # Half of the time would go into the other verbs' parsers.
    monkeypatch.setattr(cli, "VERBS", {"data": cli.VERBS["data"]})
    root = tmp_path / "here"
    shutil.copytree(good, root, ignore=shutil.ignore_patterns("finished"))
    monkeypatch.chdir(root)
    return root


def tree(root: Path) -> dict[str, bytes | None]:
    """Path -> content of everything below a folder, None for folders; hidden files too."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


# How it is spoilt. Each gives a function of the root.

Spoil = Callable[[Path], object]


def line(name: str, number: int, text: str) -> Spoil:
    """Another line in place of one, counted from 1."""

    def spoil(root: Path) -> None:
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        assert lines[number - 1] != text
        lines[number - 1] = text
        save(root / name, *lines)

    return spoil


def text(name: str, content: str | bytes) -> Spoil:
    """A file with another content."""
    data = content.encode() if isinstance(content, str) else content

    def spoil(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    return spoil


def swapped(name: str, old: str, new: str) -> Spoil:
    """One piece of a file, the first of its kind, replaced."""

    def spoil(root: Path) -> None:
        content = (root / name).read_text(encoding="utf-8")
        assert old in content
        (root / name).write_text(content.replace(old, new, 1), encoding="utf-8")

    return spoil


def kept(name: str, keep: Callable[[list[str]], object]) -> Spoil:
    """Only the rows of a table that a question about their cells keeps."""

    def spoil(root: Path) -> None:
        header, *rows = (root / name).read_text(encoding="utf-8").splitlines()
        left = [row for row in rows if keep(row.split(","))]
        assert len(left) < len(rows)
        save(root / name, header, *left)

    return spoil


def as_json(name: str, change: Callable[[object], object]) -> Spoil:
    """A JSON file after a change of its content."""

    def spoil(root: Path) -> None:
        content = json.loads((root / name).read_text(encoding="utf-8"))
        change(content)
        (root / name).write_text(json.dumps(content, indent=1), encoding="utf-8")

    return spoil


def rated(change: Callable[[str, float], float]) -> Spoil:
    """Every rating, given its dimension, changed."""

    def spoil(root: Path) -> None:
        rows = [row.split(",") for row in rating_rows()]
        rows = [[*row[:3], f"{change(row[2], float(row[3])):g}"] for row in rows]
        save(root / R, "subject,video,dimension,rating", *map(",".join, rows))

    return spoil


def rescaled(mos: dict, change: Callable[[float], float], *dimensions: str) -> None:
    for scores in mos.values():
        for dimension in dimensions or DIMENSIONS:
            scores[dimension] = change(scores[dimension])


def picture(name: str, *, mode: str = "RGB", size: tuple[int, int] = (3 * SIDE, SIDE)) -> Spoil:
    return lambda root: Image.new(mode, size).save(root / name)


def gone(name: str) -> Spoil:
    return lambda root: (root / name).unlink()


def nothing(root: Path) -> None:
    """The command itself is at fault."""


class Row(NamedTuple):
    """A bad input: how it comes about, the command, and what its sentence must say."""

    spoil: Spoil
    command: str
    words: tuple[str, ...]


R, P, M = "raw/ratings.csv", "raw/points.csv", "raw/remarks.csv"
W = "raw/wide.csv"
BAD_LABELS = {
    # Ratings
    "ratings, empty file": Row(text(R, ""), LABELS, (f"{R}:1: header is ''", "correct the")),
    "ratings, header only": Row(
        kept(R, lambda row: False), LABELS, (f"{R}: no ratings below the header", "expected rows")
    ),
    "ratings, missing column": Row(
        line(R, 1, "subject,video,rating"), LABELS, (f"{R}:1: header", "subject,video,dimension")
    ),
    "ratings, unknown dimension": Row(
        line(R, 4, "ann,seed0002,beauty,3"), LABELS, (f"{R}:4: aspect 'beauty'", "quality, auth")
    ),
    "ratings, NaN": Row(
        line(R, 4, "ann,seed0002,quality,NaN"),
        LABELS,
        (f"{R}:4: rating 'NaN' is not a number", "leave the cell empty"),
    ),
    "ratings, infinite": Row(
        line(R, 4, "ann,seed0002,quality,inf"), LABELS, (f"{R}:4: rating 'inf' is not a number",)
    ),
    "ratings, a word": Row(
        line(R, 4, "ann,seed0002,quality,good"), LABELS, (f"{R}:4: rating 'good' is not a number",)
    ),
    "ratings, a decimal comma": Row(
        line(R, 4, "ann,seed0002,quality,3,5"), LABELS, (f"{R}:4: 5 cells, expected 4", "quotes")
    ),
    "ratings, 101 on the slider": Row(
        line(R, 4, "ann,seed0002,quality,101"), LABELS, (f"{R}:4: rating 101 is outside", "0..5")
    ),
    "ratings, below the slider": Row(
        line(R, 4, "ann,seed0002,quality,-0.1"), LABELS, (f"{R}:4: rating -0.1 is outside", "0..5")
    ),
    "ratings, twice": Row(
        line(R, 4, "ann,seed0001,quality,2"),
        LABELS,
        (f"{R}:4: subject 'ann' has already rated", "'seed0001' in line 3", "keep one"),
    ),
    "ratings, no subject": Row(
        line(R, 4, ",seed0002,quality,2"),
        LABELS,
        (f"{R}:4: subject or video is empty", "name both"),
    ),
    "ratings, of a video without clip": Row(
        line(R, 4, "ann,seed0O02,quality,2"), LABELS, (f"{R}: 1 videos", "seed0O02", "clips", "add")
    ),
    "ratings, a clip without them": Row(
        kept(R, lambda row: row[1] != "seed0002"),
        LABELS,
        (f"{R}: 1 of 8 videos have no quality score", "seed0002", "rate them", "--split"),
    ),
    "ratings, of one dimension": Row(
        kept(R, lambda row: row[2] == "quality"),
        LABELS,
        (f"{R}: 8 of 8 videos have no authenticity score", "seed0000", "rate them"),
    ),
    "ratings, one a subject": Row(
        kept(R, lambda row: SUBJECTS.index(row[0]) == VIDEOS.index(row[1])),
        LABELS,
        (f"{R}: quality", "seed0000", "ann: rated 1 of 4 videos", "collect ratings"),
    ),
    "ratings, a constant rater alone": Row(
        text(
            R,
            "subject,video,dimension,rating\n"
            + "".join(f"ann,{v},{d},3\n" for d in DIMENSIONS for v in VIDEOS),
        ),
        LABELS,
        (f"{R}: quality", "seed0000", "ann: gave all 8 videos the same rating, 3", "collect"),
    ),
    "ratings, all videos alike": Row(
        text(
            R,
            "subject,video,dimension,rating\n"
            + "".join(
                f"{s},{v},{d},{1 + (i + k) % 2 * 2}\n"
                for d in DIMENSIONS
                for k, s in enumerate(("ann", "ben"))
                for i, v in enumerate(VIDEOS)
            ),
        ),
        LABELS,
        (f"{R}, part 'train': quality", "4 scores are 50", "differ"),
    ),
    "ratings, binary": Row(
        text(R, b"\x89PNG\r\n\x1a\n\0\0\0"), LABELS, (f"{R}:1: not UTF-8", "save the table as")
    ),
    "ratings, zeros": Row(
        text(R, bytes(50)), LABELS, (f"{R}:1: not UTF-8 (a zero byte)", "save the table as")
    ),
    "ratings, Latin-1": Row(
        text(R, "subject,video,dimension,rating\nRené,seed0000,quality,3\n".encode("latin-1")),
        LABELS,
        (f"{R}:2: not UTF-8", "save the table as UTF-8"),
    ),
    "ratings, UTF-16": Row(
        text(R, "subject,video,dimension,rating\n".encode("utf-16-le")),
        LABELS,
        (f"{R}:1: not UTF-8", "save the table as UTF-8"),
    ),
    "ratings, a workbook": Row(text(R, b"PK\x03\x04\x14\0"), LABELS, (R, "save the table as CSV")),
    "ratings, one column more": Row(
        lambda root: save(
            root / R,
            "subject,video,dimension,rating,seconds",
            *(f"{row},7" for row in rating_rows()),
        ),
        LABELS,
        (f"{R}:1: header", "remove the column 'seconds'"),
    ),
    "ratings, 0 to 100": Row(
        rated(lambda dimension, value: 20 * value),
        LABELS,
        (f"{R}: the quality ratings", "expected 0 to 5", "0 to 100, divide them by 20"),
    ),
    "ratings, one dimension on 0 to 10": Row(
        rated(lambda dimension, value: value * (1 + (dimension == "authenticity"))),
        LABELS,
        (f"{R}: the authenticity ratings", "expected 0 to 5", "0 to 10, divide them by 2"),
    ),
    "ratings, 0 to 1": Row(
        rated(lambda dimension, value: value / 5),
        LABELS,
        (f"{R}: the quality ratings", "expected 0 to 5", "0 to 1, multiply them by 5"),
    ),
    "scores, 1 to 5": Row(
        as_json("raw/MOS.json", lambda mos: rescaled(mos, lambda score: 1 + score / 25)),
        FINISHED,
        ("raw/MOS.json: quality: the scores", "expected 0 to 100", "multiply them by 20"),
    ),
    "scores, one dimension on 0 to 1": Row(
        as_json("raw/MOS.json", lambda mos: rescaled(mos, lambda x: x / 100, "authenticity")),
        FINISHED,
        ("raw/MOS.json: authenticity: the scores", "expected 0 to 100", "multiply them by 100"),
    ),
    "ratings, an open quote": Row(
        line(R, 4, 'ann,seed0002,quality,"3'),
        LABELS,
        (f"{R}:4: not a CSV row", "correct the quotes"),
    ),
    "ratings, no such file": Row(gone(R), LABELS, (f"{R} does not exist", "correct the path")),
    "ratings, a folder": Row(nothing, LABELS.replace(R, "raw"), ("raw is a folder", "expected")),
    "wide ratings, a ragged row": Row(
        line(W, 4, "seed0002,quality,1,2,3"), WIDE, (f"{W}:4: 5 cells, expected 6",)
    ),
    "wide ratings, a subject twice": Row(
        line(W, 1, "video,dimension,ann,ben,ann,dot"), WIDE, (f"{W}:1: column 5", "'ann'", "rename")
    ),
    "wide ratings, out of range": Row(
        line(W, 4, "seed0002,quality,1,2,3,5.01"), WIDE, (f"{W}:4: ", "5.01 is outside", "0..5")
    ),
    # Marks
    "marks, another size": Row(
        picture("raw/marks/ben/seed0001.png", size=(60, 20)),
        STRIPS,
        ("raw/marks/ben/seed0001.png: ", "60", "20", "96", "same picture"),
    ),
    "marks, another picture": Row(
        picture("raw/marks/ben/seed0001.png"),
        STRIPS,
        ("raw/marks/ben/seed0001.png: ", "same picture"),
    ),
    "marks, a grey picture": Row(
        picture("raw/marks/ben/seed0001.png", mode="L"),
        STRIPS,
        ("raw/marks/ben/seed0001.png: ", "same picture"),
    ),
    "marks, no picture": Row(
        text("raw/marks/ben/seed0001.png", "hello"),
        STRIPS,
        ("raw/marks/ben/seed0001.png: cannot be read as a picture", "save it again"),
    ),
    "marks, a truncated picture": Row(
        lambda root: text(
            "raw/marks/ben/seed0001.png", (root / "raw/marks/ben/seed0001.png").read_bytes()[:900]
        )(root),
        STRIPS,
        ("raw/marks/ben/seed0001.png: cannot be read as a picture", "save it again"),
    ),
    "marks, of an unknown video": Row(
        lambda root: (root / "raw/marks/ben/seed0001.png").rename(root / "raw/marks/ben/face.png"),
        STRIPS,
        ("raw/marks: 1 videos have no clip", "first face", "take the videos out"),
    ),
    "marks, something else among them": Row(
        text("raw/marks/ben/notes.txt", "x"), STRIPS, ("raw/marks/ben/notes.txt: not a marked",)
    ),
    "marks, no marker's folder": Row(
        lambda root: shutil.rmtree(root / "raw/marks") or (root / "raw/marks").mkdir(),
        STRIPS,
        ("raw/marks: no folders of markers", "MARKER/VIDEO.png"),
    ),
    "points, outside the strip": Row(
        line(P, 3, "ben,seed0001,96,11"),
        LABELS,
        (f"{P}: marks on seed0001: ben", "(96.0, 11.0)", "96 x 32"),
    ),
    "points, NaN": Row(line(P, 3, "ben,seed0001,nan,1"), LABELS, (f"{P}:3: ", "finite")),
    "points, a word": Row(line(P, 3, "ben,seed0001,left,1"), LABELS, (f"{P}:3: ", "two numbers")),
    "points, of an unknown video": Row(
        line(P, 3, "ben,face,3,3"), LABELS, (f"{P}: 1 videos have no clip", "face")
    ),
    "points, header only": Row(kept(P, lambda row: False), LABELS, (f"{P}: no points",)),
    "points, missing column": Row(line(P, 1, "marker,video,x"), LABELS, (f"{P}:1: header",)),
    "points, broken JSON": Row(
        text("raw/points.json", '{"seed0001": [\n[1, 2],\n[3 4]]}'),
        POINTS,
        ("raw/points.json:3:4: not JSON", "correct the file there"),
    ),
    "points, NaN in JSON": Row(
        text("raw/points.json", '{"seed0001": {"ben": [[NaN, 1]]}}'),
        POINTS,
        ("raw/points.json: seed0001, ben: point [nan, 1]", "finite"),
    ),
    "strips, no such folder": Row(
        nothing, LABELS.replace("--strips strips", "--strips gone"), ("gone does not exist",)
    ),
    "strips, no picture": Row(
        text("strips/seed0002.png", "x"), LABELS, ("strips/seed0002.png: cannot", "save it again")
    ),
    # Remarks and rules
    "remarks, missing column": Row(line(M, 1, "marker,remark"), LABELS, (f"{M}:1: header",)),
    "remarks, empty video": Row(
        line(M, 4, "ann,,odd eyes"), LABELS, (f"{M}:4: marker or video is empty", "name both")
    ),
    "remarks, twice": Row(
        line(M, 4, "ann,seed0000,odd eyes"), LABELS, (f"{M}:4: marker 'ann'", "join the two")
    ),
    "remarks, of a clip missing": Row(
        kept(M, lambda row: row[1] != "seed0002"), LABELS, (f"{M}: 1 of 8", "seed0002", "write")
    ),
    "remarks, none that fits": Row(
        lambda root: save(root / M, "marker,video,remark", *(f"ann,{v},hm" for v in VIDEOS)),
        LABELS,
        ("'train'", "ann on seed0000: 'hm'", "--rules"),
    ),
    "rules, no YAML": Row(
        text("raw/rules.yaml", "categories:\n  Hair: [wig\n"),
        LABELS,
        ("raw/rules.yaml:3:1: not YAML", "correct this line"),
    ),
    "rules, unknown category": Row(
        line("raw/rules.yaml", 2, "  Hair Distortion: [wig]"),
        LABELS,
        ("raw/rules.yaml:2: 'Hair Distortion'", "nearest is 'Hair Distortions'"),
    ),
    "rules, unknown key": Row(
        line("raw/rules.yaml", 3, "goods: [fine]"),
        LABELS,
        ("raw/rules.yaml:3: 'goods' is no key", "nearest is 'good'"),
    ),
    "rules, without remarks": Row(
        nothing, LABELS.replace("--remarks raw/remarks.csv", ""), ("raw/rules.yaml", "remarks")
    ),
    # Splits
    "split, a video in two parts": Row(
        as_json("raw/split.json", lambda s: s["eval"].append("seed0000")),
        LABELS,
        ("raw/split.json", "seed0000", "'train'", "'eval'", "keep it in one"),
    ),
    "split, an unknown video": Row(
        as_json("raw/split.json", lambda s: s["eval"].append("seed0777")),
        LABELS,
        ("split", "1 videos have no clip in clips", "seed0777"),
    ),
    "split, wrong hash": Row(
        text("raw/split.json", json.dumps({"sha256": "0" * 64, "parts": SPLIT})),
        LABELS,
        ("raw/split.json: its parts are not those", "restore the file"),
    ),
    "split, a face it denies to share": Row(
        text(
            "raw/split.json",
            json.dumps(
                {
                    "latents_shared": False,
                    "parts": {"train": ["seed0000", "seed0001"], "eval": ["seed0200"]},
                }
            ),
        ),
        LABELS,
        ("raw/split.json", "latent 0 (video seed0200)", "group the videos by latent"),
    ),
    "split, no training part": Row(
        as_json("raw/split.json", lambda s: s.pop("train")), LABELS, ("split", "must be train")
    ),
    "split, an empty part": Row(
        as_json("raw/split.json", lambda s: s["val"].clear()),
        LABELS,
        ("raw/split.json", "'val' is empty"),
    ),
    "split, one video to train": Row(
        as_json("raw/split.json", lambda s: s.update(train=["seed0000"])),
        LABELS,
        (f"{R}, part 'train': quality", "the only score", "add videos"),
    ),
    "split, broken JSON": Row(
        text("raw/split.json", '{"train":\n ["seed0000",]}'), LABELS, ("raw/split.json:2:", "JSON")
    ),
    "split, no such file": Row(
        gone("raw/split.json"), LABELS, ("raw/split.json: No such file", "check that path")
    ),
    "split, shares above 1": Row(
        nothing,
        LABELS.replace("--split raw/split.json", "--eval_share 0.9 --val_share 0.2"),
        ("shares of 0.9", "less than 1"),
    ),
    # Finished labels
    "MOS, NaN": Row(
        swapped("raw/MOS.json", "20.0", "NaN"),
        FINISHED,
        ("raw/MOS.json: seed0000: quality is NaN", "0..100"),
    ),
    "MOS, 101": Row(
        swapped("raw/MOS.json", "25.0", "101"),
        FINISHED,
        ("raw/MOS.json: seed0001: quality is 101", "0..100"),
    ),
    "MOS, missing dimension": Row(
        as_json("raw/MOS.json", lambda mos: mos["seed0002"].pop("authenticity")),
        FINISHED,
        ("raw/MOS.json: seed0002: no score of authenticity", "add it"),
    ),
    "MOS, broken JSON": Row(
        line("raw/MOS.json", 3, '  "quality": 20.0'),
        FINISHED,
        ("raw/MOS.json:4:3: not JSON", "correct the file there"),
    ),
    "MOS, a list of pairs": Row(
        text("raw/MOS.json", json.dumps({v: [1, 2] for v in VIDEOS})),
        FINISHED,
        ("raw/MOS.json: seed0000: [1, 2]", "which score is which"),
    ),
    "MOS, all alike": Row(
        text("raw/MOS.json", json.dumps({v: dict.fromkeys(DIMENSIONS, 50) for v in VIDEOS})),
        FINISHED,
        ("raw/MOS.json", "scores are 50", "differ"),
    ),
    "categories, unknown": Row(
        swapped("raw/distortion_label.json", "Eye", "Ear"),
        FINISHED,
        ("raw/distortion_label.json: seed0000: 'Ear Distortions'", "nine"),
    ),
    "categories, none": Row(
        as_json("raw/distortion_label.json", lambda c: c["seed0001"].clear()),
        FINISHED,
        ("raw/distortion_label.json: seed0001: no categories", "No Distortion"),
    ),
    "categories, a video missing": Row(
        as_json("raw/distortion_label.json", lambda c: c.pop("seed0001")),
        FINISHED,
        ("raw/distortion_label.json: 1 of 8 videos", "seed0001"),
    ),
    # Clips
    "clips, no such folder": Row(
        nothing,
        LABELS.replace("--videos clips", "--videos gone"),
        ("gone does not exist", "the path"),
    ),
    "clips, an empty folder": Row(
        lambda root: [path.unlink() for path in (root / "clips").iterdir()],
        LABELS,
        ("clips: no clips", ".mp4"),
    ),
    "clips, no video, to be cut into strips": Row(
        lambda root: [
            shutil.rmtree(root / "made"),
            *(text(f"clips/{v}.mp4", "x" * 99)(root) for v in ("seed0001", "seed0002")),
        ],
        LABELS.replace("--strips strips", ""),
        ("give no strip: seed0001, seed0002", "clips/seed0001.mp4"),
    ),
    "clips, of another naming": Row(
        lambda root: (root / "clips/seed0000.mp4").rename(root / "clips/face.mp4"),
        LABELS.replace("--split raw/split.json", ""),
        ("'face'", "seed0042"),
    ),
    # Options
    "options, ratings and scores": Row(
        nothing, LABELS + " --mos raw/MOS.json", ("either raw ratings", "MOS.json")
    ),
    "options, no scores": Row(
        nothing, LABELS.replace("--ratings raw/ratings.csv", ""), ("either raw ratings",)
    ),
    "options, remarks and categories": Row(
        nothing,
        LABELS + " --distortions raw/distortion_label.json",
        ("either raw remarks", "not both"),
    ),
    "options, unknown rule": Row(nothing, LABELS + " --rule mean", ("'mean'", "zscore, mle")),
    "options, unknown screening": Row(
        nothing, LABELS + " --screening bt600", ("'bt600'", "bt500, bt500_z, p913")
    ),
    "options, unknown edges": Row(nothing, LABELS + " --edges five", ("'five'", "equal_count")),
    "options, unknown edges of finished scores": Row(
        nothing, FINISHED + " --edges five", ("'five'", "equal_count")
    ),
}


def sentence(command: str, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Status, standard error and standard output; a warning by NumPy counts as an error."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            status = cli.main(command.split())
        except SystemExit as stop:
            status = stop.code
    output, error = capsys.readouterr()
    return status, error, output


def assert_clear(error: str, command: str, words: tuple[str, ...]) -> None:
    """One line after the verb, without a traceback, with all the words."""
    verb, action = command.split()[:2]
    assert error.startswith(f"lmme3dhf {verb} {action}: ")
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    assert "[Errno" not in error
    for word in words:
        assert word in error


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_annotations_are_one_sentence_and_change_nothing(root, capsys, name):
    """Into a new folder and into a finished data set. Catches a traceback, a sentence without its
    place, and anything left behind: half a set, the hidden folder, an empty folder.
    """
    spoil, command, words = BAD_LABELS[name]
    spoil(root)
    before = tree(root)
    for out in ("made", "new/set"):
        status, error, _ = sentence(command.format(out=out), capsys)
        assert tree(root) == before
        assert_clear(error, command, words)
        assert status == 1


# Check


def at(kind: str, part: str, dimension: str) -> str:
    return f"made/{kind}/{part}_{dimension}.json"


def answer(number: int, old: str, new: str) -> Callable[[list], None]:
    """One piece of the answer in a row of a list, counted from 1."""

    def change(rows: list) -> None:
        message = rows[number - 1]["messages"][1]
        assert old in message["content"]
        message["content"] = message["content"].replace(old, new, 1)

    return change


# Fault -> (how it comes about, options, what the line about it must say).
FAULTS: dict[str, tuple[Spoil, str, tuple[str, ...]]] = {
    "MOS, NaN": (
        as_json("made/MOS.json", lambda mos: mos["seed0002"].update(quality=math.nan)),
        "",
        ("MOS.json: seed0002: quality is NaN", "0..100"),
    ),
    "MOS, 101": (
        as_json("made/MOS.json", lambda mos: mos["seed0002"].update(quality=101)),
        "",
        ("MOS.json: seed0002: quality is 101", "0..100"),
    ),
    "MOS, missing dimension": (
        as_json("made/MOS.json", lambda mos: mos["seed0002"].pop("quality")),
        "",
        ("MOS.json: seed0002: no score of quality", "add it"),
    ),
    "MOS, broken JSON": (
        line("made/MOS.json", 4, '  "authenticity" 50'),
        "",
        ("MOS.json:4:18: not JSON", "correct"),
    ),
    "categories, unknown": (
        swapped("made/distortion_label.json", "Eye", "Ear"),
        "",
        ("distortion_label.json: seed0000: 'Ear Distortions'", "nine"),
    ),
    "list, broken JSON": (
        lambda root: text(
            at("text", "val", "quality"), (root / at("text", "val", "quality")).read_bytes()[:-1]
        )(root),
        "",
        ("text/val_quality.json:1:", "not JSON", "correct the file there"),
    ),
    "list, no messages": (
        as_json(at("text", "train", "quality"), lambda rows: rows[2].pop("messages")),
        "",
        ("text/train_quality.json: row 3: keys ['videos']", "messages and videos"),
    ),
    "list, unknown level": (
        as_json(
            at("text", "train", "quality"),
            lambda rows: rows[2]["messages"][1].update(
                content="The quality of the human face in this video is great."
            ),
        ),
        "",
        ("text/train_quality.json: row 3: level 'great'", "bad, poor, fair, good, excellent"),
    ),
    "list, level against score": (
        as_json(at("numerical", "train", "quality"), answer(1, "is bad", "is good")),
        "",
        ("numerical/train_quality.json: row 1: seed0000 is called good", "is bad"),
    ),
    "list, score against MOS": (
        as_json("made/MOS.json", lambda mos: mos["seed0002"].update(quality=39.0)),
        "",
        ("numerical/val_quality.json: row 1: seed0002", "in MOS.json"),
    ),
    "list, score of 101": (
        as_json(
            at("numerical", "train", "quality"),
            lambda rows: rows[0]["messages"][1].update(
                content="The quality of the human face in this video is bad. (101)"
            ),
        ),
        "",
        ("numerical/train_quality.json: row 1: score 101", "0..100"),
    ),
    "list, a row twice": (
        as_json(at("text", "train", "quality"), lambda rows: rows.append(rows[0])),
        "",
        ("text/train_quality.json: row 5: seed0000", "row 1 already", "keep one"),
    ),
    "list, no rows": (
        as_json(at("text", "val", "quality"), lambda rows: rows.clear()),
        "",
        ("text/val_quality.json: expected a JSON array", "at least one row"),
    ),
    "split, wrong hash": (
        as_json("made/splits.json", lambda split: split.update(sha256="0" * 64)),
        "",
        ("splits.json: its parts are not those", "restore the file"),
    ),
    "split, a face it denies to share": (
        text(
            "raw/split.json",
            json.dumps(
                {
                    "latents_shared": False,
                    "parts": {**SPLIT, "val": ["seed0002"], "eval": ["seed0202"]},
                }
            ),
        ),
        "raw/split.json",
        ("raw/split.json: 1 of 3 faces", "but by the file none is"),
    ),
    "levels, five edges": (
        as_json("made/levels.json", lambda edges: edges["quality"].pop()),
        "",
        ("levels.json: quality levels", "expected 6"),
    ),
    "levels, NaN": (
        as_json("made/levels.json", lambda edges: edges["quality"].__setitem__(0, math.nan)),
        "",
        ("levels.json: quality levels", "finite"),
    ),
    "levels, broken JSON": (
        text("made/levels.json", '{"quality": [1, 2'),
        "",
        ("levels.json:1:18: not JSON", "correct"),
    ),
    "fixations, NaN": (
        as_json(
            "made/fixations.json",
            lambda known: known["seed0001"].update(points=[[math.nan, 1]] * 2),
        ),
        "",
        ("fixations.json: seed0001: point [nan, 1]", "finite"),
    ),
    "ratings, 101": (
        line("made/" + R, 4, "ann,seed0002,quality,101"),
        "",
        (f"{R}:4: rating 101", "0..5"),
    ),
    "remarks, missing column": (
        line("made/" + M, 1, "marker,remark"),
        "",
        (f"{M}:1: header is", "marker,video,remark"),
    ),
    "remarks, twice": (
        line("made/" + M, 4, "ann,seed0000,odd eyes"),
        "",
        (f"{M}:4: marker 'ann'", "join the two"),
    ),
    "strip, truncated": (
        lambda root: text(
            "made/image/seed0001.png", (root / "made/image/seed0001.png").read_bytes()[:900]
        )(root),
        "made --decode views",
        ("image/seed0001.png: cannot be read as a picture", "replace it"),
    ),
    "map, gone": (
        lambda root: [path.unlink() for path in (root / "made/saliency_map").glob("seed0001.*")],
        "",
        ("saliency_map: nothing for seed0001",),
    ),
    "clip, gone": (gone("made/video_RGB/seed0001.mp4"), "", ("seed0001.mp4 does not exist",)),
    "clip, no video": (
        text("made/video_RGB/seed0001.mp4", "hello"),
        "made --decode headers",
        ("seed0001.mp4",),
    ),
    "a file of nothing known": (
        nothing,
        "raw/rules.yaml",
        ("raw/rules.yaml: holds none of a list",),
    ),
    "a file of nothing": (text("empty.json", ""), "empty.json", ("empty.json: has 0 bytes",)),
    "an official list, broken in one line": (
        lambda root: text(
            "list.jsonl",
            "\n".join(
                json.dumps(row) if number != 2 else json.dumps(row)[:-1]
                for number, row in enumerate(
                    json.loads((root / at("text", "train", "quality")).read_bytes()), 1
                )
            ),
        )(root),
        "list.jsonl --decode none --video_root clips",
        ("list.jsonl:2:", "not JSON"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_check_names_the_fault_with_its_place(root, capsys, name):
    """On standard output, as the only error of the report, with status 1. Catches a check that
    stops at a traceback, and a fault that drags others behind it.
    """
    spoil, options, words = FAULTS[name]
    spoil(root)
    before = tree(root)
    status, error, output = sentence(f"data check {options or 'made --decode none'}", capsys)
    assert tree(root) == before
    assert error == ""
    assert status == 1
    assert output.splitlines()[-1].startswith("1 error, ")
    (fault,) = output.split("error, ", 1)[1].splitlines()[1:2]
    for word in words:
        assert word in fault


# The other verbs

OTHERS: dict[str, Row] = {
    "labels, into a file": Row(
        nothing, LABELS.format(out="raw/ratings.csv"), ("raw/ratings.csv is a file", "folder")
    ),
    "labels, below a file": Row(
        nothing, LABELS.format(out="raw/ratings.csv/set"), ("raw/ratings.csv is a file", "folder")
    ),
    "labels, a file in the way": Row(
        lambda root: shutil.rmtree(root / "made/text") or text("made/text", "notes")(root),
        LABELS.format(out="made"),
        ("made/text is a file", "in the way", "move it away"),
    ),
    "check, an empty folder": Row(
        lambda root: (root / "empty").mkdir(), "data check empty", ("empty: nothing of a data set",)
    ),
    "check, nothing there": Row(nothing, "data check gone", ("gone: no such file or folder",)),
    "stats, an empty folder": Row(
        lambda root: (root / "empty").mkdir(),
        "data stats empty --out page",
        ("empty: nothing of Gen3DHF is here", "give the folder"),
    ),
    "stats, nothing there": Row(nothing, "data stats gone --out page", ("gone: no such folder",)),
    "stats, MOS of NaN": Row(
        as_json("made/MOS.json", lambda mos: mos["seed0002"].update(quality=math.nan)),
        STATS,
        ("made/MOS.json: seed0002: quality is NaN", "0..100"),
    ),
    "stats, a list that is no JSON": Row(
        text(at("text", "val", "quality"), "[{]"), STATS, ("made/text/val_quality.json:1:3: not",)
    ),
    "stats, a split with a wrong hash": Row(
        as_json("made/splits.json", lambda split: split.update(sha256="0" * 64)),
        STATS,
        ("made/splits.json: its parts", "restore the file"),
    ),
    "stats, a rating of 101": Row(
        line("made/" + R, 4, "ann,seed0002,quality,101"), STATS, (f"made/{R}:4: rating 101",)
    ),
    "stats, broken levels": Row(
        text("made/levels.json", '{"quality": [1, 2'), STATS, ("made/levels.json:1:18: not JSON",)
    ),
    "stats, a dot outside": Row(
        as_json("made/fixations.json", lambda f: f["seed0001"].update(points=[[96, 1], [1, 1]])),
        STATS,
        ("made/fixations.json: seed0001", "96"),
    ),
    "stats, into a file": Row(nothing, "data stats made --out raw/ratings.csv", (R,)),
    "splits, elsewhere than in the repository": Row(
        nothing, "data splits --out new", ("official.json: the official split is not here", "name")
    ),
    "splits, a spoilt official one": Row(
        text("datasets/splits/official.json", '{"train": [}'),
        "data splits --out new",
        ("datasets/splits/official.json:1:12: not JSON",),
    ),
    "splits, too few faces": Row(
        nothing, "data splits --videos clips --out new", ("5 folds of 4 latents", "expected")
    ),
    "splits, another name": Row(
        text("clips/face.mp4", "x"), "data splits --videos clips --out new", ("'face'", "seed0042")
    ),
    "splits, no clips": Row(
        nothing, "data splits --videos gone --out new", ("gone: no such folder", "give the folder")
    ),
    "splits, into a file": Row(
        lambda root: [text(f"clips/seed0{n}04.mp4", "x")(root) for n in (0, 2)],
        "data splits --videos clips --out raw/ratings.csv",
        (R,),
    ),
    "synthesize, no faces": Row(
        nothing, "data synthesize --out new --synthetic.latents 0", ("latents",)
    ),
    "synthesize, too small": Row(
        nothing, "data synthesize --out new --synthetic.latents 9 --synthetic.size_px 7", ("size",)
    ),
    "synthesize, into a file": Row(
        nothing, "data synthesize --out raw/ratings.csv --synthetic.latents 9", (R,)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_verbs_say_it_in_one_sentence_and_change_nothing(root, capsys, name):
    """Catches a traceback, a page or split of half the input, and a message of the system without
    the way on.
    """
    spoil, command, words = OTHERS[name]
    spoil(root)
    before = tree(root)
    status, error, _ = sentence(command, capsys)
    assert tree(root) == before
    assert_clear(error, command, words)
    assert status == 1


# Downloads


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name twice is what is meant
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HONEST = ("image/seed0000.png", b"honest")
ARCHIVES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "parent": (zipped(HONEST, ("../seed0001.png", b"x")), ("'../seed0001.png' leads out",)),
    "absolute": (zipped(HONEST, ("/tmp/seed0001.png", b"x")), ("'/tmp/seed0001.png' has an abs",)),
    "link": (zipped(HONEST, (link("seed0001.png"), b"/etc/passwd")), ("'seed0001.png' is a link",)),
    "twice": (zipped(HONEST, ("a/seed0000.png", b"x")), ("'a/seed0000.png' would both become",)),
    "same name twice": (zipped(HONEST, HONEST), ("would both become seed0000.png",)),
    "bomb": (zipped(HONEST, ("seed0001.png", bytes(4 << 20))), ("'seed0001.png' unpacks from",)),
    "nothing of ours": (zipped(("readme.txt", b"x")), ("'readme.txt'", "right archive")),
    "no archive": (b"<html>not found</html>", ("no zip file", "download it again")),
    "no archive at all": (b"", ("no zip file", "download it again")),
}


@pytest.fixture
def hub(root, monkeypatch) -> Iterator[FakeHub]:
    """A hub that this process is sent to."""
    from huggingface_hub.utils import close_session

    with serving({}) as running:
        for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
        close_session()
        yield running


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_evil_archive_unpacks_nothing(root, hub, capsys, name):
    """Sent with the right hash. Catches a file outside the folder, or half an archive in it."""
    content, words = ARCHIVES[name]
    hub.files["image.zip"] = content
    before = tree(root)
    command = "data download --target_dir new --dataset image"
    status, error, _ = sentence(command, capsys)
    # What was fetched with the right hash may wait in a hidden folder.
    after = {path: c for path, c in tree(root).items() if not path.startswith("new/.download")}
    assert after in (before, {**before, "new": None})
    assert_clear(error, command, ("image.zip", *words))
    assert status == 1


REFUSED: dict[str, Row] = {
    "an unknown part": Row(
        nothing, "data download --target_dir new --dataset pictures", ("not 'pictures'", "image, ")
    ),
    "a file for a folder": Row(
        nothing, f"data download --target_dir {R} --dataset image", (f"{R} is a file", "expected")
    ),
    "another MOS.json": Row(
        nothing, "data download --target_dir made --dataset MOS", ("made/MOS.json", "Move it away")
    ),
    "nothing on the hub": Row(
        nothing, "data download --target_dir new --dataset video", ("no video.zip", "holds")
    ),
    "another repository": Row(
        nothing, "data download --target_dir new --repo_id some/body", ("some/body", "check the")
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_download_that_cannot_be_begun_changes_nothing(root, hub, capsys, name):
    """Catches a folder that is made before anything is known, and a file that is overwritten."""
    spoil, command, words = REFUSED[name]
    spoil(root)
    hub.files["MOS.json"] = b"{}"
    before = tree(root)
    status, error, _ = sentence(command, capsys)
    assert tree(root) == before
    assert_clear(error, command, words)
    assert status == 1


def test_what_came_cut_or_changed_is_not_kept(root, hub, capsys):
    """Twice another content than the hub lists. Catches a file whose hash nobody compared."""
    hub.files["MOS.json"], hub.sent["MOS.json"] = b'{"seed0000": 1}', b'{"seed0000": 2}'
    before = tree(root)
    command = "data download --target_dir new --dataset MOS"
    status, error, _ = sentence(command, capsys)
    after = {path: c for path, c in tree(root).items() if not path.startswith("new/.download")}
    assert after in (before, {**before, "new": None})
    assert_clear(error, command, ("MOS.json: ", "the hub lists 15 bytes", "set HF_ENDPOINT"))
    assert status == 1


# Odd, and legal


class Odd(NamedTuple):
    """An odd input that makes a data set, and the line that names what is odd."""

    spoil: Spoil
    command: str
    line: str
    status: int = 0


def remark(keep: Callable[[str], bool]) -> Spoil:
    """Marker ben's remarks on the videos that are kept."""
    return kept(M, lambda row: row[0] == "ann" or keep(row[1]))


ODD = {
    "a rating missing": Odd(
        line(R, 4, "ann,seed0002,quality,"),
        LABELS,
        "quality: 1 of 32 ratings that could count are missing; seed0002 has fewest, 3",
    ),
    "a row missing": Odd(
        kept(R, lambda row: row[:3] != ["ann", "seed0002", "quality"]),
        LABELS,
        "quality: 1 of 32 ratings that could count are missing; seed0002 has fewest, 3",
    ),
    "one rating a video": Odd(
        kept(R, lambda row: SUBJECTS.index(row[0]) == VIDEOS.index(row[1]) // 2),
        LABELS,
        "authenticity: 8 videos have a single rating that counts, so neither deviation nor "
        f"confidence interval: {', '.join(VIDEOS)}",
    ),
    "one subject": Odd(
        kept(R, lambda row: row[0] == "ann"),
        LABELS,
        "quality: 8 videos have a single rating that counts, so neither deviation nor confidence "
        f"interval: {', '.join(VIDEOS)}",
    ),
    "one subject, most likely": Odd(
        kept(R, lambda row: row[0] == "ann"),
        LABELS + " --rule mle",
        "quality: 8 videos have a single rating that counts, so neither deviation nor confidence "
        f"interval: {', '.join(VIDEOS)}",
    ),
    "a constant rater": Odd(
        lambda root: save(
            root / R,
            "subject,video,dimension,rating",
            *rating_rows(),
            *(f"idle,{video},quality,3" for video in VIDEOS),
        ),
        LABELS,
        "quality: idle left out, gave all 8 videos the same rating, 3",
    ),
    "a subject with one rating": Odd(
        kept(R, lambda row: row[0] != "dot" or row[1] == "seed0000"),
        LABELS,
        "quality: dot left out, rated 1 of 8 videos; two are needed to know a subject's spread",
    ),
    "a marker's empty folder": Odd(
        gone("raw/marks/ben/seed0001.png"), STRIPS, "marker ben has no dot on any video"
    ),
    "a marker's folder missing": Odd(
        lambda root: shutil.rmtree(root / "raw/marks/ben"),
        STRIPS,
        "marker ben has no dot on any video",
    ),
    "a marker's remarks missing": Odd(
        remark(lambda video: False), LABELS, "marker ben has no remark on 8 of 8 videos"
    ),
    "half a marker's remarks missing": Odd(
        remark(lambda video: video < "seed0200"),
        LABELS,
        "marker ben has no remark on 4 of 8 videos",
    ),
    "no marks": Odd(
        nothing,
        LABELS.replace("--marks raw/points.csv", ""),
        "no marks given: no saliency maps",
    ),
    "no remarks": Odd(
        nothing,
        LABELS.replace("--remarks raw/remarks.csv --rules raw/rules.yaml", ""),
        "no remarks given: no distortion answers",
    ),
    "a blank remark": Odd(
        line(M, 4, "ann,seed0001,"), LABELS, "unmatched remark: ann on seed0001: ''"
    ),
    "remarks that say nothing": Odd(
        lambda root: [
            line(M, n, f"{who},seed0001,hm")(root) for n, who in ((4, "ann"), (5, "ben"))
        ],
        LABELS,
        "1 videos are in no distortion list, for their remarks fit no category (extend the phrases "
        "by --rules): seed0001",
        status=3,
    ),
    "a clip in no part": Odd(
        as_json("raw/split.json", lambda split: split["val"].remove("seed0202")),
        LABELS,
        "1 clips are in no part: seed0202",
    ),
    "a face in two parts": Odd(
        as_json("raw/split.json", lambda s: s["train"].append(s["val"].pop())),
        LABELS,
        "1 faces (latents) are in more than one part: 2",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_input_makes_a_set_that_names_the_oddity(root, capsys, name):
    """On standard output and on the card, with finite numbers everywhere, in a set in which the
    check finds nothing. Catches an oddity that is passed over, a NaN in a table or a page, and a
    panel that is thrown out for being small.
    """
    spoil, command, told, expected = ODD[name]
    spoil(root)
    status, error, output = sentence(command.format(out="new"), capsys)
    assert error == ""
    assert status == expected
    assert told in output.splitlines()
    assert f"- {told}" in (root / "new/data_card.md").read_text(encoding="utf-8").splitlines()
    videos = set(json.loads((root / "raw/split.json").read_text(encoding="utf-8"))["train"])
    mos = json.loads((root / "new/MOS.json").read_text(encoding="utf-8"))
    assert videos < set(mos)
    for scores in mos.values():
        assert all(0 <= scores[dimension] <= 100 for dimension in DIMENSIONS)
    with (root / "new/opinion_scores.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 2 * len(mos)
    for row in rows:
        alone = row["ratings"] == "1"
        assert (row["std"] == "") == (row["ci95"] == "") == alone
        cells = [row[c] for c in ("mos", "bad", "poor", "fair", "good", "excellent")]
        assert all(math.isfinite(float(cell)) for cell in (*cells, *filter(None, [row["std"]])))
    for path, content in tree(root / "new").items():
        if path.endswith((".md", ".csv", ".json")):
            assert not re.search(rb"\b(nan|NaN|inf|Infinity)\b", content), path
    status, error, output = sentence("data check new --decode none", capsys)
    assert (status, error) == (0, ""), output


def by_a_spreadsheet(root: Path) -> None:
    """Every table as one in a language with decimal commas exports it: semicolons, UTF-16, and two
    rows of nothing.
    """
    paths = list((root / "raw").glob("*.csv"))
    assert len(paths) == 4
    for path in paths:
        with path.open(encoding="utf-8", newline="") as table:
            rows = list(csv.reader(table))
        stream = io.StringIO(newline="")
        commas = [[re.sub(r"^(\d+)\.(\d+)$", r"\1,\2", cell) for cell in row] for row in rows]
        csv.writer(stream, delimiter=";").writerows([*commas, *[[""] * len(rows[0])] * 2])
        path.write_bytes(stream.getvalue().encode("utf-16"))


@pytest.mark.parametrize("command", [LABELS, WIDE])
def test_tables_of_a_spreadsheet_give_the_same_set(good, root, capsys, command):
    """Catches 3,5 that is refused or read as 35, and a rater without a name in a blank row."""
    by_a_spreadsheet(root)
    assert ";" in (root / R).read_text(encoding="utf-16")
    assert re.search(r";\d,\d", (root / R).read_text(encoding="utf-16"))
    status, error, _ = sentence(command.format(out="new"), capsys)
    assert (status, error) == (0, "")
    made = {path: c for path, c in tree(root / "new").items() if not path.startswith("raw")}
    assert made == {p: c for p, c in tree(good / "made").items() if not p.startswith("raw")}


def in_other_editors(mark: bytes, end: bytes) -> Spoil:
    def spoil(root: Path) -> None:
        paths = [path for path in (root / "raw").iterdir() if path.is_file()]
        assert len(paths) == 9
        for path in paths:
            path.write_bytes(mark + path.read_bytes().replace(b"\n", end))

    return spoil


@pytest.mark.parametrize("command", [LABELS, WIDE, POINTS, FINISHED])
@pytest.mark.parametrize(("mark", "end"), [(b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_marks_of_other_editors_change_nothing(good, root, capsys, command, mark, end):
    """A byte order mark and Windows' line ends in every table, list and rule give the same bytes;
    so do the wide table and JSON in place of CSV. Catches a mark that becomes part of a name.
    """
    in_other_editors(mark, end)(root)
    status, error, _ = sentence(command.format(out="new"), capsys)
    assert (status, error) == (0, "")
    made = {path: c for path, c in tree(root / "new").items() if not path.startswith("raw")}
    reference = good / ("made" if command != FINISHED else "finished")
    expected = {path: c for path, c in tree(reference).items() if not path.startswith("raw")}
    assert len(expected) > 40
    assert made == expected
    for path in (root / "new").rglob("*"):
        if path.suffix in (".json", ".csv") and path.parent.name != "raw":
            path.write_bytes(mark + path.read_bytes().replace(b"\n", end))
    status, error, output = sentence("data check new --decode none", capsys)
    assert (status, error) == (0, ""), output


def test_a_set_without_scores_is_described_with_what_is_missing(root, capsys):
    """Categories alone, with a byte order mark. Catches a page that looks whole."""
    labels = (root / "raw/distortion_label.json").read_bytes()
    text("few/distortion_label.json", b"\xef\xbb\xbf" + labels)(root)
    status, error, _ = sentence("data stats few --out page", capsys)
    assert (status, error) == (0, "")
    page = (root / "page/stats.md").read_text(encoding="utf-8")
    assert "Opinion scores and their levels" in page
    assert "`MOS.json`" in page
    assert not re.search(r"\b(nan|inf)\b", page)


def test_finished_labels_take_the_raw_ones_tables_away(root, capsys):
    """Catches tables of subjects and remarks beside scores and categories of another origin."""
    assert (root / "made/subjects.csv").exists()
    assert sentence(FINISHED.format(out="made"), capsys)[0] == 0
    assert not (root / "made/subjects.csv").exists()
    assert not (root / "made/remark_readings.csv").exists()
