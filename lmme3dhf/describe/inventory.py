"""How much of a data set is there: videos with and without something, parts, lists that agree."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from lmme3dhf.data.gen3dhf import UNNAMED_LEVEL
from lmme3dhf.data.splits import generator, latent
from lmme3dhf.data.statistics import Figures, StripMarks
from lmme3dhf.describe.contents import Contents
from lmme3dhf.describe.output import Output


def coverage(contents: Contents) -> dict[str, Figures]:
    """What -> how many videos have it, how many have not, and the first few of these."""
    known: dict[str, Iterable[str]] = {
        "part of a split": [video for part in contents.parts.values() for video in part],
        **{f"{aspect} score": contents.mos.get(aspect, ()) for aspect in contents.aspects},
        "distortion categories": contents.categories,
        "strip": contents.strips,
        "marked dots": contents.fixations,
        "saliency map": contents.maps,
        "ratings": contents.rated,
        "remarks": contents.remarked,
    }
    counted = {}
    for what, videos in known.items():
        having = set(videos)
        missing = [video for video in contents.videos if video not in having]
        counted[what] = {"n": len(having), "missing": len(missing), "first": missing[:5]}
    return counted


def count_parts(contents: Contents, output: Output) -> Figures | None:
    """Videos of each part, how many are in several, and how many of eval show a latent of train."""
    parts = contents.parts
    if not parts:
        output.left_out[
            "Figures by part, and the floor of a predictor that knows the generator"
        ] = "`splits.json`, or lists in `text/` or `numerical/`"
        return None
    sizes = {part: len(videos) for part, videos in parts.items()}
    in_several = sum(sizes.values()) - len({v for videos in parts.values() for v in videos})
    figures: Figures = {"sizes": sizes, "in_several": in_several}
    if "train" in parts and "eval" in parts:
        trained = {latent(video) for video in parts["train"]}
        shared = sum(latent(video) in trained for video in parts["eval"])
        figures["eval_with_latent_in_train"] = shared
    return figures


def compare_lists(contents: Contents) -> Figures | None:
    """Whether the lists agree with each other and with MOS.json; None without lists."""
    if not contents.lists:
        return None
    part_of = _part_of(contents)
    figures: Figures = {
        "rows": {
            f"{kind}/{part}_{aspect}": len(videos)
            for kind, lists in contents.lists.items()
            for (part, aspect), videos in lists.videos.items()
        },
        "unnamed": [
            {"dimension": aspect, "video": video, "part": part_of.get(video)}
            for aspect in contents.aspects
            for video, word in contents.words(aspect).items()
            if word == UNNAMED_LEVEL
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
            (word, numerical[aspect][video])
            for aspect, words in text.items()
            for video, word in words.items()
            if video in numerical.get(aspect, {})
        ]
        figures["compared"] = len(pairs)
        figures["text_against_numerical"] = sum(a != b for a, b in pairs)
    if contents.sources.get("scores") == "MOS.json" and "numerical" in contents.lists:
        gaps = [
            abs(score - contents.mos[aspect][video])
            for aspect, scores in contents.lists["numerical"].mos.items()
            for video, score in scores.items()
            if video in contents.mos[aspect]
        ]
        figures["largest_gap_to_mos"] = max(gaps, default=0.0)
    return figures


def _part_of(contents: Contents) -> dict[str, str]:
    return {video: part for part, videos in contents.parts.items() for video in videos}


def video_table(contents: Contents, marks: Mapping[str, StripMarks]) -> list[Figures]:
    """One row a video, with everything that is known of it."""
    part_of, words = _part_of(contents), {name: contents.words(name) for name in contents.aspects}
    return [
        {
            "video": video,
            "generator": generator(video),
            "latent": latent(video),
            "part": part_of.get(video),
            **{name: contents.mos.get(name, {}).get(video) for name in words},
            **{f"{name}_level": levels.get(video) for name, levels in words.items()},
            "categories": "; ".join(contents.categories.get(video, ())),
            **asdict(marks.get(video, StripMarks())),
        }
        for video in contents.videos
    ]
