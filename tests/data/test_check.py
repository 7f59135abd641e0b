"""The check of a data set: planted faults of every kind are found where they are and nothing else
is, a clean set and the released lists are accepted, odd media are told.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lmme3dhf.annotations.fixations import write_saliency
from lmme3dhf.data.check import check
from lmme3dhf.data.check.report import Report
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.labels import Sources, build_labels
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import split_hash
from lmme3dhf.data.synthetic.dataset import synthesize
from tests.conftest import shared_data

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE = 32
EYES, MOUTH, GRAIN = "Eye Distortions", "Mouth Distortions", "Blurring / Exposure / Grain"
CLEAN = "No Distortion"

# Two faces under three generators. Levels by hand: the training scores of quality lie between 20
# and 70, those of authenticity between 10 and 60, so that a level is 10 wide, its upper edge
# included.
SPLIT = {"train": ["seed0000", "seed0200", "seed0400"], "eval": ["seed0001", "seed0201"]}
QUALITY = {
    "seed0000": (20.0, "bad"),
    "seed0200": (50.0, "fair"),
    "seed0400": (70.0, "excellent"),
    "seed0001": (35.5, "poor"),
    "seed0201": (59.5, "good"),
}
AUTHENTICITY = {
    "seed0000": (10.0, "bad"),
    "seed0200": (40.0, "fair"),
    "seed0400": (60.0, "excellent"),
    "seed0001": (25.0, "poor"),
    "seed0201": (45.25, "good"),
}
CATEGORIES = {
    "seed0000": [EYES],
    "seed0200": [EYES, MOUTH],
    "seed0400": [CLEAN],
    "seed0001": [GRAIN],
    "seed0201": [EYES, GRAIN],
}
# The grain of seed0001 was seen, but nowhere in particular.
POINTS = {
    "seed0000": [[10, 12]],
    "seed0200": [[10, 12], [45.5, 20]],
    "seed0400": [],
    "seed0001": [],
    "seed0201": [[95, 31]],
}
VIDEOS = list(QUALITY)


def row(video: str, task: str, reply: str) -> dict:
    messages = [
        {"role": "user", "content": "<video>" + PROMPTS[task]},
        {"role": "assistant", "content": reply},
    ]
    return {"messages": messages, "videos": [f"{video}.mp4"]}


def graded(video: str, dimension: str, score: str = "") -> dict:
    _, level = (QUALITY if dimension == "quality" else AUTHENTICITY)[video]
    return row(
        video, dimension, f"The {dimension} of the human face in this video is {level}.{score}"
    )


def save(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def load(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def write_clip(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", SIDE, SIDE
        for number in range(5):
            picture = np.full((SIDE, SIDE, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_map(path: Path, points: list, width: int = 3 * SIDE) -> None:
    grey = np.zeros((SIDE, width), np.uint8)
    for x, y in points:
        grey[int(y), int(x)] = 255
    Image.fromarray(grey).save(path)


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """A small data set without a fault, written by hand."""
    root = tmp_path_factory.mktemp("clean") / "data"
    for folder in ("video_RGB", "image", "saliency_map"):
        (root / folder).mkdir(parents=True)
    for part, videos in SPLIT.items():
        for dimension, scored in (("quality", QUALITY), ("authenticity", AUTHENTICITY)):
            name = f"{part}_{dimension}.json"
            save(root / "text" / name, [graded(v, dimension) for v in videos])
            rows = [graded(v, dimension, f" ({scored[v][0]})") for v in videos]
            save(root / "numerical" / name, rows)
        answers = {v: f"Distortions found: {', '.join(CATEGORIES[v])}" for v in videos}
        rows = [row(v, "distortion", answer) for v, answer in answers.items()]
        save(root / "distortion" / f"{part}.json", rows)
    mos = {v: {"quality": QUALITY[v][0], "authenticity": AUTHENTICITY[v][0]} for v in VIDEOS}
    save(root / "MOS.json", mos)
    save(root / "distortion_label.json", CATEGORIES)
    edges = {"quality": [20, 30, 40, 50, 60, 70], "authenticity": [10, 20, 30, 40, 50, 60]}
    save(root / "levels.json", edges)
    save(root / "splits.json", {"sha256": split_hash(SPLIT), "parts": SPLIT})
    save(root / "fixations.json", POINTS)
    (root / "raw").mkdir()
    ratings = [
        f"{subject},{video},{dimension},{rating}"
        for subject in ("ann", "ben")
        for dimension in ("quality", "authenticity")
        for rating, video in enumerate(VIDEOS, 1)
    ]
    header = "subject,video,dimension,rating"
    (root / "raw" / "ratings.csv").write_text("\n".join([header, *ratings]) + "\n")
    remarks = [f"ann,{video},the eyes look wrong" for video in VIDEOS]
    (root / "raw" / "remarks.csv").write_text("\n".join(["marker,video,remark", *remarks]) + "\n")
    write_clip(root / "video_RGB" / f"{VIDEOS[0]}.mp4")
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, 96, 3), np.uint8))
    for video in VIDEOS:
        if video != VIDEOS[0]:
            shutil.copy(root / "video_RGB" / f"{VIDEOS[0]}.mp4", root / f"video_RGB/{video}.mp4")
        strip.save(root / "image" / f"{video}.png")
        write_map(root / "saliency_map" / f"{video}.png", POINTS[video])
    return root


@pytest.fixture
def root(clean, tmp_path) -> Path:
    """A copy of it to plant faults in."""
    return Path(shutil.copytree(clean, tmp_path / "data"))


def found(path: Path, **options) -> Counter:
    """(severity, kind, place) of all findings."""
    return Counter((f.severity, f.kind, f.place) for f in check(path, **options).findings)


def test_nothing_is_found_in_a_clean_set(clean):
    """With everything decoded. Catches a check that cries wolf, and one that looks at nothing."""
    report = check(clean)
    assert report.findings == []
    assert report.looked_at == {
        "rows": 25,
        "lists": 10,
        "splits": 1,
        "clips": 5,
        "strips": 5,
        "maps": 5,
        "files of opinion scores": 1,
        "files of distortion categories": 1,
        "files of level edges": 1,
        "files of fixations": 1,
        "files of ratings": 1,
        "files of remarks": 1,
    }
    assert report.text().endswith("no errors, no odd things")


def test_nothing_is_found_in_a_synthetic_set(tmp_path):
    """Two faces under ten generators, with every file that is made from the raw annotations.
    Catches a check and a data set that disagree on the layout.
    """
    raw, videos = tmp_path / "raw", tmp_path / "video_RGB"
    synthesize(tmp_path, latents=2, size_px=64, frames=5, fps=4, processes=1, seed=0)
    sources = Sources(
        videos=videos,
        ratings=raw / "ratings.csv",
        marks=raw / "marks",
        remarks=raw / "remarks.csv",
    )
    names = sorted(path.stem for path in videos.iterdir())
    build_labels(tmp_path, sources, {"train": names[::2], "eval": names[1::2]})
    report = check(tmp_path)
    assert report.findings == []
    assert report.looked_at["clips"] == report.looked_at["maps"] == 20
    assert report.looked_at["lists"] == 10


def change(name: str, edit):
    """Plants a fault in a JSON file: `edit` changes its content in place."""

    def plant(root: Path) -> None:
        content = load(root / name)
        edit(content)
        save(root / name, content)

    return plant


def reply(name: str, number: int, old: str, new: str):
    """Plants a fault in the reply of a row, counted from 1."""

    def edit(rows: list) -> None:
        message = rows[number - 1]["messages"][1]
        assert old in message["content"]
        message["content"] = message["content"].replace(old, new)

    return change(name, edit)


def write(name: str, content: str | bytes):
    """Replaces a file."""

    def plant(root: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (root / name).write_bytes(data)

    return plant


def cut(name: str):
    """Keeps the first half of a file."""

    def plant(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])

    return plant


def delete(name: str):
    return lambda root: (root / name).unlink()


def copied(name: str, new: str):
    return lambda root: shutil.copy(root / name, root / new)


def redraw(video: str, points: list, width: int = 96):
    return lambda root: write_map(root / "saliency_map" / f"{video}.png", points, width)


def both(*plants):
    def plant(root: Path) -> None:
        for one in plants:
            one(root)

    return plant


def set_videos(name: str, number: int, videos: object):
    return change(name, lambda rows: rows[number - 1].update(videos=videos))


def json_lines(name: str, broken: str):
    """The list as JSON lines with a broken line in front."""

    def plant(root: Path) -> None:
        lines = [json.dumps(entry) for entry in load(root / name)]
        (root / name).write_text("\n".join([broken, *lines]) + "\n")

    return plant


TRAIN, EVAL = "numerical/train_quality.json", "numerical/eval_quality.json"
TEXT = "text/eval_quality.json"
ANSWERS = "distortion/eval.json"
PLANTED = {
    "row of another form": (
        change(TRAIN, lambda rows: rows.append(7)),
        [("error", "row", f"{TRAIN}: row 4")],
    ),
    "two bad rows in one list": (
        both(reply(TRAIN, 1, "20.0", "101"), reply(TRAIN, 3, "quality", "beauty")),
        [("error", "row", f"{TRAIN}: row 1"), ("error", "row", f"{TRAIN}: row 3")],
    ),
    "score that is no number": (
        reply(EVAL, 2, "59.5", "nan"),
        [("error", "row", f"{EVAL}: row 2")],
    ),
    "unknown level": (reply(TEXT, 1, "poor", "awful"), [("error", "row", f"{TEXT}: row 1")]),
    "address in place of a clip": (
        set_videos(TEXT, 1, "https://example.org/seed0001.mp4"),
        [("error", "row", f"{TEXT}: row 1")],
    ),
    "question and answer apart": (
        reply(TEXT, 2, "quality", "authenticity"),
        [("error", "row", f"{TEXT}: row 2")],
    ),
    "broken line": (
        json_lines(TEXT, '{"messages": ['),
        [("error", "row", f"{TEXT}:1:15")],
    ),
    "broken array": (
        write(TEXT, '[{"messages":\n }]'),
        [("error", "file", f"{TEXT}:2:2")],
    ),
    "level None": (
        reply(TRAIN, 1, "bad", "None"),
        [("odd", "level None", f"{TRAIN}: row 1")],
    ),
    "the same row twice": (
        change(TEXT, lambda rows: rows.append(rows[0])),
        [("error", "duplicate", f"{TEXT}: row 3")],
    ),
    "two answers on one video": (
        change(TEXT, lambda rows: rows.append(graded("seed0001", "quality", " (35.5)"))),
        [("error", "duplicate", f"{TEXT}: row 3")],
    ),
    "absolute path": (
        set_videos(TEXT, 1, ["/nowhere/video_RGB/seed0001.mp4"]),
        [("odd", "absolute path", TEXT), ("odd", "clips not looked for", "DATA")],
    ),
    "a path out of the data set": (
        set_videos(TEXT, 1, ["/etc/passwd"]),
        [("error", "row", f"{TEXT}: row 1")],
    ),
    "a path that is no list": (
        set_videos(TEXT, 1, "seed0001.mp4"),
        [("odd", "videos as text", TEXT)],
    ),
    "list that is a label file": (
        copied("MOS.json", "text/train_all.json"),
        [("error", "file", "text/train_all.json")],
    ),
    "list of no part": (
        copied(TEXT, "text/extra_quality.json"),
        [("odd", "split", "text/extra_quality.json")],
    ),
    "score unlike MOS.json": (
        reply(EVAL, 1, "35.5", "35.6"),
        [("error", "score", f"{EVAL}: row 1")],
    ),
    "NaN in MOS.json": (
        change("MOS.json", lambda mos: mos["seed0001"].update(quality=float("nan"))),
        [("error", "score", "MOS.json: seed0001")],
    ),
    "score of 101 in MOS.json": (
        change("MOS.json", lambda mos: mos["seed0001"].update(authenticity=101)),
        [("error", "score", "MOS.json: seed0001")],
    ),
    "video missing in MOS.json": (
        change("MOS.json", lambda mos: mos.pop("seed0201")),
        [
            ("error", "score", f"{kind}/eval_{dimension}.json: row 2")
            for kind in ("text", "numerical")
            for dimension in ("quality", "authenticity")
        ],
    ),
    "key twice in MOS.json": (
        lambda root: (root / "MOS.json").write_text(
            (root / "MOS.json").read_text()[:-1] + ', "seed0000": {"quality": 20.0,'
            ' "authenticity": 10.0}}'
        ),
        [("error", "score", "MOS.json: 'seed0000'")],
    ),
    "MOS.json that is not JSON": (
        write("MOS.json", '{"seed0000":\n x}'),
        [("error", "file", "MOS.json:2:2")],
    ),
    "MOS.json that is a split": (
        copied("splits.json", "MOS.json"),
        [("error", "file", "MOS.json")],
    ),
    "score in MOS.json alone": (
        change("MOS.json", lambda mos: mos.update(seed0401=mos["seed0001"])),
        [
            ("odd", "unused label", "MOS.json: seed0401"),
            ("odd", "unrated", "MOS.json: seed0401"),
            ("error", "missing clip", "video_RGB/seed0401.mp4"),
            ("error", "missing strip", "image"),
            ("error", "missing map", "saliency_map"),
        ],
    ),
    "level unlike its score": (
        reply(EVAL, 2, "good", "excellent"),
        [("error", "level", f"{EVAL}: row 2")],
    ),
    "level unlike its score, without levels.json": (
        both(delete("levels.json"), reply(EVAL, 2, "good", "excellent")),
        [("error", "level", f"{EVAL}: row 2")],
    ),
    "level unlike its score, without scores to fit on": (
        both(
            delete("levels.json"),
            lambda root: shutil.rmtree(root / "numerical"),
            reply("text/train_quality.json", 1, "bad", "excellent"),
        ),
        [("error", "level", "text/train_quality.json: row 1")],
    ),
    "text unlike numbers": (
        reply(TEXT, 1, "poor", "fair"),
        [("error", "level", f"{TEXT}: row 1")],
    ),
    "five level edges": (
        change("levels.json", lambda edges: edges["quality"].pop()),
        [("error", "file", "levels.json")],
    ),
    "level edges of other scores": (
        change("levels.json", lambda edges: edges["quality"].__setitem__(0, 19)),
        [("odd", "level edges", "levels.json: quality")],
    ),
    "row missing": (
        change(TEXT, lambda rows: rows.pop()),
        [("error", "missing row", TEXT)],
    ),
    "row missing, without a split": (
        both(delete("splits.json"), change(EVAL, lambda rows: rows.pop())),
        [("error", "missing row", EVAL)],
    ),
    "training video in the evaluation": (
        change(TEXT, lambda rows: rows.append(graded("seed0000", "quality"))),
        [("error", "split", f"{TEXT}: row 3")],
    ),
    "training video in the evaluation, without a split": (
        both(
            delete("splits.json"),
            lambda root: shutil.rmtree(root / "numerical"),
            change(TEXT, lambda rows: rows.append(graded("seed0000", "quality"))),
        ),
        [("error", "split", f"{TEXT}: row 3"), ("odd", "shared face", "DATA")],
    ),
    "split changed by hand": (
        change("splits.json", lambda split: split["parts"]["eval"].pop()),
        [("error", "file", "splits.json")],
    ),
    "video twice in the split": (
        lambda root: save(
            root / "splits.json", {**SPLIT, "eval": ["seed0001", "seed0201", "seed0001"]}
        ),
        [("error", "split", "splits.json")],
    ),
    "second split with a face on both sides": (
        lambda root: save(
            root / "splits_2.json",
            {"latents_shared": False, "parts": {"train": ["seed0000"], "eval": ["seed0200"]}},
        ),
        [("error", "shared face", "splits_2.json")],
    ),
    "categories unlike the label file": (
        reply(ANSWERS, 2, EYES, MOUTH),
        [("error", "category", f"{ANSWERS}: row 2")],
    ),
    "unknown category": (
        change("distortion_label.json", lambda labels: labels.update(seed0001=["Legs"])),
        [("error", "category", "distortion_label.json: seed0001")],
    ),
    "empty label file": (
        write("distortion_label.json", b""),
        [("error", "file", "distortion_label.json")],
    ),
    "rating of 6": (
        lambda root: (root / "raw/ratings.csv").write_text(
            (root / "raw/ratings.csv").read_text().replace("authenticity,5", "authenticity,6", 1)
        ),
        [("error", "file", "raw/ratings.csv:11")],
    ),
    "nobody rated a video": (
        lambda root: (root / "raw/ratings.csv").write_text(
            "\n".join(
                line
                for line in (root / "raw/ratings.csv").read_text().split("\n")
                if "seed0201" not in line
            )
        ),
        [("odd", "unrated", "MOS.json: seed0201")],
    ),
    "remarks with another header": (
        lambda root: (root / "raw/remarks.csv").write_text(
            (root / "raw/remarks.csv").read_text().replace("marker", "who", 1)
        ),
        [("error", "file", "raw/remarks.csv:1")],
    ),
    "clip missing": (
        delete("video_RGB/seed0001.mp4"),
        [("error", "missing clip", "text/eval_authenticity.json: row 1")],
    ),
    "all clips missing": (
        lambda root: shutil.rmtree(root / "video_RGB"),
        [("error", "missing clip", "video_RGB")],
    ),
    "clip cut off": (
        cut("video_RGB/seed0201.mp4"),
        [("error", "clip", "text/eval_authenticity.json: row 2")],
    ),
    "clip that nothing names": (
        copied("video_RGB/seed0201.mp4", "video_RGB/seed0999.mp4"),
        [("odd", "unused file", "video_RGB/seed0999.mp4")],
    ),
    "strip missing": (
        delete("image/seed0400.png"),
        [("error", "missing strip", "image")],
    ),
    "strip cut off": (cut("image/seed0400.png"), [("error", "strip", "image/seed0400.png")]),
    "strip of two views": (
        both(
            lambda root: Image.new("RGB", (64, 32)).save(root / "image" / "seed0400.png"),
            redraw("seed0400", [], 64),
        ),
        [("odd", "strip", "image/seed0400.png")],
    ),
    "map missing": (
        delete("saliency_map/seed0400.png"),
        [("error", "missing map", "saliency_map")],
    ),
    "map cut off": (
        cut("saliency_map/seed0000.png"),
        [("error", "map", "saliency_map/seed0000.png")],
    ),
    "map of one view": (
        redraw("seed0000", [[3, 3]], SIDE),
        [("error", "map", "saliency_map/seed0000.png")],
    ),
    "map on a clean face": (
        both(delete("fixations.json"), redraw("seed0400", [[3, 3]])),
        [("odd", "map", "saliency_map/seed0400.png")],
    ),
    "empty map with points": (
        redraw("seed0000", []),
        [("error", "map", "saliency_map/seed0000.png")],
    ),
    "point outside the strip": (
        change("fixations.json", lambda points: points["seed0201"].append([96, 3])),
        [("error", "fixation", "fixations.json: seed0201")],
    ),
    "points on a strip of another size": (
        change(
            "fixations.json",
            lambda points: points.update(
                seed0000={"points": [[10, 12]], "dots": {"ann": 1}, "size": [64, 32]}
            ),
        ),
        [("error", "fixation", "fixations.json: seed0000")],
    ),
    "points of nobody": (
        change("fixations.json", lambda points: points.update(seed0999=[[1, 1]])),
        [("odd", "unused label", "fixations.json: seed0999")],
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else_is(root, fault):
    """Catches a check that misses it, tells the wrong place, or tells one fault many times."""
    plant, expected = PLANTED[fault]
    plant(root)
    expected = Counter(tuple(str(root) if p == "DATA" else p for p in one) for one in expected)
    assert found(root) == expected


def test_all_faults_are_told_at_once_and_many_of_a_kind_are_counted(root):
    """Catches a check that stops at the first fault, and one that prints 2,000 lines."""
    change("MOS.json", lambda mos: [mos.update({v: {"quality": 101}}) for v in VIDEOS])(root)
    reply(TEXT, 1, "poor", "awful")(root)
    delete("saliency_map/seed0400.png")(root)
    set_videos(TRAIN, 1, ["/nowhere/seed0000.mp4"])(root)
    report = check(root)
    assert (report.errors, report.odd) == (7, 2)
    text = report.text(shown=3)
    assert text.index("error, score (5):") < text.index("odd, absolute path (1):")
    assert text.count("no score of authenticity") + text.count("quality is 101") == 3
    assert "... and 2 more" in text
    assert text.endswith("\n7 errors, 2 odd things")
    assert str(root) + "/" not in text


@pytest.mark.parametrize(
    ("message", "place", "sentence"),
    [
        ("a/list.json:3:14: not JSON (Extra data)", "list.json:3:14", "not JSON (Extra data)"),
        ("a/list.json: row 2: no list", "list.json", "row 2: no list"),
        ("a/list.json is broken: replace it", "list.json", "is broken: replace it"),
        ("point 3 is outside: move it", "list.json", "point 3 is outside: move it"),
    ],
)
def test_the_place_is_taken_out_of_a_message(tmp_path, message, place, sentence):
    """Catches half a sentence taken for a place, and a path told twice."""
    path = tmp_path / "list.json"
    report = Report(tmp_path)
    report.add_message("file", path, message.replace("a/list.json", str(path)))
    assert [(f.place, f.sentence) for f in report.findings] == [(place, sentence)]


def test_media_are_opened_only_as_deep_as_asked(root):
    """A clip with a damaged picture, one that is cut off, a strip and a map without their ends.
    Catches a quick check that decodes, and a thorough one that does not.
    """
    clip = root / "video_RGB" / "seed0001.mp4"
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data, (start, size) = bytearray(clip.read_bytes()), packets[-1]
    data[start + 4 : start + size] = bytes(size - 4)
    clip.write_bytes(data)
    cut("image/seed0400.png")(root)
    cut("saliency_map/seed0000.png")(root)
    cut("video_RGB/seed0201.mp4")(root)
    names = {
        decode: Counter(f.kind for f in check(root, decode=decode).findings)
        for decode in ("views", "headers", "none")
    }
    assert names["views"] == {"clip": 2, "strip": 1, "map": 1}
    assert names["headers"] == {"clip": 1, "map": 1}
    assert names["none"] == {}
    delete("video_RGB/seed0201.mp4")(root)
    assert Counter(f.kind for f in check(root, decode="none").findings) == {"missing clip": 1}
    with pytest.raises(ValueError, match="decode='all'"):
        check(root, decode="all")


def test_files_are_told_apart_by_what_they_hold(root, tmp_path):
    """Each under a name without a meaning. Catches a check by file name."""
    places = [
        *("MOS.json", "distortion_label.json", "levels.json", "splits.json", "fixations.json"),
        *("raw/ratings.csv", "raw/remarks.csv", TEXT, "image/seed0000.png"),
        *("saliency_map/seed0000.png", "video_RGB/seed0000.mp4"),
    ]
    expected = [
        *("files of opinion scores", "files of distortion categories", "files of level edges"),
        *("splits", "files of fixations", "files of ratings", "files of remarks", "lists"),
        *("strips", "maps", "clips"),
    ]
    for number, (place, what) in enumerate(zip(places, expected, strict=True)):
        path = tmp_path / f"file{number}{Path(place).suffix}"
        shutil.copy(root / place, path)
        report = check(path, video_root=root / "video_RGB")
        assert report.findings == [], place
        assert what in report.looked_at, place
    points = tmp_path / "file.csv"
    points.write_text("marker,video,x,y\nann,seed0000,3,4\n")
    assert check(points).looked_at == {"files of marked points": 1}
    points.write_text("marker,video,x,y\nann,seed0000,3,4\nben,seed0000,3,?\n")
    assert found(points) == {("error", "file", f"{points}:3"): 1}
    points = tmp_path / "file.json"
    save(points, {"seed0000": {"ann": [[3, 4]], "ben": []}, "seed0001": {"ann": []}})
    assert check(points).looked_at == {"files of marked points": 1}
    other = tmp_path / "notes.txt"
    other.write_text("remember the milk\n")
    assert [(f.kind, f.place) for f in check(other).findings] == [("file", str(other))]
    other.write_bytes(b"")
    assert [f.sentence for f in check(other).findings] == ["has 0 bytes; copy or download it again"]


def test_a_list_alone_is_checked_with_the_scale_that_is_there(root):
    """By levels.json, then by the training list beside it, then by the order of its own scores: a
    level one step too high is found by the first two, one out of order by all.
    """
    reply(EVAL, 2, "good", "excellent")(root)
    level = ("error", "level", f"{root / EVAL}: row 2")
    assert found(root / EVAL) == {level: 1}
    delete("levels.json")(root)
    assert found(root / EVAL) == {level: 1}
    delete(TRAIN)(root)
    for video, score in (("seed0200", " (50.0)"), ("seed0400", " (70.0)")):
        change(EVAL, lambda rows, v=video, s=score: rows.append(graded(v, "quality", s)))(root)
    # poor, fair, excellent, excellent; then with bad in the third place.
    assert found(root / EVAL) == {}
    reply(EVAL, 2, "excellent", "bad")(root)
    assert found(root / EVAL) == {level: 1}


def test_a_video_root_is_where_clips_are_sought(root, tmp_path):
    """Catches clips beside the list that stand in for those that will be used."""
    (root / "video_RGB").rename(tmp_path / "clips")
    assert found(root, video_root=tmp_path / "clips") == {}
    (tmp_path / "clips" / "seed0001.mp4").unlink()
    missing = ("error", "missing clip", "text/eval_authenticity.json: row 1")
    assert found(root, video_root=tmp_path / "clips") == {missing: 1}


def test_a_map_in_two_forms_must_be_one_map(root):
    """The picture and the numbers beside it. Catches a picture of an older map, which people look
    at while the model learns the other.
    """
    folder = root / "saliency_map"
    saliency_HW = np.zeros((SIDE, 96), np.float32)
    saliency_HW[12, 10], saliency_HW[12, 11] = 1, 0.3
    write_saliency(folder, "seed0000", saliency_HW)
    assert {path.name for path in folder.glob("seed0000.*")} == {"seed0000.npz", "seed0000.png"}
    assert found(root) == {}
    redraw("seed0000", [[10, 13]])(root)
    assert found(root) == {("error", "map", "saliency_map/seed0000.png"): 1}


def test_nothing_to_check_is_said(tmp_path):
    """Catches a wrong path that is found to be without errors."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"nothing of a data set|no such file"):
            check(path)


def test_what_is_not_looked_at_is_named(root):
    """Catches a folder that everybody believes to be checked."""
    (root / "truth.json").write_text('{"seed0000": {"opinion": [1, 2]}}')
    # Derived from MOS.json; looks like a table of ratings, with one row a video and dimension.
    header = "video,dimension,mos,std,ratings,ci95,level"
    (root / "opinion_scores.csv").write_text(f"{header}\nseed0000,quality,20.0,,,,bad\n")
    (root / "remark_readings.csv").write_text("marker,video,remark,categories\n")
    (root / "raw" / "marks").mkdir()
    (root / "text" / "notes.txt").write_text("?")
    report = check(root, decode="none")
    assert report.findings == []
    assert report.passed_over == [
        "opinion_scores.csv",
        "remark_readings.csv",
        "truth.json",
        "raw/marks",
        "text/notes.txt",
    ]
    assert (
        "passed over: opinion_scores.csv, remark_readings.csv, truth.json, raw/m" in report.text()
    )
    assert "passed over: opinion_scores.csv and 4 more" in report.text(shown=1)


def test_a_check_without_clips_needs_no_torch(root):
    """In a fresh interpreter. Catches seconds of imports before a list is looked at."""
    code = (
        "import sys; from lmme3dhf.data.check import check\n"
        "assert check(sys.argv[1], decode='none').findings == []\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_a_list_with_scores_of_1_to_5_is_odd(tmp_path):
    """Catches a list that trains a metric of 0 to 100 on fives."""
    rows = [graded(video, "quality", f" ({QUALITY[video][0] / 20})") for video in VIDEOS]
    save(tmp_path / "train_quality.json", rows)
    report = check(tmp_path / "train_quality.json", decode="none")
    (found,) = [f for f in report.findings if f.kind == "scale"]
    assert "train_quality.json" in found.place
    assert "multiply them by 20" in found.sentence


def test_the_released_lists_are_accepted_and_what_is_odd_in_them_is_told():
    """Known by hand: the lowest score of each dimension is called None (seed0642 and seed0750),
    every path is somebody's and no list, and 176 faces are on both sides. Catches errors in sound
    lists, and 1,600 lines about their paths.
    """
    folder = shared_data("gen3dhf_annotations")
    report = check(folder)
    assert report.errors == 0
    assert report.looked_at == {"rows": 8000, "lists": 8}
    told = {(f.kind, f.place): f.sentence for f in report.findings}
    assert set(told) == {
        *(
            (kind, path.relative_to(folder).as_posix())
            for path in folder.rglob("*.json")
            for kind in ("absolute path", "videos as text")
        ),
        *(("level None", f"{kind}/train_quality.json: row 1037") for kind in ("text", "numerical")),
        *(
            ("level None", f"{kind}/train_authenticity.json: row 1347")
            for kind in ("text", "numerical")
        ),
        ("shared face", str(folder)),
        ("clips not looked for", str(folder)),
    }
    assert told["shared face", str(folder)].startswith("176 of 200 faces")
    assert told["absolute path", "text/train_quality.json"].startswith("1600 of 1600 rows")
    assert told["videos as text", "text/eval_quality.json"].startswith("400 of 400 rows")
    assert told["clips not looked for", str(folder)].startswith("2000 clips")
    assert "seed0642" in told["level None", "text/train_quality.json: row 1037"]
    assert len(report.text().split("\n")) < 35


def test_a_fault_in_a_released_list_is_found(tmp_path):
    """One level of 400 changed. Catches a scale so loose that it accepts anything."""
    shutil.copytree(shared_data("gen3dhf_annotations"), tmp_path / "lists")
    name = "numerical/eval_authenticity.json"
    reply(name, 77, " is ", " is not ")(tmp_path / "lists")
    assert found(tmp_path / "lists")["error", "row", f"{name}: row 77"] == 1
    shutil.copy(shared_data("gen3dhf_annotations", *name.split("/")), tmp_path / "lists" / name)
    rows = load(tmp_path / "lists" / name)
    level = rows[76]["messages"][1]["content"].split(" is ")[1].split(".")[0]
    reply(name, 77, level, "bad" if level != "bad" else "poor")(tmp_path / "lists")
    errors = [f for f in check(tmp_path / "lists").findings if f.severity == "error"]
    assert [(f.kind, f.place) for f in errors] == [("level", f"{name}: row 77")]


# What the manifest of the real inputs says about them.
ODD_CLIPS = {
    "decord__corrupted.mp4": "breaks after",
    "liveportrait-lfspointer__showcase.gif": "Git LFS pointer",
    "pillow__images_hopper.gif": "still picture",
    "sadtalker__itosinger1.wav": "no video stream",
    "small__Mpeg4.mp4": "no video stream",
    "small__webm.webm": "",
    "elite-next3d__test_0_.mp4": None,
    "llamafactory__2.avi": None,
    "decord__video_90.mov": None,
}


def test_odd_media_behind_a_list_are_told_row_by_row(tmp_path):
    """Real files, broken in ways nobody planted. Catches a batch that ends at the first of them,
    and sound but unusual clips that are refused.
    """
    folder = shared_data("odd")
    rows = [dict(graded("seed0000", "quality"), videos=[name]) for name in ODD_CLIPS]
    save(tmp_path / "list.json", rows)
    report = check(tmp_path / "list.json", video_root=folder)
    told = {f.place: f for f in report.findings}
    for number, cause in enumerate(ODD_CLIPS.values(), 1):
        finding = told.pop(f"{tmp_path / 'list.json'}: row {number}", None)
        assert (finding is None) == (cause is None), number
        if finding is not None:
            assert finding.kind == "clip"
            assert cause in finding.sentence
    assert not told
    assert report.looked_at["clips"] == len(ODD_CLIPS)


@pytest.mark.filterwarnings("ignore:Invalid APNG")
def test_every_odd_file_by_itself_gives_a_report():
    """Catches an error of a library that nobody turns into a sentence."""
    files = sorted(shared_data("odd").iterdir())
    assert len(files) > 50
    told = {}
    for path in files:
        report = check(path)
        assert report.looked_at or report.findings, path
        told[path.name] = [(f.severity, f.kind) for f in report.findings]
    assert told["pillow__images_truncated_image.png"] == [("error", "strip")]
    assert told["pillow__images_hopper_16bit_plain.pgm"] == [("error", "file")]
    assert told["pillow__images_hopper_orientation_2.jpg"] == [("odd", "strip")]
    assert told["small__jxl.jxl"] == [("error", "clip")]
    assert told["llamafactory__3.mp4"] == []


def test_links_that_lead_nowhere_are_errors(root):
    """A label file, a list, one clip, and a folder. Catches a set whose files are gone and that
    passes because none of them is looked at, and a check that ends at the first.
    """
    for name in ("MOS.json", EVAL, "video_RGB/seed0001.mp4", "saliency_map"):
        path = root / name
        path.rename(root.parent / path.name)
        path.symlink_to("nowhere")
    levels = found(root)
    places = {place for _, _, place in levels}
    assert {"MOS.json", EVAL, "saliency_map"} <= places
    said = check(root).text()
    assert "seed0001.mp4 is a link to nowhere" in said
    assert said.count("is a link to nowhere") == 4


def test_clips_in_a_subfolder_of_the_video_root_are_pointed_out(root):
    """Catches advice to give what was given."""
    deeper = root / "video_RGB" / "all"
    deeper.mkdir()
    for clip in sorted((root / "video_RGB").glob("*.mp4")):
        clip.rename(deeper / clip.name)
    assert f"but {deeper.relative_to(root)} has them" in check(root).text().replace(f"{root}/", "")
