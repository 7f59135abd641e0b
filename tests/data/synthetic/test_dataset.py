"""A whole synthetic Gen3DHF, very small: its files, its labels, and going on after a kill."""

import json
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from lmme3dhf.annotations import csv_rows
from lmme3dhf.annotations.fixations import read_fixations, read_saliency
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.labels import Sources, build_labels
from lmme3dhf.data.splits import grouped_split, latent, read_split
from lmme3dhf.data.synthetic.clips import ClipRenderer, turntable_yaws
from lmme3dhf.data.synthetic.dataset import synthesize
from lmme3dhf.data.synthetic.generators import clip_plan, video_name
from lmme3dhf.data.synthetic.raters import MARKERS
from lmme3dhf.files import file_hash
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS, NO_DISTORTION
from tests.conftest import DIMENSIONS

SIZE, FRAMES, FPS, LATENTS, SEED = 64, 5, 4, 2, 0
VIDEOS = sorted(video_name(g, n) for g in range(10) for n in range(LATENTS))


def make(root: Path) -> None:
    synthesize(root, latents=LATENTS, size_px=SIZE, frames=FRAMES, fps=FPS, processes=1, seed=SEED)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make(folder)
    split = grouped_split(VIDEOS, {"train": 0.5, "eval": 0.5}, np.random.default_rng(0))
    raw = folder / "raw"
    sources = Sources(
        videos=folder / "video_RGB",
        ratings=raw / "ratings.csv",
        marks=raw / "marks",
        remarks=raw / "remarks.csv",
    )
    build_labels(folder, sources, split)
    return folder


def content(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_the_layout_is_the_one_of_the_release(root):
    """The exact set of files. Catches a file that is missing, misnamed, or left behind."""
    expected = {
        *(f"video_RGB/{video}.mp4" for video in VIDEOS),
        *(f"image/{video}.png" for video in VIDEOS),
        *(f"saliency_map/{video}{end}" for video in VIDEOS for end in (".png", ".npz")),
        *(f"fixation_map/{video}.png" for video in VIDEOS),
        *(f"raw/clips/{video}.json" for video in VIDEOS),
        *(
            f"{kind}/{part}_{d}.json"
            for kind in ("text", "numerical")
            for part in ("train", "eval")
            for d in DIMENSIONS
        ),
        *(f"distortion/{part}.json" for part in ("train", "eval")),
        *(f"{name}.json" for name in ("MOS", "distortion_label", "fixations", "levels", "splits")),
        "synthetic.json",
        "truth.json",
        "raw/ratings.csv",
        "raw/remarks.csv",
        "opinion_scores.csv",
        "subjects.csv",
        "remark_readings.csv",
        "data_card.md",
    }
    found = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    marks = {name for name in found if name.startswith("raw/marks/")}
    assert found - marks == expected
    possible = {f"raw/marks/{marker}/{video}.png" for marker in MARKERS for video in VIDEOS}
    assert marks == possible


def test_clips_are_what_was_asked_for(root):
    """Catches another number of frames, size or rate, and black clips."""
    for video in VIDEOS:
        with av.open(str(root / "video_RGB" / f"{video}.mp4")) as container:
            (stream,) = container.streams
            assert (stream.width, stream.height) == (SIZE, SIZE)
            assert float(stream.average_rate) == FPS
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(frames) == FRAMES
        assert all(frame.std() > 5 for frame in frames)


def test_strips_are_the_three_views_of_the_clip(root):
    """Rendered here once more, in this process: frames 1, 2 and 3 of 5 stand at -45, 0 and +45
    degrees. Catches strips of other frames or in another order, and pictures that depend on the
    process.
    """
    yaws = turntable_yaws(FRAMES)
    assert yaws[1:4].tolist() == [-45, 0, 45]
    for g, n in ((0, 0), (3, 1), (9, 1)):
        renderer = ClipRenderer(clip_plan(g, n, SEED), SIZE)
        strip = np.hstack([renderer.picture(yaws[i], i)[0] for i in (1, 2, 3)])
        assert np.array_equal(picture(root / "image" / f"{video_name(g, n)}.png"), strip)


def test_ratings_are_complete_and_on_the_slider(root):
    """24 raters, every video, both dimensions. Catches a missing or doubled rating."""
    rows = [
        row
        for _, row in csv_rows(
            root / "raw/ratings.csv", ("subject", "video", "dimension", "rating")
        )
    ]
    assert len(rows) == len({row[:3] for row in rows}) == 24 * len(VIDEOS) * 2
    assert len({row[0] for row in rows}) == 24
    assert {row[1] for row in rows} == set(VIDEOS)
    assert all(0 <= float(row[3]) <= 5 for row in rows)


def test_marks_are_red_dots_on_the_strip_and_nothing_else(root):
    """Catches a marked picture of another clip, whose every pixel would be a mark."""
    looked_at = 0
    for path in (root / "raw" / "marks").rglob("*.png"):
        plain, marked = picture(root / "image" / path.name), picture(path)
        changed = (plain != marked).any(axis=2)
        assert changed.sum() == 0 or 5 <= changed.sum() < 0.15 * changed.size
        assert (marked[changed] == (255, 0, 0)).all()
        looked_at += changed.any()
    assert 10 < looked_at < len(MARKERS) * len(VIDEOS)


def test_parts_share_no_face_and_cover_everything(root):
    """Catches a split that is not respected by the lists."""
    split = read_split(root / "splits.json")
    assert sorted(split["train"] + split["eval"]) == VIDEOS
    assert not {latent(v) for v in split["train"]} & {latent(v) for v in split["eval"]}
    for part in ("train", "eval"):
        for kind in ("text", "numerical"):
            for dimension in DIMENSIONS:
                samples = read_list(root / kind / f"{part}_{dimension}.json")
                assert [s.video for s in samples] == split[part]
                assert {s.task for s in samples} == {dimension}
                # Relative names lead to the clips of this data set, wherever it lies.
                assert all(s.path.samefile(root / "video_RGB" / f"{s.video}.mp4") for s in samples)
        samples = read_list(root / "distortion" / f"{part}.json")
        assert [s.video for s in samples] == split[part]


def test_levels_are_fifths_of_the_training_range(root):
    """Eq. 4 by hand: level i holds the scores above min + i/5 of the range, up to the next edge.
    Catches edges fitted on the test part, levels off by one, and lists that disagree.
    """
    mos, split = content(root / "MOS.json"), read_split(root / "splits.json")
    edges = content(root / "levels.json")
    seen: Counter = Counter()
    for dimension in DIMENSIONS:
        train = [mos[video][dimension] for video in split["train"]]
        low, high = min(train), max(train)
        assert edges[dimension] == pytest.approx(np.linspace(low, high, 6).tolist())
        for part in ("train", "eval"):
            text = read_list(root / "text" / f"{part}_{dimension}.json")
            numerical = read_list(root / "numerical" / f"{part}_{dimension}.json")
            for words, numbers in zip(text, numerical, strict=True):
                score = mos[words.video][dimension]
                fifth = np.ceil((score - low) / (high - low) * 5) - 1
                assert words.level == numbers.level == LEVELS[int(np.clip(fifth, 0, 4))]
                assert numbers.mos == score
                assert words.mos is None
                seen[words.level] += 1
    assert len(seen) == 5


def test_opinion_scores_follow_the_truth(root):
    """Catches ratings of one dimension or video that are written for another."""
    mos, truth = content(root / "MOS.json"), content(root / "truth.json")
    assert set(mos) == set(truth) == set(VIDEOS)
    for index, dimension in enumerate(DIMENSIONS):
        true = [truth[video]["opinion"][index] for video in VIDEOS]
        given = [mos[video][dimension] for video in VIDEOS]
        assert stats.spearmanr(true, given).statistic > 0.9


def test_distortion_labels_name_what_is_planted(root):
    """Catches remarks of one clip that are filed under another: nothing is named that is not there,
    nearly everything that is there is named, and clean clips are called clean.
    """
    labels, truth = content(root / "distortion_label.json"), content(root / "truth.json")
    planted = {video: set(truth[video]["severity"]) for video in VIDEOS}
    for video in VIDEOS:
        named = set(labels[video])
        assert named == {NO_DISTORTION} or named <= planted[video]
        assert labels[video] == sorted(labels[video], key=DISTORTIONS.index)
    plain = {video for video in VIDEOS if not planted[video]}
    assert plain
    assert all(labels[video] == [NO_DISTORTION] for video in plain)
    found = sum(len(set(labels[video]) & planted[video]) for video in VIDEOS)
    assert found > 0.8 * sum(map(len, planted.values()))
    for part in ("train", "eval"):
        for sample in read_list(root / "distortion" / f"{part}.json"):
            assert list(sample.distortions) == labels[sample.video]


def test_maps_are_zero_exactly_where_nothing_is_marked(root):
    """Of the strip's size, peak 255, zero beyond four deviations of 5 pixels from every point.
    Catches a stretched empty map, maps of other videos, and x and y swapped.
    """
    points = {v: f.points for v, f in read_fixations(root / "fixations.json").items()}
    assert set(points) == set(VIDEOS)
    empty = 0
    for video in VIDEOS:
        saliency = read_saliency(root / "saliency_map", video)
        assert saliency.shape == (SIZE, 3 * SIZE)
        plain = picture(root / "image" / f"{video}.png")
        marked = any(
            (picture(root / "raw/marks" / m / f"{video}.png") != plain).any() for m in MARKERS
        )
        assert bool(points[video]) == marked == bool(saliency.any())
        if not points[video]:
            empty += 1
            continue
        assert saliency.max() == 1
        apart = np.ones(saliency.shape, bool)
        for x, y in points[video]:
            apart[round(y), round(x)] = False
        distance = ndimage.distance_transform_edt(apart)
        assert not saliency[distance > 5 * 4 * np.sqrt(2) + 1].any()
        assert saliency[distance == 0].min() > 0.1
        assert distance[saliency == 1].max() <= 10
    assert 0 < empty < len(VIDEOS) - 5


def test_a_killed_job_goes_on_where_it_stopped(root, tmp_path):
    """Notes are written last, so a clip without notes is unfinished, whatever else of it is there.
    Catches half-written clips that are kept, finished ones that are rendered again, and results
    that depend on the interruption.
    """
    killed = tmp_path / "data"
    shutil.copytree(root, killed)
    unfinished = [VIDEOS[0], VIDEOS[7], VIDEOS[19]]
    for video in unfinished:
        (killed / "raw" / "clips" / f"{video}.json").unlink()
    (killed / "video_RGB" / f"{unfinished[0]}.mp4").unlink()
    clip = killed / "video_RGB" / f"{unfinished[1]}.mp4"
    clip.write_bytes(clip.read_bytes()[:500])
    (killed / "image" / f"{unfinished[2]}.png").write_bytes(b"")
    (killed / "raw" / "ratings.csv").unlink()
    folders = ("video_RGB", "image", "raw/marks", "raw/clips")

    def written(folder: Path) -> dict[str, int]:
        return {
            path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
            for name in folders
            for path in (folder / name).rglob("*")
            if path.is_file() and path.stem not in unfinished
        }

    before = written(killed)
    assert len(before) > 17 * 3
    make(killed)
    assert written(killed) == before
    everything = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert everything == sorted(p.relative_to(killed) for p in killed.rglob("*") if p.is_file())
    differing = [
        name.as_posix() for name in everything if file_hash(root / name) != file_hash(killed / name)
    ]
    assert differing == []


def test_a_finished_job_renders_nothing(root, tmp_path, monkeypatch):
    """Catches a second run that costs as much as the first."""
    finished = tmp_path / "data"
    shutil.copytree(root, finished)

    class NoPool:
        def __init__(self, *given, **named) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *error) -> None: ...
        def submit(self, *given):
            raise AssertionError("a finished clip was rendered again")

    monkeypatch.setattr("lmme3dhf.data.synthetic.dataset.ProcessPoolExecutor", NoPool)
    make(finished)
    for name in ("raw/ratings.csv", "raw/remarks.csv", "truth.json"):
        assert file_hash(finished / name) == file_hash(root / name)


@pytest.mark.parametrize(
    "wrong", [{"latents": 0}, {"latents": 201}, {"size_px": 63}, {"frames": 1}, {"fps": 0}]
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, wrong):
    """Catches a 201st face, which would take the next generator's numbers, and sides that H.264
    cannot hold.
    """
    settings = {"latents": 1, "size_px": 64, "frames": 5, "fps": 4, "processes": 1, "seed": 0}
    with pytest.raises(ValueError, match="1 to 200 latents, an even size of at least 32"):
        synthesize(tmp_path / "data", **(settings | wrong))
    assert not (tmp_path / "data").exists()
