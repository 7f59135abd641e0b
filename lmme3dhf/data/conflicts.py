"""Where the annotations of a video contradict each other: remarks, marks and scores."""

from collections.abc import Collection, Mapping

from lmme3dhf.aspects import Aspects
from lmme3dhf.vocabulary import NO_DISTORTION

MANY = 3  # the best clips of a set may well show one or two
EVERYWHERE = "Blurring / Exposure / Grain"  # may be seen without a place to mark


def conflicts(
    categories: Mapping[str, Collection[str]] | None,
    dots: Mapping[str, int] | None,
    levels: Mapping[str, Mapping[str, str]],
    aspects: Aspects,
) -> dict[str, list[str]]:
    """What contradicts what -> the videos concerned, sorted; without those of which nothing is.

    Args:
        categories: Video -> its distortion categories; None where nobody remarked.
        dots: Video -> number of marks of all markers; without the videos that nobody looked at.
            None where nobody marked.
        levels: Aspect -> video -> level word.
        aspects: What is rated, with all level words.
    """
    remarked, marked = categories or {}, dots or {}
    named = {v for v, found in remarked.items() if set(found) - {NO_DISTORTION}}
    clean = {v for v, found in remarked.items() if set(found) == {NO_DISTORTION}}
    dotted = {v for v, count in marked.items() if count}
    bare = set(marked) - dotted
    ends: dict[str, set[int]] = {}  # video -> -1 for the worst level, 1 for the best, else 0
    worst, best = {}, {}  # words, in order and once
    for name, of_aspect in levels.items():
        scale = aspects[name].scale
        low, *_, high = scale.levels if scale.higher_is_better else scale.levels[::-1]
        worst[low] = best[high] = None
        for video, level in of_aspect.items():
            ends.setdefault(video, set()).add({low: -1, high: 1}.get(level, 0))
    worst, best = " or ".join(worst), " or ".join(best)
    lowest = {v for v, found in ends.items() if -1 in found}
    highest = {v for v, found in ends.items() if found == {1}}
    nothing = (clean | bare) - named - dotted
    found = {
        "remarks name distortions, but nothing is marked": {
            v for v in named & bare if set(remarked[v]) != {EVERYWHERE}
        },
        "remarks say that nothing is wrong, but something is marked": clean & dotted,
        f"a score is {worst}, but nothing is named or marked": lowest & nothing,
        f"all scores are {best}, but {MANY} distortions or more are named and marked": {
            v for v in highest & named & dotted if len(remarked[v]) >= MANY
        },
    }
    return {what: sorted(videos) for what, videos in found.items() if videos}
