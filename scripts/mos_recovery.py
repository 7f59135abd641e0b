"""Which way from ratings to scores finds the truth? On simulated raters, whose truth is known.

Panels of 24 raters with 0, 2 and 6 careless ones among them rate 200 drawn faces. Every rule, with
every screening, scores the videos; the table shows how well the scores order the videos as the true
opinions do (SRCC), how far they are off (RMSE in units of the slider, after the least-squares line
from the scores to the truth, because the scales differ), and how well the careless raters are found
(precision: careless among the rejected; recall: rejected among the careless; false: attentive
raters rejected in each panel). A second table, on panels with 30 % of the ratings missing,
compares our reading of Eq. 1-3 with their print (departures D6 and D7).

    python scripts/mos_recovery.py
    python scripts/mos_recovery.py --panels 5 --out runs/mos_recovery.csv
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy import stats

from lmme3dhf.annotations.mos import SubjectReport, mean_opinion_scores
from lmme3dhf.annotations.ratings import Ratings, z_scores
from lmme3dhf.annotations.screening import SCREENINGS
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.raters import RATERS, simulated_ratings, true_opinion
from lmme3dhf.files import write_csv

VIDEOS = 200
CARELESS = (0, 2, 6)
MISSING_SHARE = 0.3
# Of the ML rule: a subject is taken for careless whose inconsistency lies this many robust
# deviations (1.4826 times the median absolute deviation) above the panel's median.
ROBUST_DEVIATIONS = 3.0

Found = tuple[np.ndarray, set[int]]  # scores (V,), indices of the subjects held to be careless


def inconsistent(reports: Iterable[SubjectReport]) -> set[int]:
    """Indices of the subjects whom the ML rule shows to be far less consistent than the others."""
    noise_S = np.array([np.nan if r.inconsistency is None else r.inconsistency for r in reports])
    centre = np.nanmedian(noise_S)
    robust = 1.4826 * np.nanmedian(np.abs(noise_S - centre))
    return set(np.flatnonzero(noise_S > centre + ROBUST_DEVIATIONS * robust).tolist())


def plain_mean(ratings: Ratings) -> Found:
    """The mean slider position, nobody screened: what the rules have to beat."""
    return np.nanmean(ratings.rating_SV, axis=0), set()


def scored_by(rule: str, screening: str) -> Callable[[Ratings], Found]:
    """A rule with a screening, as `mean_opinion_scores` has them."""

    def scores(ratings: Ratings) -> Found:
        found = mean_opinion_scores(ratings, rule=rule, screening=screening)
        rejected = {i for i, report in enumerate(found.subjects) if report.rejected is not None}
        if (rule, screening) == ("mle", "none"):
            rejected = inconsistent(found.subjects)
        return found.mos_V, rejected

    return scores


METHODS: dict[str, Callable[[Ratings], Found]] = {
    "mean slider position": plain_mean,
    **{f"zscore, {name}": scored_by("zscore", name) for name in SCREENINGS},
    **{f"mle, {name}": scored_by("mle", name) for name in SCREENINGS},
}


def pooled_z(rating_SV: np.ndarray) -> np.ndarray:
    """Eq. 1 with one sigma_I for all subjects: the deviation of all ratings from the own means."""
    apart_SV = rating_SV - np.nanmean(rating_SV, axis=1, keepdims=True)
    degrees = np.count_nonzero(~np.isnan(rating_SV)) - len(rating_SV)
    return apart_SV / np.sqrt(np.nansum(apart_SV**2) / degrees)


def over_all(scaled_SV: np.ndarray) -> np.ndarray:
    """Eq. 3 with 1/N over all N subjects, also those who did not rate the video."""
    return np.nansum(scaled_SV, axis=0) / len(scaled_SV)


def over_raters(scaled_SV: np.ndarray) -> np.ndarray:
    """Eq. 3 as the mean over the subjects who rated the video."""
    return np.nanmean(scaled_SV, axis=0)


def read_as(z: Callable, mean: Callable) -> Callable[[Ratings], Found]:
    """Eq. 1-3 with one reading of the deviation and one of the mean; nobody is screened."""
    return lambda ratings: (mean(100 * (z(ratings.rating_SV) + 3) / 6), set())


READINGS: dict[str, Callable[[Ratings], Found]] = {
    "ours: own sigma_i, mean over those who rated": read_as(z_scores, over_raters),
    "one sigma_I for all (Eq. 1)": read_as(pooled_z, over_raters),
    "1/N over all subjects (Eq. 3)": read_as(z_scores, over_all),
    "both as printed": read_as(pooled_z, over_all),
}


def panel(seed: int, careless: int, missing_share: float) -> tuple[np.ndarray, Ratings]:
    """True quality of the videos and the ratings of a simulated panel, its last raters careless."""
    rng = np.random.default_rng((seed, careless))
    plans = (clip_plan(index % 10, index // 10, seed) for index in range(VIDEOS))
    opinion_V = np.array([true_opinion(plan)[0] for plan in plans])
    rating_SV = simulated_ratings(opinion_V, rng, careless=careless)
    rating_SV[rng.random(rating_SV.shape) < missing_share] = np.nan
    subjects = tuple(f"rater{index + 1:02d}" for index in range(RATERS))
    videos = tuple(f"seed{index:04d}" for index in range(VIDEOS))
    return opinion_V, Ratings("quality", subjects, videos, rating_SV)


def rmse_after_line(score_V: np.ndarray, opinion_V: np.ndarray) -> float:
    """Root mean squared error of the least-squares line from scores to opinions."""
    slope, intercept = np.polyfit(score_V, opinion_V, 1)
    return float(np.sqrt(np.mean((slope * score_V + intercept - opinion_V) ** 2)))


def measured(
    methods: dict[str, Callable[[Ratings], Found]], seeds: range, careless: int, missing: float
) -> list[dict]:
    """One row for each method, over the panels of all seeds."""
    panels = [panel(seed, careless, missing) for seed in seeds]
    rows = []
    for name, method in methods.items():
        srcc, rmse, hits, false = [], [], 0, 0
        for opinion_V, ratings in panels:
            score_V, rejected = method(ratings)
            srcc.append(stats.spearmanr(score_V, opinion_V).statistic)
            rmse.append(rmse_after_line(score_V, opinion_V))
            hits += len({i for i in rejected if i >= RATERS - careless})
            false += len({i for i in rejected if i < RATERS - careless})
        rows.append(
            {
                "method": name,
                "careless": careless,
                "missing": missing,
                "panels": len(panels),
                "srcc_mean": np.mean(srcc),
                "srcc_std": np.std(srcc, ddof=1),
                "rmse_mean": np.mean(rmse),
                "rmse_std": np.std(rmse, ddof=1),
                "precision": hits / (hits + false) if careless and hits + false else np.nan,
                "recall": hits / (careless * len(panels)) if careless else np.nan,
                "false_per_panel": false / len(panels),
            }
        )
    return rows


def print_table(rows: list[dict], columns: dict[str, tuple[str, ...]]) -> None:
    """One Markdown line a method; per number of careless raters the columns (figure -> format)."""
    numbers = sorted({row["careless"] for row in rows})
    heads = [f"{head}, {number} careless" for number in numbers for head, *_ in columns.values()]
    print("| |" + "|".join(heads) + "|")
    print("|---" * (len(heads) + 1) + "|")
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for number in numbers:
            (row,) = (r for r in rows if (r["method"], r["careless"]) == (name, number))
            for key, (_, form) in columns.items():
                cells.append("-" if np.isnan(row[key]) else form.format(row[key]))
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def main(argv: list[str] | None = None) -> list[dict]:
    """Measures both comparisons; returns the rows, prints the tables and writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--panels", type=int, default=50, help="simulated panels, two at least")
    parser.add_argument("--out", type=Path, help="write all rows as CSV")
    args = parser.parse_args(argv)
    if args.panels < 2:
        parser.error("--panels: two at least are needed for a deviation")
    seeds = range(args.panels)
    rules = [row for number in CARELESS for row in measured(METHODS, seeds, number, 0.0)]
    readings = [
        row for number in CARELESS for row in measured(READINGS, seeds, number, MISSING_SHARE)
    ]
    print(f"Recovery of the truth, mean of {args.panels} panels, no rating missing:\n")
    print_table(rules, {"srcc_mean": ("SRCC", "{:.4f}"), "rmse_mean": ("RMSE", "{:.3f}")})
    print("Careless raters found; `mle, none` rejects nobody but shows who is inconsistent:\n")
    finding = [row for row in rules if row["method"].startswith(("zscore", "mle, none"))]
    print_table(
        [row for row in finding if row["method"] != "zscore, none"],
        {
            "precision": ("precision", "{:.2f}"),
            "recall": ("recall", "{:.2f}"),
            "false_per_panel": ("false", "{:.2f}"),
        },
    )
    print(f"Readings of Eq. 1-3 with {100 * MISSING_SHARE:.0f} % of the ratings missing:\n")
    print_table(readings, {"srcc_mean": ("SRCC", "{:.4f}"), "rmse_mean": ("RMSE", "{:.3f}")})
    if args.out:
        rows = [
            [round(value, 6) if isinstance(value, float) else value for value in row.values()]
            for row in rules + readings
        ]
        write_csv(args.out, list(rules[0]), rows)
    return rules + readings


if __name__ == "__main__":
    main()
