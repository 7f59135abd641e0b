"""Where the annotations of a video contradict each other: remarks, marks and scores."""

from collections.abc import Collection, Mapping

from lmme3dhf.vocabulary import LEVELS, NO_DISTORTION

MANY = 3  # the best clips of a set may well show one or two
EVERYWHERE = "Blurring / Exposure / Grain"  # may be seen without a place to mark


def conflicts(
    categories: Mapping[str, Collection[str]] | None,
    dots: Mapping[str, int] | None,
    levels: Mapping[str, Mapping[str, str]],
) -> dict[str, list[str]]:
    """What contradicts what -> the videos concerned, sorted; without those of which nothing is.

    Args:
        categories: Video -> its distortion categories; None where nobody remarked.
        dots: Video -> number of marks of all markers; without the videos that nobody looked at.
            None where nobody marked.
        levels: Dimension -> video -> level word.
    """
    remarked, marked = categories or {}, dots or {}
    named = {v for v, found in remarked.items() if set(found) - {NO_DISTORTION}}
    clean = {v for v, found in remarked.items() if set(found) == {NO_DISTORTION}}
    dotted = {v for v, count in marked.items() if count}
    bare = set(marked) - dotted
    words: dict[str, set[str]] = {}
    for of_dimension in levels.values():
        for video, level in of_dimension.items():
            words.setdefault(video, set()).add(level)
    lowest = {v for v, found in words.items() if LEVELS[0] in found}
    highest = {v for v, found in words.items() if found == {LEVELS[-1]}}
    nothing = (clean | bare) - named - dotted
    found = {
        "remarks name distortions, but nothing is marked": {
            v for v in named & bare if set(remarked[v]) != {EVERYWHERE}
        },
        "remarks say that nothing is wrong, but something is marked": clean & dotted,
        f"a score is {LEVELS[0]}, but nothing is named or marked": lowest & nothing,
        f"all scores are {LEVELS[-1]}, but {MANY} distortions or more are named and marked": {
            v for v in highest & named & dotted if len(remarked[v]) >= MANY
        },
    }
    return {what: sorted(videos) for what, videos in found.items() if videos}
