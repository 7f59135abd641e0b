"""Labels from raw annotations: opinion scores, levels, categories, maps and the lists that the
stages read (Section 3.3, 4.2).

One path for synthetic and real annotations. What it reads and writes is described in
`datasets/README.md`.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lmme3dhf.annotations.descriptions import (
    categories_of,
    distortion_reply,
    merge_markers,
    read_remarks,
)
from lmme3dhf.annotations.fixations import red_dots, saliency_map, write_saliency_png
from lmme3dhf.annotations.levels import LevelScale, fit_level_scale, to_json
from lmme3dhf.annotations.mos import mean_opinion_scores, read_ratings
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply, write_list
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import Split, write_split
from lmme3dhf.files import write_json
from lmme3dhf.vocabulary import DIMENSIONS


def build_labels(root: Path, split: Split) -> None:
    """Makes every label file of a data set from `root/raw`.

    Args:
        root: Folder of the data set, with `raw/ratings.csv`, `raw/remarks.csv`, `raw/marks/` and
            `image/`.
        split: Part ("train", "val", "eval") -> videos. Level edges are fitted on train alone.

    Raises:
        AnnotationError: Raw annotations that cannot be used, with file and line.
        DataError: A video of the split has no ratings or no remark, or a remark fits no category.
    """
    mos = {}
    for dimension, ratings in read_ratings(root / "raw" / "ratings.csv").items():
        scores = mean_opinion_scores(ratings)
        for subject, reason in scores.left_out.items():
            print(f"{dimension}: ratings of {subject} are left out ({reason})")
        mos[dimension] = dict(zip(scores.videos, scores.mos_V.tolist(), strict=True))
    for dimension in DIMENSIONS:
        if dimension not in mos:
            raise DataError(f"{root / 'raw' / 'ratings.csv'}: no ratings of {dimension}; add them")
    distortions = _categories(root / "raw" / "remarks.csv")
    videos = [video for part in split.values() for video in part]
    for video in videos:
        if any(video not in mos[dimension] for dimension in DIMENSIONS) or video not in distortions:
            raise DataError(
                f"{root / 'raw'}: {video} is in the split but has no ratings or no remark; "
                "annotate it or take it out"
            )
        for dimension in DIMENSIONS:
            if not 0 <= mos[dimension][video] <= 100:
                # Three deviations from a rater's mean are the ends of the scale (Eq. 1).
                raise DataError(
                    f"{video}: its {dimension} score is {mos[dimension][video]:.1f}, outside 0 to "
                    "100; its few ratings are extreme ones, let more people rate it"
                )
    scales = {
        d: fit_level_scale(np.array([mos[d][video] for video in split["train"]]), d)
        for d in DIMENSIONS
    }
    write_json(
        root / "MOS.json",
        {video: {d: mos[d][video] for d in DIMENSIONS} for video in sorted(videos)},
    )
    write_json(
        root / "distortion_label.json",
        {video: list(distortions[video]) for video in sorted(videos)},
    )
    write_json(root / "levels.json", to_json(scales))
    write_split(root / "splits.json", split)
    _write_maps(root, videos)
    for part, members in split.items():
        _write_lists(root, part, members, mos, scales, distortions)


def _categories(path: Path) -> dict[str, tuple[str, ...]]:
    merged, unmatched = {}, []
    for video, remarks in read_remarks(path).items():
        found = {marker: categories_of(text) for marker, text in remarks.items()}
        unmatched += [
            f"{video}, {marker}: {remarks[marker]!r}"
            for marker, names in found.items()
            if not names
        ]
        merged[video] = merge_markers(found.values())
    if unmatched:
        listed = "\n  ".join(unmatched[:20])
        raise DataError(
            f"{path}: {len(unmatched)} remarks fit none of the nine categories; reword them:\n  "
            f"{listed}"
        )
    return merged


def _write_maps(root: Path, videos: Iterable[str]) -> None:
    points_by_video = {}
    (root / "saliency_map").mkdir(exist_ok=True)
    markers = sorted(path for path in (root / "raw" / "marks").iterdir() if path.is_dir())
    for video in videos:
        with Image.open(root / "image" / f"{video}.png") as picture:
            strip = np.asarray(picture.convert("RGB"))
        points: list[tuple[float, float]] = []
        for marker in markers:
            path = marker / f"{video}.png"
            # A marker who saw nothing left no picture.
            if path.exists():
                with Image.open(path) as picture:
                    points += red_dots(np.asarray(picture.convert("RGB")), strip)
        points_by_video[video] = points
        write_saliency_png(
            root / "saliency_map" / f"{video}.png", saliency_map(points, *strip.shape[:2])
        )
    write_json(
        root / "fixations.json",
        {video: points_by_video[video] for video in sorted(points_by_video)},
    )


def _write_lists(
    root: Path,
    part: str,
    videos: list[str],
    mos: dict[str, dict[str, float]],
    scales: dict[str, LevelScale],
    distortions: dict[str, tuple[str, ...]],
) -> None:
    def sample(video: str, task: str, reply: str) -> Sample:
        return Sample(
            video=video, path=Path(f"{video}.mp4"), task=task, prompt=PROMPTS[task], reply=reply
        )

    for dimension in DIMENSIONS:
        levels = {video: scales[dimension].level(mos[dimension][video]) for video in videos}
        write_list(
            root / "text" / f"{part}_{dimension}.json",
            [sample(video, dimension, level_reply(dimension, levels[video])) for video in videos],
        )
        write_list(
            root / "numerical" / f"{part}_{dimension}.json",
            [
                sample(
                    video, dimension, level_reply(dimension, levels[video], mos[dimension][video])
                )
                for video in videos
            ],
        )
    write_list(
        root / "distortion" / f"{part}.json",
        [sample(video, "distortion", distortion_reply(distortions[video])) for video in videos],
    )


def read_points(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Reads `fixations.json`: the marked points of every video, (x, y) in the strip's pixels."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {video: [(float(x), float(y)) for x, y in points] for video, points in content.items()}
