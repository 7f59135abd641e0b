"""Are our opinion scores those of the `sureal` package? Both process the same panels.

Simulated panels (with and without missing ratings) and the panels of a published formula go through
`lmme3dhf.annotations` and through sureal, which was written by others; the table shows the largest
absolute difference of every quantity, in units of the slider or of z.

    python scripts/compare_sureal.py
    python scripts/compare_sureal.py --panels 20 --out runs/compare_sureal.json

What sureal does otherwise, known from its behaviour:

- its screening takes the population deviation (ddof 0) where the Recommendation takes the sample
  deviation, so ours runs with ddof 0 here;
- it divides P + Q by all videos, ours by those that the subject rated: with missing ratings a
  subject may be rejected by ours alone. Screened scores are compared where both reject the same,
  in so many panels as stand in brackets;
- a video that all rate alike puts everybody both above and below; ours leaves it out;
- where everybody would be rejected it rejects nobody; ours says that no rating is left;
- its interval is 1.95996 deviations wide, ours 1.96.
"""

import argparse
import contextlib
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lmme3dhf.annotations.mos import mean_opinion_scores
from lmme3dhf.annotations.ratings import Ratings
from lmme3dhf.annotations.screening import IMBALANCE_LIMIT, OUTSIDE_LIMIT, SCREENINGS, shares
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.raters import simulated_ratings, true_opinion
from lmme3dhf.files import write_json

VIDEOS = 100
MISSING_SHARE = 0.25
# Videos, subjects, swing, bias, noise, period, offset and slider of R = 2.5 + swing sin(.7 j) +
# bias cos(1.3 i) + noise sin(12.9898 (i + 1) (j + 1) + .5 j), j videos and i subjects from 0; the
# last subject is off by + and - the offset once a period.
FORMULA_PANELS = {
    "M1": (60, 12, 1.6, 0.3, 0.45, 9, 3.5, True),
    "M2": (80, 24, 1.2, 0.2, 0.30, 8, 3.0, False),
    "M3": (80, 24, 1.2, 0.2, 0.42, 8, 3.0, False),
    "M4": (80, 18, 1.2, 0.2, 0.42, 6, 3.0, False),
    "M5": (80, 24, 1.2, 0.2, 0.30, 4, 0.6, False),
    "M6": (80, 21, 1.2, 0.2, 0.30, 5, 0.6, False),
    "M7": (80, 24, 1.2, 0.2, 0.42, 8, 0.6, False),
}


def formula_panel(
    videos: int,
    subjects: int,
    swing: float,
    bias: float,
    noise: float,
    period: int,
    offset: float,
    slider: bool,
) -> np.ndarray:
    """Ratings (subjects, videos) of the formula in steps of 0.01, cut to 0..5 for a slider."""
    i, j = np.arange(subjects)[:, None], np.arange(videos)
    rating_SV = 2.5 + swing * np.sin(0.7 * j) + bias * np.cos(1.3 * i)
    rating_SV += noise * np.sin(12.9898 * (i + 1) * (j + 1) + 0.5 * j)
    off_V = (j % period == 0).astype(float) - (j % period == period // 2)
    rating_SV[-1] += offset * off_V
    if slider:
        rating_SV = np.clip(rating_SV, 0, 5)
    return np.round(100 * rating_SV) / 100


def simulated_panel(seed: int, missing_share: float) -> np.ndarray:
    """Ratings of the simulated raters for the drawn faces of a seed; 2 to 6 of them careless."""
    rng = np.random.default_rng(seed)
    opinion_V = np.array([true_opinion(clip_plan(i % 10, i // 10, seed))[0] for i in range(VIDEOS)])
    rating_SV = simulated_ratings(opinion_V, rng, careless=2 + seed % 5)
    rating_SV[rng.random(rating_SV.shape) < missing_share] = np.nan
    return rating_SV


def sureal_results(rating_SV: np.ndarray) -> dict[str, dict]:
    """What sureal's models return for a panel, by the name of the model."""
    try:
        from sureal import dataset_reader, subjective_model
    except ImportError as error:
        raise SystemExit(
            "compare_sureal.py: the package sureal is not installed; install the project with its "
            "test extra: pip install -e '.[test]'"
        ) from error
    reader = dataset_reader.RawDatasetReader(
        SimpleNamespace(
            ref_videos=[{"content_id": 0}],
            dis_videos=[
                {"content_id": 0, "asset_id": video, "os": scores.tolist()}
                for video, scores in enumerate(rating_SV.T)
            ],
        )
    )
    names = (
        "MosModel",
        "SubjrejMosModel",
        "ZscoringMosModel",
        "ZscoringSubjrejMosModel",
        "SubjectMLEModelProjectionSolver",
    )
    # It prints every iteration and divides 0 by 0 where nobody is far off.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {n: getattr(subjective_model, n)(reader).run_modeling() for n in names}


def compared(rating_SV: np.ndarray) -> dict[str, float | bool | None]:
    """Largest absolute difference of each quantity, ours against sureal's; None for screened scores
    where the two reject different subjects.
    """
    subjects, videos = rating_SV.shape
    names = tuple(f"s{index:02d}" for index in range(subjects))
    ratings = Ratings("quality", names, tuple(f"v{index}" for index in range(videos)), rating_SV)
    theirs = sureal_results(rating_SV)

    def apart(ours: np.ndarray, model: str, key: str = "quality_scores") -> float:
        return float(np.abs(ours - np.array(theirs[model][key])).max())

    def kept(model: str) -> list[bool]:
        return [not rejected for rejected in theirs[model]["observer_rejected"]]

    raw = SCREENINGS["bt500"](rating_SV, ddof=0, limit=np.nan)
    kept_raw = [reason is None for reason in raw.reason_S]
    kept_of_all = [
        not (outside > OUTSIDE_LIMIT and imbalance < IMBALANCE_LIMIT)
        for outside, imbalance in (
            shares(high, low, videos) for high, low in zip(raw.high_S, raw.low_S, strict=True)
        )
    ]
    plain = mean_opinion_scores(ratings, screening="none")
    on_z = mean_opinion_scores(ratings, screening="bt500_z", ddof=0)
    kept_z = [report.rejected is None for report in on_z.subjects]
    mle = mean_opinion_scores(ratings, rule="mle", screening="none")
    error_V = np.nanstd(rating_SV, axis=0, ddof=1) / np.sqrt(plain.count_V)
    their_share_S = np.array(theirs["SubjrejMosModel"]["observer_rejected_1st_stats"])
    same_raw, same_z = (
        kept_raw == kept("SubjrejMosModel"),
        kept_z == kept("ZscoringSubjrejMosModel"),
    )
    return {
        "MOS": apart(np.nanmean(rating_SV, axis=0), "MosModel"),
        "MOS, standard error": apart(error_V, "MosModel", "quality_scores_std"),
        "BT.500, P + Q": float(np.abs(raw.high_S + raw.low_S - videos * their_share_S).max()),
        "BT.500, same rejected, P + Q of all videos": kept_of_all == kept("SubjrejMosModel"),
        "BT.500, same rejected": same_raw,
        "BT.500 on z, same rejected": same_z,
        "screened MOS": apart(np.nanmean(rating_SV[kept_raw], axis=0), "SubjrejMosModel")
        if same_raw
        else None,
        # Ours is 100 (z + 3) / 6.
        "z-score MOS": apart(plain.mos_V * 6 / 100 - 3, "ZscoringMosModel"),
        "z-score MOS, standard error": apart(
            plain.std_V * 6 / 100 / np.sqrt(plain.count_V), "ZscoringMosModel", "quality_scores_std"
        ),
        "z-score MOS, screened": apart(on_z.mos_V * 6 / 100 - 3, "ZscoringSubjrejMosModel")
        if same_z
        else None,
        "MLE psi": apart(mle.mos_V * 5 / 100, "SubjectMLEModelProjectionSolver"),
        "MLE bias": apart(
            np.array([r.bias for r in mle.subjects]),
            "SubjectMLEModelProjectionSolver",
            "observer_bias",
        ),
        "MLE inconsistency": apart(
            np.array([r.inconsistency for r in mle.subjects]),
            "SubjectMLEModelProjectionSolver",
            "observer_inconsistency",
        ),
        "MLE standard error": apart(
            mle.std_V * 5 / 100 / np.sqrt(mle.count_V),
            "SubjectMLEModelProjectionSolver",
            "quality_scores_std",
        ),
    }


def main(argv: list[str] | None = None) -> dict:
    """Compares all panels; returns, prints and writes the differences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--panels", type=int, default=10, help="simulated panels of each kind")
    parser.add_argument("--out", type=Path, help="write the differences of every panel as JSON")
    args = parser.parse_args(argv)
    panels = {name: formula_panel(*values) for name, values in FORMULA_PANELS.items()}
    kinds = {"formula": list(panels)}
    for kind, share in (("complete", 0.0), ("missing", MISSING_SHARE)):
        drawn = {f"{kind} {seed}": simulated_panel(seed, share) for seed in range(args.panels)}
        kinds[kind] = list(drawn)
        panels |= drawn
    report = {name: compared(panel) for name, panel in panels.items()}
    headings = [
        f"formula, {len(kinds['formula'])}",
        f"simulated, {args.panels}",
        f"{100 * MISSING_SHARE:.0f} % missing, {args.panels}",
    ]
    print("| largest absolute difference | " + " | ".join(headings) + " |")
    print("|---" * (len(headings) + 1) + "|")
    for quantity in next(iter(report.values())):
        cells = []
        for names in kinds.values():
            values = [report[name][quantity] for name in names]
            compared_values = [value for value in values if value is not None]
            if not compared_values:
                cells.append("-")
            elif isinstance(compared_values[0], bool):
                cells.append(f"{sum(compared_values)} of {len(values)}")
            else:
                only = "" if len(compared_values) == len(values) else f" ({len(compared_values)})"
                cells.append(f"{max(compared_values):.1e}{only}")
        print(f"| {quantity} | " + " | ".join(cells) + " |")
    if args.out:
        write_json(args.out, report)
    return report


if __name__ == "__main__":
    main()
