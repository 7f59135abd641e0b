"""Describes a data set: figures, pictures with the table behind each, and one page (paper, Section
3.4).

A folder may hold a whole data set (`datasets/README.md`), the released lists alone, or the download
as it is. What is there is described; what is missing is named on the page with what it would need.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.descriptions import RemarkLabels, label_remarks, read_remarks
from lmme3dhf.annotations.fixations import Fixations, read_fixations, read_saliency
from lmme3dhf.annotations.levels import LevelScale, fit_level_scale, read_levels
from lmme3dhf.annotations.ratings import Ratings, read_ratings
from lmme3dhf.data import statistics
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.marks import MAP_FOLDER, STRIP_FOLDER, read_picture, strip_path
from lmme3dhf.data.release import read_distortion_labels, read_mos
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.data.splits import generator, latent, read_split
from lmme3dhf.data.statistics import REGION_LEVEL, Figures, StripMarks
from lmme3dhf.files import replace_file, write_csv, write_json
from lmme3dhf.progress import with_progress
from lmme3dhf.reports import plots
from lmme3dhf.reports.dataset import dataset_page
from lmme3dhf.vocabulary import DIMENSIONS, DISTORTIONS

PAGE, FIGURES = "stats.md", "stats.json"
RATINGS, REMARKS = "raw/ratings.csv", "raw/remarks.csv"
HALVES_SEED = 0  # of the random halves of the panel
_MEASURES = {
    "dots": "marked dots",
    "regions": f"marked regions (map >= {REGION_LEVEL:g})",
    "area": "marked share of the strip",
}
Parts = dict[str, list[str]]


@dataclass(kw_only=True)
class _Lists:
    """The lists of one kind, `text/` or `numerical/`.

    Attributes:
        videos: (part, dimension) -> videos in the order of the list.
        mos: Dimension -> video -> score; empty for `text/`.
        words: Dimension -> video -> level word as it stands, "None" included.
    """

    videos: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    mos: dict[str, dict[str, float]] = field(default_factory=dict)
    words: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Contents:
    """What a folder holds.

    Attributes:
        parts: Part -> videos; empty where nothing tells them.
        lists: "text" and "numerical" -> lists, where there are any.
        mos: Dimension -> video -> score.
        sources: What -> the file or folder that it was read from.
        scales: Level edges that the folder states.
        categories: Video -> categories.
        fixations: Video -> dots.
        maps: Videos that have a map.
        strips: Video -> strip.
        ratings: Dimension -> raw ratings.
        remarks: The raw remarks, read by the built-in rules; None where there are none.
    """

    parts: Parts = field(default_factory=dict)
    lists: dict[str, _Lists] = field(default_factory=dict)
    mos: dict[str, dict[str, float]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    scales: dict[str, LevelScale] = field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fixations: dict[str, Fixations] = field(default_factory=dict)
    maps: list[str] = field(default_factory=list)
    strips: dict[str, Path] = field(default_factory=dict)
    ratings: dict[str, Ratings] = field(default_factory=dict)
    remarks: RemarkLabels | None = None

    @property
    def rated(self) -> set[str]:
        """Videos with raw ratings."""
        return {video for ratings in self.ratings.values() for video in ratings.videos}

    @property
    def remarked(self) -> set[str]:
        """Videos with raw remarks."""
        return {reading.video for reading in self.remarks.readings} if self.remarks else set()

    @property
    def videos(self) -> list[str]:
        """Every video that something is known of, sorted."""
        listed = (*self.parts.values(), *self.mos.values())
        known = (self.categories, self.fixations, self.maps, self.strips, self.rated, self.remarked)
        return sorted({video for videos in (*listed, *known) for video in videos})


@dataclass
class _Output:
    """The files of one description, and what it had to leave out.

    Attributes:
        folder: Where they are written.
        files: Name -> what it holds.
        left_out: What is not described -> what it would need.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def table(self, name: str, what: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows as CSV; nested ones get names like quality_mean."""
        flat = [_flat(row) for row in rows]
        header = list(dict.fromkeys(key for row in flat for key in row))
        write_csv(self.folder / name, header, [[row.get(key) for key in header] for row in flat])
        self.files[name] = what

    def picture(self, name: str, what: str) -> Path:
        """The path of a picture that will be drawn there."""
        self.files[name] = what
        return self.folder / name


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}_")
        else:
            flat[f"{before}{key}"] = value
    return flat


def describe(root: Path, out: Path) -> Figures:
    """Writes `stats.md`, `stats.json`, and pictures and tables of a data set.

    Args:
        root: Folder of the data set.
        out: Folder to write to; files of the same names are replaced.

    Returns:
        The content of `stats.json`.

    Raises:
        DataError: No such folder, nothing in it that can be described, or a file that cannot be
            used. Everything is read before the first file is written.
        AnnotationError: Raw annotations, maps or pictures that cannot be used.
    """
    root, out = Path(root), Path(out)
    contents = _read(root)
    if not contents.videos:
        raise DataError(
            f"{root}: nothing of Gen3DHF is here (MOS.json, distortion_label.json, numerical/, "
            "text/, distortion/, fixations.json, saliency_map/, image/ or raw/); give the folder "
            "that holds some of it"
        )
    for video in contents.videos:
        try:
            generator(video)
        except DataError as error:
            raise DataError(f"{root}: {error}; rename it or take it out") from error
    marks = _measure(root, contents)
    examples = _examples(root, contents)
    output = _Output(out)
    figures: Figures = {
        "name": root.resolve().name,
        "videos": len(contents.videos),
        "sources": contents.sources,
        "coverage": _coverage(contents),
        "parts": _parts(contents, output),
        "lists": _compare_lists(contents),
        "scores": _scores(contents, output),
        "levels": _levels(contents, output),
        "generators": _generators(contents, output),
        "distortions": _distortions(contents, output),
        "marks": _marks(contents, marks, output),
        "strips": _strips(contents, examples, marks, output),
        "raters": _raters(contents, output),
        "markers": _markers(contents, output),
    }
    output.table("videos.csv", "everything that is known of each video", _rows(contents, marks))
    figures |= {"left_out": output.left_out, "files": output.files}
    replace_file(out / PAGE, dataset_page(figures))
    write_json(out / FIGURES, figures)
    return figures


def _read(root: Path) -> _Contents:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of a data set")
    found = _Contents()
    for kind in ("text", "numerical"):
        lists = _read_lists(root / kind)
        if lists.videos:
            found.lists[kind] = lists
    _read_mos(root, found)
    if (root / "splits.json").exists():
        found.parts = read_split(root / "splits.json")
        found.sources["parts"] = "splits.json"
    elif found.lists:
        kind, lists = next(iter(found.lists.items()))
        for (part, _), videos in lists.videos.items():
            merged = dict.fromkeys([*found.parts.get(part, ()), *videos])
            found.parts[part] = list(merged)
        found.sources["parts"] = f"{kind}/"
    usual = [part for part in ("train", "val", "eval") if part in found.parts]
    found.parts = {part: found.parts[part] for part in dict.fromkeys([*usual, *found.parts])}
    if (root / "levels.json").exists():
        found.scales = read_levels(root / "levels.json")
    _read_categories(root, found)
    if (root / "fixations.json").exists():
        found.fixations = read_fixations(root / "fixations.json")
        found.sources["dots"] = "fixations.json"
    maps = root / MAP_FOLDER
    if maps.is_dir():
        found.maps = sorted({p.stem for p in maps.iterdir() if p.suffix in (".png", ".npz")})
        found.sources["maps"] = f"{MAP_FOLDER}/"
    strips = root / STRIP_FOLDER
    if strips.is_dir():
        names = sorted({path.stem for path in strips.iterdir() if not path.name.startswith(".")})
        paths = {video: strip_path(strips, video) for video in names}
        found.strips = {video: path for video, path in paths.items() if path is not None}
        found.sources["strips"] = f"{STRIP_FOLDER}/"
    if (root / RATINGS).exists():
        found.ratings = read_ratings(root / RATINGS)
        found.sources["ratings"] = RATINGS
    if (root / REMARKS).exists():
        found.remarks = label_remarks(read_remarks(root / REMARKS))
        found.sources["remarks"] = REMARKS
    return found


def _read_lists(folder: Path) -> _Lists:
    lists = _Lists()
    for dimension in DIMENSIONS:
        for path in sorted(folder.glob(f"*_{dimension}.json")):
            samples = read_list(path)
            part = path.stem.removesuffix(f"_{dimension}")
            lists.videos[part, dimension] = [sample.video for sample in samples]
            scores = lists.mos.setdefault(dimension, {})
            words = lists.words.setdefault(dimension, {})
            unnamed = _unnamed(path)
            for index, sample in enumerate(samples):
                if sample.task != dimension:
                    raise DataError(
                        f"{path}: row {index + 1} is about {sample.task}; the file's name says "
                        f"{dimension}"
                    )
                if sample.video in words:
                    raise DataError(
                        f"{path}: row {index + 1}: {sample.video} has a row already, here or in "
                        "another part; keep one"
                    )
                words[sample.video] = (
                    statistics.UNNAMED_LEVEL if index in unnamed else str(sample.level)
                )
                if sample.mos is not None:
                    scores[sample.video] = sample.mos
    return lists


def _unnamed(path: Path) -> set[int]:
    """Rows, from 0, whose level is "None", which `read_list` reads as "bad"."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    else:
        rows = json.loads(text)
    sentence = f"in this video is {statistics.UNNAMED_LEVEL}."
    return {index for index, row in enumerate(rows) if sentence in row["messages"][1]["content"]}


def _read_mos(root: Path, found: _Contents) -> None:
    if (root / "MOS.json").exists():
        by_video = read_mos(root / "MOS.json")
        found.mos = {d: {video: by_video[video][d] for video in by_video} for d in DIMENSIONS}
        found.sources["scores"] = "MOS.json"
    elif "numerical" in found.lists:
        scores = found.lists["numerical"].mos
        found.mos = {d: scores[d] for d in DIMENSIONS if scores.get(d)}
        found.sources["scores"] = "numerical/"


def _read_categories(root: Path, found: _Contents) -> None:
    if (root / "distortion_label.json").exists():
        found.categories = read_distortion_labels(root / "distortion_label.json")
        found.sources["categories"] = "distortion_label.json"
        return
    for path in sorted((root / "distortion").glob("*.json")):
        for sample in read_list(path):
            found.categories[sample.video] = _categories(path, sample)
        found.sources["categories"] = "distortion/"


def _categories(path: Path, sample: Sample) -> tuple[str, ...]:
    if sample.distortions is None:
        raise DataError(f"{path}: {sample.video} is asked for its {sample.task}, not distortions")
    return sample.distortions


def _measure(root: Path, contents: _Contents) -> dict[str, StripMarks]:
    marks = {}
    videos = sorted({*contents.maps, *contents.fixations})
    for video in with_progress(videos, "maps", len(videos)):
        map_HW = read_saliency(root / MAP_FOLDER, video) if video in contents.maps else None
        known = contents.fixations.get(video)
        if (
            map_HW is not None
            and known is not None
            and known.size not in (None, map_HW.shape[::-1])
        ):
            width, height = known.size
            raise DataError(
                f"{root / 'fixations.json'}: {video} was marked on a strip of {width} x {height}, "
                f"its map is {map_HW.shape[1]} x {map_HW.shape[0]}; make the map again"
            )
        try:
            marks[video] = statistics.measure_marks(map_HW, None if known is None else known.points)
        except ValueError as error:
            raise DataError(
                f"{root / 'fixations.json'}: {video}: {error}; dots and map must be of one strip"
            ) from error
    return marks


def _examples(root: Path, contents: _Contents) -> list[tuple]:
    """(what, video, strip, dots or None, map or None) of the strips to show."""
    rows = []
    marked = set(contents.maps) | set(contents.fixations)
    videos = [video for video in contents.strips if video in marked] or list(contents.strips)
    for what, video in statistics.exemplars(videos, contents.mos) if videos else ():
        path = contents.strips[video]
        try:
            strip = read_picture(path)
        except AnnotationError as error:
            raise DataError(f"{path}: {error}") from error
        map_HW = read_saliency(root / MAP_FOLDER, video) if video in contents.maps else None
        if map_HW is not None and map_HW.shape != strip.shape[:2]:
            raise DataError(
                f"{root / MAP_FOLDER}: the map of {video} is {map_HW.shape}, its strip "
                f"{strip.shape[:2]}; make the map again"
            )
        known = contents.fixations.get(video)
        rows.append((what, video, strip, None if known is None else known.points, map_HW))
    return rows


def _coverage(contents: _Contents) -> dict[str, Figures]:
    """What -> how many videos have it, how many have not, and the first few of these."""
    known: dict[str, Iterable[str]] = {
        "part of a split": [video for part in contents.parts.values() for video in part],
        **{f"{dimension} score": contents.mos.get(dimension, ()) for dimension in DIMENSIONS},
        "distortion categories": contents.categories,
        "strip": contents.strips,
        "marked dots": contents.fixations,
        "saliency map": contents.maps,
        "ratings": contents.rated,
        "remarks": contents.remarked,
    }
    coverage = {}
    for what, videos in known.items():
        having = set(videos)
        missing = [video for video in contents.videos if video not in having]
        coverage[what] = {"n": len(having), "missing": len(missing), "first": missing[:5]}
    return coverage


def _parts(contents: _Contents, output: _Output) -> Figures | None:
    if not contents.parts:
        output.left_out[
            "Figures by part, and the floor of a predictor that knows the generator"
        ] = "`splits.json`, or lists in `text/` or `numerical/`"
        return None
    sizes = {part: len(videos) for part, videos in contents.parts.items()}
    in_several = sum(sizes.values()) - len({v for part in contents.parts.values() for v in part})
    figures: Figures = {"sizes": sizes, "in_several": in_several}
    if "train" in sizes and "eval" in sizes:
        trained = {latent(video) for video in contents.parts["train"]}
        shared = sum(latent(video) in trained for video in contents.parts["eval"])
        figures["eval_with_latent_in_train"] = shared
    return figures


def _compare_lists(contents: _Contents) -> Figures | None:
    """Do the lists agree with each other and with MOS.json?"""
    if not contents.lists:
        return None
    figures: Figures = {
        "rows": {
            f"{kind}/{part}_{dimension}": len(videos)
            for kind, lists in contents.lists.items()
            for (part, dimension), videos in lists.videos.items()
        },
        "unnamed": [
            {"dimension": dimension, "video": video, "part": _part_of(contents, video)}
            for dimension in DIMENSIONS
            for video, word in _listed(contents, dimension).items()
            if word == statistics.UNNAMED_LEVEL
        ],
    }
    orders: dict[str, list[list[str]]] = {}
    for lists in contents.lists.values():
        for (part, _), videos in lists.videos.items():
            orders.setdefault(part, []).append(videos)
    figures["same_order"] = all(one == many[0] for many in orders.values() for one in many)
    if len(contents.lists) == 2:
        text, numerical = contents.lists["text"].words, contents.lists["numerical"].words
        pairs = [
            (words[video], numerical[dimension][video])
            for dimension, words in text.items()
            for video in words
            if video in numerical.get(dimension, {})
        ]
        figures["compared"] = len(pairs)
        figures["text_against_numerical"] = sum(a != b for a, b in pairs)
    if contents.sources.get("scores") == "MOS.json" and "numerical" in contents.lists:
        gaps = [
            abs(score - contents.mos[dimension][video])
            for dimension, scores in contents.lists["numerical"].mos.items()
            for video, score in scores.items()
            if video in contents.mos[dimension]
        ]
        figures["largest_gap_to_mos"] = max(gaps, default=0.0)
    return figures


def _part_of(contents: _Contents, video: str) -> str | None:
    return next((part for part, videos in contents.parts.items() if video in videos), None)


def _listed(contents: _Contents, dimension: str) -> dict[str, str]:
    """Level words as the lists have them, those of `text/` first."""
    for kind in ("text", "numerical"):
        if kind in contents.lists and contents.lists[kind].words.get(dimension):
            return contents.lists[kind].words[dimension]
    return {}


def _scores(contents: _Contents, output: _Output) -> Figures | None:
    mos = contents.mos
    if not mos:
        output.left_out["Opinion scores and their levels (Fig. 2)"] = (
            "`MOS.json`, or lists in `numerical/`"
        )
        return None
    summary: Figures = {}
    together: Figures = {}
    for part, videos in {"all": contents.videos, **contents.parts}.items():
        within = {d: {v: scores[v] for v in videos if v in scores} for d, scores in mos.items()}
        for dimension, scores in within.items():
            if scores:
                summary.setdefault(dimension, {})[part] = statistics.summarise(scores)
        if len(within) > 1:
            together[part] = statistics.agreement(*within.values())
    bins, curves = statistics.histogram(mos), statistics.density(mos)
    output.table("fig2a_mos.csv", "videos in each bin of the scores", bins)
    output.table("fig2a_density.csv", "density of the scores", curves)
    plots.mos_distributions(
        output.picture("fig2a_mos.png", "distribution of the scores"), bins, curves
    )
    output.table(
        "scores.csv",
        "number, extremes, mean, deviation, percentiles and skew of the scores",
        [
            {"dimension": dimension, "part": part, **figures}
            for dimension, by_part in summary.items()
            for part, figures in by_part.items()
        ],
    )
    peaks = {}
    for dimension in mos:
        known = [point for point in curves if point[dimension] == point[dimension]]
        peaks[dimension] = (
            max(known, key=lambda point: point[dimension])["score"] if known else None
        )
    return {"summary": summary, "between_dimensions": together, "densest_at": peaks}


def _levels(contents: _Contents, output: _Output) -> Figures | None:
    figures: Figures = {}
    rows = []
    for dimension in DIMENSIONS:
        mos, listed = contents.mos.get(dimension, {}), _listed(contents, dimension)
        if not mos and not listed:
            continue
        one: Figures = {"edges": {}, "as_listed": None, "by_equation_4": None}
        if dimension in contents.scales:
            one["edges"]["levels.json"] = list(contents.scales[dimension].edges)
        fitted = {"all": mos, **contents.parts} if mos else {}
        scales = {}
        for part in ("all", "train"):
            scores = [mos[video] for video in fitted.get(part, ()) if video in mos]
            if len(set(scores)) > 1:
                scales[part] = fit_level_scale(np.array(scores), dimension)
                one["edges"][part] = list(scales[part].edges)
        scale = scales.get("train", scales.get("all"))
        if scale is not None:
            words = {video: scale.level(score) for video, score in mos.items()}
            one["by_equation_4"] = statistics.levels(words, mos, contents.parts)
            named = {
                v: w for v, w in listed.items() if w != statistics.UNNAMED_LEVEL and v in words
            }
            one["compared"] = len(named)
            one["listed_against_equation_4"] = sum(words[v] != w for v, w in named.items())
        if listed:
            one["as_listed"] = statistics.levels(listed, mos, contents.parts)
        figures[dimension] = one
        for source in ("as_listed", "by_equation_4"):
            for part, counts in one[source]["counts"].items() if one[source] else ():
                rows.append({"dimension": dimension, "levels": source, "part": part, **counts})
    if not figures:
        return None
    output.table("levels.csv", "videos of each level, part by part", rows)
    return figures


def _generators(contents: _Contents, output: _Output) -> Figures | None:
    mos = contents.mos
    if not mos:
        return None
    rows = statistics.per_generator(mos)
    output.table("fig2b_generators.csv", "mean score of each generator", rows)
    plots.generator_bars(
        output.picture("fig2b_generators.png", "mean score of each generator"), rows
    )
    every = set(contents.videos)
    figures: Figures = {
        "rows": rows,
        "dealt_out": {
            part: statistics.dealt_out(set(videos), every)
            for part, videos in contents.parts.items()
        },
        "floor": {
            d: statistics.generator_floor(scores, contents.parts) for d, scores in mos.items()
        },
        "latents": {d: statistics.latents(scores) for d, scores in mos.items()},
        "partition": statistics.partition(mos),
    }
    output.table(
        "latents.csv",
        "correlation of the scores of two generators over their common latents",
        [
            {"dimension": dimension, **pair}
            for dimension, one in figures["latents"].items()
            for pair in one["pairs"]
        ],
    )
    partition = figures["partition"]
    if partition is None:
        output.left_out["Evidence that a clip's number divided by 200 is its generator"] = (
            "scores of all numbers from the first to the last, of at least two generators"
        )
        return figures
    what = "variance explained by blocks of 200 numbers, by where they begin"
    table = [
        {"offset": offset, **{d: shares[offset] for d, shares in partition["eta2"].items()}}
        for offset in range(partition["period"])
    ]
    output.table("partition.csv", what, table)
    plots.partition_curves(
        output.picture("partition.png", what), partition["eta2"], partition["period"]
    )
    return figures


def _distortions(contents: _Contents, output: _Output) -> Figures | None:
    if not contents.categories:
        output.left_out["Distortion categories (Fig. 3)"] = (
            "`distortion_label.json`, or lists in `distortion/`"
        )
        return None
    figures = statistics.count_distortions(contents.categories)
    figures["against"] = {
        dimension: statistics.categories_against(contents.categories, scores)
        for dimension, scores in contents.mos.items()
    }
    counts, groups = figures["counts"], figures["generators"]
    ordered = dict(sorted(counts.items(), key=lambda pair: -pair[1]))
    output.table(
        "fig3a_distortions.csv",
        "videos with each category, and their mean score",
        [
            {
                "category": name,
                "videos": count,
                "share": figures["shares"][name],
                **{d: against["by_category"][name] for d, against in figures["against"].items()},
            }
            for name, count in ordered.items()
        ],
    )
    plots.distortion_bars(
        output.picture("fig3a_distortions.png", "videos with each category"),
        ordered,
        figures["videos"],
    )
    output.table(
        "fig3b_generators.csv",
        "videos of each generator with each category",
        [
            {"generator": group, "videos": one["videos"], **one["counts"]}
            for group, one in groups.items()
        ],
    )
    plots.category_heat_map(
        output.picture("fig3b_generators.png", "categories of each generator"),
        {group: (one["videos"], one["counts"]) for group, one in groups.items()},
    )
    output.table(
        "together.csv",
        "videos with two categories at the same time",
        [{"category": name, **counts} for name, counts in figures["together"].items()],
    )
    return figures


def _marks(contents: _Contents, marks: dict[str, StripMarks], output: _Output) -> Figures | None:
    if not contents.fixations:
        output.left_out["Number of marked dots"] = "`fixations.json`"
    if not contents.maps:
        output.left_out["Number and area of marked regions (Fig. 6)"] = "`saliency_map/`"
    if not marks:
        return None
    figures = statistics.marks_against(marks, contents.mos)
    figures["level"] = statistics.REGION_LEVEL
    output.table(
        "fig6_marks.csv",
        "dots, regions and marked area of each strip, with its scores",
        [
            {
                "video": video,
                **asdict(one),
                **{d: scores.get(video) for d, scores in contents.mos.items()},
            }
            for video, one in marks.items()
        ],
    )
    if not contents.mos:
        return figures
    panels = []
    for measure, label in _MEASURES.items():
        if measure not in figures["measures"]:
            continue
        by_dimension = {}
        for dimension, scores in contents.mos.items():
            pairs = [
                (getattr(one, measure), scores[video])
                for video, one in marks.items()
                if video in scores and getattr(one, measure) is not None
            ]
            srcc = figures["measures"][measure][dimension]["srcc"]
            if pairs:
                by_dimension[dimension] = (*zip(*pairs, strict=True), f"SRCC {srcc:.3f}")
        if len(by_dimension) == len(contents.mos):
            panels.append((label, by_dimension))
    if panels:
        plots.marks_scatter(output.picture("fig6_marks.png", "marks against the scores"), panels)
    return figures


def _strips(
    contents: _Contents, examples: list[tuple], marks: dict[str, StripMarks], output: _Output
) -> list[Figures] | None:
    if not examples:
        output.left_out["Strips with their marks (Fig. 5)"] = "`image/`"
        return None
    rows, shown = [], []
    for what, video, strip, points, map_HW in examples:
        row: Figures = {"what": what, "video": video}
        row |= {d: scores.get(video) for d, scores in contents.mos.items()}
        row["categories"] = "; ".join(contents.categories.get(video, ()))
        row |= asdict(marks.get(video, StripMarks()))
        rows.append(row)
        said = [f"{d} {row[d]:.1f}" for d in contents.mos if row[d] is not None]
        caption = ", ".join([f"{what}: {video}", *said])
        shown.append((caption, row["categories"], strip, points, map_HW))
    output.table("fig5_strips.csv", "the strips in the picture", rows)
    plots.marked_strips(output.picture("fig5_strips.png", "strips with their marks"), shown)
    return rows


def _rows(contents: _Contents, marks: dict[str, StripMarks]) -> list[Figures]:
    part_of = {video: part for part, videos in contents.parts.items() for video in videos}
    return [
        {
            "video": video,
            "generator": generator(video),
            "latent": latent(video),
            "part": part_of.get(video),
            **{d: contents.mos.get(d, {}).get(video) for d in DIMENSIONS},
            **{f"{d}_level": _listed(contents, d).get(video) for d in DIMENSIONS},
            "categories": "; ".join(contents.categories.get(video, ())),
            **asdict(marks.get(video, StripMarks())),
        }
        for video in contents.videos
    ]


def _raters(contents: _Contents, output: _Output) -> Figures | None:
    if not contents.ratings:
        output.left_out["Agreement of the raters"] = f"`{RATINGS}`"
        return None
    figures: Figures = {}
    for dimension, ratings in contents.ratings.items():
        try:
            one = statistics.raters(ratings, np.random.default_rng(HALVES_SEED))
        except AnnotationError as error:
            output.left_out[f"Agreement of the raters in {dimension}"] = str(error)
            continue
        mos, made = contents.mos.get(dimension, {}), one.pop("mos")
        gaps = [abs(made[video] - mos[video]) for video in made if video in mos]
        one["largest_gap_to_mos"] = max(gaps, default=math.nan)
        figures[dimension] = one
    if not figures:
        return None
    output.table(
        "raters.csv",
        "each rater: ratings, agreement with the others, and what the screening says",
        [
            {"dimension": dimension, **report}
            for dimension, one in figures.items()
            for report in one["reports"]
        ],
    )
    output.table(
        "raters_between.csv",
        "Pearson's r between each two raters",
        [
            {"dimension": dimension, "subject": subject, **row}
            for dimension, one in figures.items()
            for subject, row in one["between"].items()
        ],
    )
    halves = {dimension: one["split_half"] for dimension, one in figures.items()}
    what = "SRCC between random halves of the raters"
    output.table(
        "raters_halves.csv",
        what,
        [
            {"dimension": dimension, "split": split, "srcc": srcc}
            for dimension, half in halves.items()
            for split, srcc in enumerate(half["srcc"])
        ],
    )
    plots.split_half_histograms(
        output.picture("raters_halves.png", what),
        {dimension: half["srcc"] for dimension, half in halves.items()},
        {dimension: half["mean"] for dimension, half in halves.items()},
    )
    plots.subject_bars(
        output.picture("raters.png", "agreement of each rater with the others"),
        {
            dimension: [
                (report["subject"], report["correlation"], report["rejected"] is not None)
                for report in one["reports"]
            ]
            for dimension, one in figures.items()
        },
    )
    return figures


def _markers(contents: _Contents, output: _Output) -> Figures | None:
    if contents.remarks is None:
        output.left_out["Agreement of the markers on categories"] = f"`{REMARKS}`"
        return None
    figures: Figures = asdict(contents.remarks.agreement)
    figures["undecided"] = list(contents.remarks.undecided)
    labels = contents.remarks.labels
    both = [video for video in labels if video in contents.categories]
    figures["compared_with_labels"] = len(both)
    figures["against_labels"] = sum(
        set(labels[video]) != set(contents.categories[video]) for video in both
    )
    dots = Counter()
    for known in contents.fixations.values():
        dots.update(known.dots)
    figures["dots"] = dict(sorted(dots.items()))
    output.table(
        "markers.csv",
        "agreement of the markers on each category",
        [
            {
                "category": category,
                "kappa": figures["kappa"][category],
                **{f"named_by_{k}": n for k, n in enumerate(figures["named_by"][category])},
            }
            for category in DISTORTIONS
        ],
    )
    return figures
