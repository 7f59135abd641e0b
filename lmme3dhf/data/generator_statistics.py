"""What the generators have to do with the scores, and what tells that a clip's number holds its
generator (paper, Section 3.4 and Fig. 2b).

Pure functions of scores by video, with plain dictionaries as results, as in `statistics`. Array
legend: V videos.
"""

import math
from collections.abc import Collection, Mapping
from itertools import combinations

import numpy as np
from scipy import stats

from lmme3dhf.data.splits import LATENTS, generator, latent
from lmme3dhf.data.statistics import Figures, Scores, agreement, by_generator


def per_generator(mos: Mapping[str, Scores]) -> list[Figures]:
    """Each generator's mean score with its deviation (ddof 1) and the 95 % interval of the mean
    (Student's t over its videos), and the mean difference of the two dimensions.
    """
    videos = sorted({video for scores in mos.values() for video in scores})
    rows = []
    for group, members in by_generator(videos).items():
        row: Figures = {"generator": group, "videos": len(members)}
        for dimension, scores in mos.items():
            values = np.array([scores[video] for video in members if video in scores])
            row[dimension] = _mean_with_interval(values)
        if len(mos) == 2:
            first, second = mos.values()
            both = [first[v] - second[v] for v in members if v in first and v in second]
            row["difference"] = float(np.mean(both)) if both else math.nan
        rows.append(row)
    return rows


def _mean_with_interval(values: np.ndarray) -> Figures:
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    std = float(values.std(ddof=1)) if n > 1 else math.nan
    half = float(stats.t.ppf(0.975, n - 1) * std / math.sqrt(n)) if n > 1 else math.nan
    return {"n": n, "mean": mean, "std": std, "low": mean - half, "high": mean + half}


def dealt_out(parts: Mapping[str, Collection[str]], videos: Collection[str]) -> Figures:
    """Whether the parts were drawn without looking at generators.

    Returns:
        "counts": part -> generator -> its videos in the part; "chi2", "freedom" (degrees of) and
        "p" of Pearson's test of independence on that table. NaN where there are fewer than two
        parts or two generators.
    """
    groups = by_generator(videos)
    counts = {
        part: {str(group): len(taken.intersection(members)) for group, members in groups.items()}
        for part, taken in ((part, set(taken)) for part, taken in parts.items())
    }
    table = np.array([list(row.values()) for row in counts.values()], dtype=int, ndmin=2)
    table = table[table.any(axis=1)][:, table.any(axis=0)]
    chi2, p, freedom = math.nan, math.nan, 0
    if min(table.shape) > 1:
        test = stats.chi2_contingency(table, correction=False)
        chi2, p, freedom = float(test.statistic), float(test.pvalue), int(test.dof)
    return {"counts": counts, "chi2": chi2, "freedom": freedom, "p": p}


def explained(values_V: np.ndarray, groups_V: np.ndarray) -> float:
    """eta squared: the share of the values' variance that lies between the groups, 0..1; NaN for
    constant values.
    """
    _, index_V = np.unique(groups_V, return_inverse=True)
    n = np.bincount(index_V)
    means = np.bincount(index_V, weights=values_V) / n
    total = float(((values_V - values_V.mean()) ** 2).sum())
    return float((n * (means - values_V.mean()) ** 2).sum()) / total if total else math.nan


def partition(mos: Mapping[str, Scores], period: int = LATENTS) -> Figures | None:
    """Evidence that a clip's number divided by 200 is its generator: how much of the scores'
    variance a cut every 200 numbers explains, at each of the 200 places to begin it.

    The first and the last block of a cut that does not begin at 0 are short ones of their own,
    which favours such cuts a little.

    Returns:
        None where the numbers have gaps, there are fewer than two periods of them, or all scores of
        a dimension are alike. Otherwise "eta2" (dimension -> offset -> share) and their "sum" over
        the dimensions, the "best" and "worst" offset by that sum, "modulo_10" (dimension -> share
        explained by the number modulo 10, for comparison), and "steps": Student's t between the
        100 videos on either side of each multiple of the period, for each dimension and the
        difference of two.
    """
    shared = sorted(set.intersection(*(set(scores) for scores in mos.values())))
    numbers_V = np.array([generator(video) * LATENTS + latent(video) for video in shared])
    if len(shared) < 2 * period or np.any(np.diff(np.sort(numbers_V)) != 1):
        return None
    if any(np.ptp(list(scores.values())) == 0 for scores in mos.values()):
        return None
    order = np.argsort(numbers_V)
    numbers_V = numbers_V[order]
    values = {d: np.array([scores[v] for v in shared])[order] for d, scores in mos.items()}
    eta2 = {
        d: [explained(values_V, (numbers_V - offset) // period) for offset in range(period)]
        for d, values_V in values.items()
    }
    total = np.sum(list(eta2.values()), axis=0)
    compared = dict(values)
    if len(values) == 2:
        first, second = values.values()
        compared["difference"] = first - second
    steps = []
    for at in range(int(numbers_V[0]) + period, int(numbers_V[-1]) + 1, period):
        place = int(np.searchsorted(numbers_V, at))
        before, after = slice(max(0, place - 100), place), slice(place, place + 100)
        t = {
            name: _student_t(values_V[before], values_V[after])
            for name, values_V in compared.items()
        }
        steps.append({"at": at, **t})
    return {
        "period": period,
        "eta2": eta2,
        "sum": total.tolist(),
        "best": {"offset": int(total.argmax()), "eta2": float(total.max())},
        "worst": {"offset": int(total.argmin()), "eta2": float(total.min())},
        "modulo_10": {d: explained(values_V, numbers_V % 10) for d, values_V in values.items()},
        "steps": steps,
    }


def _student_t(before_V: np.ndarray, after_V: np.ndarray) -> float:
    """With pooled variance; NaN where neither side varies."""
    n, m = len(before_V), len(after_V)
    squares = n * before_V.var() + m * after_V.var()
    if n + m < 3 or squares == 0:
        return math.nan
    pooled = squares / (n + m - 2)
    return float((before_V.mean() - after_V.mean()) / math.sqrt(pooled * (1 / n + 1 / m)))


def latents(mos: Scores) -> Figures:
    """Whether generators share their latents: what the latent explains beyond the generator, and
    how the scores of two generators go together at equal latents.

    Returns:
        "eta2": share of the variance within generators that an additive effect of the latent
        explains, "by_chance": what a latent without any effect would explain on average, "f" and
        "p" of the test of that effect (two-way analysis of variance without interaction); "pairs":
        Pearson's r of each two generators over their common latents, with n and p, and p times the
        number of pairs (Bonferroni, at most 1), strongest first. NaN where nothing can be tested.
    """
    videos = list(mos)
    mos_V = np.array(list(mos.values()))
    generator_V = np.array([generator(video) for video in videos])
    latent_V = np.array([latent(video) for video in videos])
    generators = _indicators(generator_V)
    rest, rank = _residual(mos_V, generators)
    rest_both, rank_both = _residual(mos_V, np.hstack([generators, _indicators(latent_V)]))
    gained, free = rank_both - rank, len(videos) - rank_both
    f = p = share = math.nan
    # Below these limits there is nothing but rounding.
    varies = rest > 1e-12 * float((mos_V**2).sum())
    if gained > 0 and free > 0 and varies and rest_both > 1e-12 * rest:
        share = 1 - rest_both / rest
        f = (rest - rest_both) / gained / (rest_both / free)
        p = float(stats.f.sf(f, gained, free))
    return {
        "eta2": share,
        "by_chance": gained / (gained + free) if gained + free else math.nan,
        "f": f,
        "p": p,
        "pairs": _pairs(mos),
    }


def _pairs(mos: Scores) -> list[Figures]:
    table: dict[int, dict[int, float]] = {}
    for video, score in mos.items():
        table.setdefault(generator(video), {})[latent(video)] = score
    pairs = list(combinations(sorted(table), 2))
    rows = []
    for first, second in pairs:
        common = sorted(set(table[first]) & set(table[second]))
        x = np.array([table[first][i] for i in common])
        y = np.array([table[second][i] for i in common])
        r = p = math.nan
        if len(common) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
            r, p = (float(value) for value in stats.pearsonr(x, y))
        rows.append(
            {
                "first": first,
                "second": second,
                "n": len(common),
                "r": r,
                "p": p,
                "p_adjusted": min(1.0, p * len(pairs)) if p == p else math.nan,
            }
        )
    return sorted(rows, key=lambda row: (row["r"] != row["r"], -abs(row["r"])))


def _indicators(group_V: np.ndarray) -> np.ndarray:
    return (group_V[:, None] == np.unique(group_V)).astype(float)


def _residual(values_V: np.ndarray, columns: np.ndarray) -> tuple[float, int]:
    """Sum of squares that the columns leave, and their rank."""
    weights, _, rank, _ = np.linalg.lstsq(columns, values_V, rcond=None)
    return float(((values_V - columns @ weights) ** 2).sum()), int(rank)


def generator_floor(mos: Scores, parts: Mapping[str, Collection[str]]) -> Figures | None:
    """SRCC, PLCC and KRCC on "eval" of a predictor that knows the generator alone and says its mean
    score in "train" (the mean of all of train for a generator that is not there). A method that is
    worse has not looked at the clip. None where either part has no scores.
    """
    train = {video: mos[video] for video in parts.get("train", ()) if video in mos}
    held_out = [video for video in parts.get("eval", ()) if video in mos]
    if not train or not held_out:
        return None
    means = {
        group: float(np.mean([train[video] for video in members]))
        for group, members in by_generator(train).items()
    }
    overall = float(np.mean(list(train.values())))
    return agreement(
        {video: means.get(generator(video), overall) for video in held_out},
        {video: mos[video] for video in held_out},
    )
