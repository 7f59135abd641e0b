"""Agreement of predicted scores with the subjects' opinion scores (paper, Section 5.1: SRCC, PLCC,
KRCC).

PLCC is raw, without a fitted curve before it, as in the released code; `fitted` gives PLCC and RMSE
after the logistic curves that much of the literature fits first, and says which. `within_between`
parts what a method knows of single videos from what it knows of their generators. Undefined is NaN
with its reason, never 0. Array legend: N videos, G groups.

Sources of the curves: VQEG, Final report on the validation of objective models of video quality
assessment, phase I (2000), for four parameters; Sheikh, Sabir and Bovik, IEEE Transactions on Image
Processing 15 (2006), for five.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special, stats

# A spread below this share of the values is rounding, not prediction.
CONSTANT_SPREAD = 1e-12
FEWEST_PAIRS = 3


@dataclass(frozen=True)
class Correlations:
    """Correlations in -1..1 and errors in units of the opinion scores, NaN where undefined.

    Attributes:
        srcc: Spearman's rho (ties get their mean rank).
        plcc: Pearson's r of the raw values.
        krcc: Kendall's tau-b.
        rmse: Root of the mean squared difference of the raw values; it says something only where
            both are on one scale.
        mae: Mean absolute difference of the raw values.
        n: Number of pairs.
        reason: Why some of it is undefined, as a sentence; None where nothing is.
    """

    srcc: float
    plcc: float
    krcc: float
    rmse: float
    mae: float
    n: int
    reason: str | None = None


def correlations(predicted_N: np.ndarray, mos_N: np.ndarray) -> Correlations:
    """SRCC, raw PLCC, KRCC (tau-b), RMSE and MAE of N predictions with their opinion scores.

    With fewer than three pairs, or where either side is constant, the three correlations are NaN;
    the errors are defined from one pair on.

    Raises:
        ValueError: Not one-dimensional, different lengths, or values that are not finite (their
            rows are named).
    """
    predicted_N, mos_N = checked_pairs(predicted_N, mos_N)
    n = len(mos_N)
    if n == 0:
        return Correlations(*[np.nan] * 5, n, "there are no pairs")
    rmse = float(np.sqrt(np.mean((predicted_N - mos_N) ** 2)))
    mae = float(np.mean(np.abs(predicted_N - mos_N)))
    reason = _undefined(predicted_N, mos_N)
    if reason is not None:
        return Correlations(np.nan, np.nan, np.nan, rmse, mae, n, reason)
    return Correlations(
        srcc=float(stats.spearmanr(predicted_N, mos_N).statistic),
        plcc=float(stats.pearsonr(predicted_N, mos_N).statistic),
        krcc=float(stats.kendalltau(predicted_N, mos_N, variant="b").statistic),
        rmse=rmse,
        mae=mae,
        n=n,
    )


def checked_pairs(predicted_N: np.ndarray, mos_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, or a ValueError that says what is wrong and in which rows."""
    predicted_N, mos_N = np.asarray(predicted_N, dtype=float), np.asarray(mos_N, dtype=float)
    if predicted_N.ndim != 1 or predicted_N.shape != mos_N.shape:
        raise ValueError(
            f"predictions {predicted_N.shape} and scores {mos_N.shape}: expected two lists of the "
            "same length"
        )
    for name, values_N in (("prediction", predicted_N), ("opinion score", mos_N)):
        rows = np.flatnonzero(~np.isfinite(values_N)).tolist()
        if rows:
            more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
            raise ValueError(
                f"the {name} is not finite in rows {rows[:10]}{more} of {len(values_N)}; predict "
                "or remove these rows"
            )
    return predicted_N, mos_N


def is_constant(values_N: np.ndarray) -> bool:
    """Whether the values differ by no more than rounding; at least one value is needed."""
    return bool(np.ptp(values_N) <= CONSTANT_SPREAD * np.abs(values_N).max())


def _undefined(predicted_N: np.ndarray, mos_N: np.ndarray) -> str | None:
    if len(mos_N) < FEWEST_PAIRS:
        return f"a correlation needs at least {FEWEST_PAIRS} pairs, there are {len(mos_N)}"
    for name, values_N in (("predictions", predicted_N), ("opinion scores", mos_N)):
        if is_constant(values_N):
            return f"all {len(mos_N)} {name} are the same"
    return None


# Fitted curves. The location and the steepness of a logistic curve are searched; everything else
# enters linearly and follows in closed form (variable projection: Golub and Pereyra, SIAM Journal
# on Numerical Analysis 10, 1973). Scores are standardised for the search.

CURVES = {
    "linear": "b1 x + b2",
    "logistic4": "b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))",
    "logistic5": "b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5",
}
_FREE_PARAMETERS = {"linear": 2, "logistic4": 4, "logistic5": 5}
# In deviations of the predictions. Far outside the scores a logistic curve is an exponential one,
# steep it is a step, flat a line.
_LOCATION = (-100.0, 100.0)
_LOG_STEEPNESS = (np.log(1e-3), np.log(100))
_START_LOCATIONS = np.concatenate([[-50, -10], np.linspace(-3, 3, 25), [10, 50]])
_START_LOG_STEEPNESS = np.linspace(np.log(0.1), np.log(30), 15)
_REFINED_STARTS = 6
_NEAR_BOUND = 1e-3
_SMALLEST_LENGTH = 1e-200


@dataclass(frozen=True)
class Fit:
    """A curve from predictions to opinion scores, fitted by least squares.

    Attributes:
        curve: The curve that was asked for, a key of `CURVES`.
        plcc: Pearson's r of the curve's values with the opinion scores, 0..1: the sign of the raw
            correlation is lost, for the curve may fall. NaN where undefined.
        rmse: Root of the mean squared distance from the curve (divided by N), in units of the
            opinion scores. NaN where undefined.
        parameters: The curve as level + slope (x - centre) + height (s(x) - middle), with s(x) = 1
            / (1 + exp(-steepness (x - location))), less 1 where the location lies below the
            centre. In the letters of `CURVES`: height is b1 - b2 of four and b1 of five
            parameters, location b3, steepness 1 / |b4| or b2, slope b4 of five. A line has neither
            location nor steepness. Empty where undefined. Many sets give nearly the same curve:
            compare `plcc` and `rmse`, never these.
        converged: Whether the search ended at an optimum of this curve; False where the line
            stands in its place.
        note: What a reader has to know, as a sentence; empty where there is nothing.
        n: Number of pairs.
    """

    curve: str
    plcc: float
    rmse: float
    parameters: dict[str, float]
    converged: bool
    note: str
    n: int


def fitted(predicted_N: np.ndarray, mos_N: np.ndarray, curve: str) -> Fit:
    """PLCC and RMSE after the best curve of one kind, never worse than after the best line.

    From a grid of starts the best are refined and the least sum of squares is kept. The line is
    returned, and `note` says so, where there are not more pairs than parameters and where no start
    ended below it. With fewer than three pairs or a constant side all is NaN.

    Args:
        predicted_N: Predictions, on any scale.
        mos_N: Opinion scores.
        curve: "linear", "logistic4" or "logistic5".

    Raises:
        ValueError: As `correlations`, or an unknown curve.
    """
    if curve not in CURVES:
        raise ValueError(f"curve {curve!r} is not one of {', '.join(CURVES)}")
    predicted_N, mos_N = checked_pairs(predicted_N, mos_N)
    reason = _undefined(predicted_N, mos_N)
    if reason is not None:
        return Fit(curve, np.nan, np.nan, {}, False, reason, len(mos_N))
    line = _line(predicted_N, mos_N, curve)
    if curve == "linear":
        return line
    free = _FREE_PARAMETERS[curve]
    if len(mos_N) <= free:
        return _in_place_of(line, f"{free} parameters need more than {len(mos_N)} pairs")
    found = _logistic(predicted_N, mos_N, curve)
    if not found.rmse < line.rmse:
        return _in_place_of(line, "no start ended below the line")
    return found


def apply_fit(fit: Fit, x_N: np.ndarray) -> np.ndarray:
    """The curve's values, in units of the opinion scores, at predictions of any shape; NaN where
    the fit is undefined.
    """
    x_N = np.asarray(x_N, dtype=float)
    b = fit.parameters
    if not b:
        return np.full(x_N.shape, np.nan)
    value_N = b["level"] + b["slope"] * (x_N - b["centre"])
    if "location" not in b:
        return value_N
    sigmoid_N = _sigmoid(b["steepness"] * (x_N - b["location"]), b["location"] < b["centre"])
    return value_N + b["height"] * (sigmoid_N - b["middle"])


def _sigmoid(x: np.ndarray, low: bool | np.ndarray) -> np.ndarray:
    """The logistic function, less 1 where `low`: near its upper end only the difference from 1 has
    digits.
    """
    return np.where(low, -special.expit(-x), special.expit(x))


def _standardised(values_N: np.ndarray) -> tuple[np.ndarray, float, float]:
    centre, scale = float(values_N.mean()), float(values_N.std())
    return (values_N - centre) / scale, centre, scale


def _line(predicted_N: np.ndarray, mos_N: np.ndarray, curve: str) -> Fit:
    z_N, centre, scale = _standardised(predicted_N)
    y_N, level, spread = _standardised(mos_N)
    r = float(np.mean(z_N * y_N))
    return Fit(
        curve=curve,
        plcc=min(abs(r), 1.0),
        rmse=spread * float(np.sqrt(np.mean((y_N - r * z_N) ** 2))),
        parameters={"centre": centre, "level": level, "slope": r * spread / scale},
        converged=True,
        note="",
        n=len(mos_N),
    )


def _in_place_of(line: Fit, why: str) -> Fit:
    return replace(line, converged=False, note=f"the line in place of {line.curve}: {why}")


def _columns(curve: str, at: np.ndarray, z_N: np.ndarray) -> np.ndarray:
    """What enters linearly beside the constant, centred: the sigmoid, and the line of five
    parameters; (N, 1 or 2).
    """
    sigmoid_N = _sigmoid(np.exp(at[1]) * (z_N - at[0]), at[0] < 0)
    columns = [sigmoid_N] if curve == "logistic4" else [sigmoid_N, z_N]
    return np.stack([column - column.mean() for column in columns], axis=1)


def _weights(columns_NC: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """Least squares on columns of one length: a sigmoid far from the scores is small, but there."""
    length_C = np.linalg.norm(columns_NC, axis=0)
    length_C = np.where(length_C > _SMALLEST_LENGTH, length_C, np.inf)
    return np.linalg.lstsq(columns_NC / length_C, y_N, rcond=1e-12)[0] / length_C


def _logistic(predicted_N: np.ndarray, mos_N: np.ndarray, curve: str) -> Fit:
    z_N, centre, scale = _standardised(predicted_N)
    y_N, level, spread = _standardised(mos_N)

    def residual_N(at: np.ndarray) -> np.ndarray:
        columns_NC = _columns(curve, at, z_N)
        return y_N - columns_NC @ _weights(columns_NC, y_N)

    def sse(at: np.ndarray) -> float:
        return float(_sse_of_starts(curve, at[None], z_N, y_N)[0])

    starts_S2 = np.array([(at, steep) for at in _START_LOCATIONS for steep in _START_LOG_STEEPNESS])
    best_first = np.argsort(_sse_of_starts(curve, starts_S2, z_N, y_N), kind="stable")
    bounds = np.array([_LOCATION, _LOG_STEEPNESS])
    # A simplex gets along the valleys in which steps, lines and exponentials lie; least squares
    # then give the last digits where there is a proper optimum.
    searches = [
        optimize.minimize(
            sse,
            starts_S2[s],
            method="Nelder-Mead",
            bounds=bounds,
            options={"xatol": 0.02, "fatol": 1e-9 * len(z_N), "maxfev": 500},
        )
        for s in best_first[:_REFINED_STARTS]
    ]
    search = min(searches, key=lambda end: end.fun)
    polished = optimize.least_squares(
        residual_N, search.x, bounds=bounds.T, jac="3-point", max_nfev=20
    )
    at = polished.x if 2 * polished.cost < search.fun else search.x
    weights = _weights(_columns(curve, at, z_N), y_N)
    value_N = _columns(curve, at, z_N) @ weights
    converged = bool(search.success or polished.success)
    notes = [] if converged else ["the search stopped before it converged"]
    if np.any(np.minimum(at - bounds[:, 0], bounds[:, 1] - at) < _NEAR_BOUND):
        notes.append("the best curve is a limit of its kind, its parameters mean nothing")
    return Fit(
        curve=curve,
        plcc=float(np.corrcoef(value_N, y_N)[0, 1]),
        rmse=spread * float(np.sqrt(np.mean((y_N - value_N) ** 2))),
        parameters={
            "centre": centre,
            "level": level,
            "slope": float(spread * weights[1] / scale) if curve == "logistic5" else 0.0,
            "location": float(centre + scale * at[0]),
            "steepness": float(np.exp(at[1]) / scale),
            "height": float(spread * weights[0]),
            "middle": float(np.mean(_sigmoid(np.exp(at[1]) * (z_N - at[0]), at[0] < 0))),
        },
        converged=converged,
        note="; ".join(notes),
        n=len(mos_N),
    )


def _sse_of_starts(
    curve: str, starts_S2: np.ndarray, z_N: np.ndarray, y_N: np.ndarray
) -> np.ndarray:
    """Sum of squares of every start's best curve, all at once."""
    location_S1, steepness_S1 = starts_S2[:, :1], np.exp(starts_S2[:, 1:])
    sigmoid_SN = _sigmoid(steepness_S1 * (z_N - location_S1), location_S1 < 0)
    sigmoid_SN = sigmoid_SN - sigmoid_SN.mean(axis=1, keepdims=True)
    before_S = np.sum(sigmoid_SN**2, axis=1)
    if curve == "logistic5":  # what the line explains is taken out of both sides
        sigmoid_SN = sigmoid_SN - np.outer(sigmoid_SN @ z_N / len(z_N), z_N)
        y_N = y_N - np.mean(y_N * z_N) * z_N
    left_S = np.sum(sigmoid_SN**2, axis=1)
    usable_S = (left_S > 1e-12 * before_S) & (before_S > _SMALLEST_LENGTH)
    explained_S = (sigmoid_SN @ y_N) ** 2 / np.where(usable_S, left_S, np.inf)
    return np.sum(y_N**2) - explained_S


@dataclass(frozen=True)
class GroupedCorrelations:
    """How much of an agreement lies within groups (generators, faces) and how much between them.

    Attributes:
        within: Agreement inside the groups. PLCC, RMSE and MAE after each group's mean has been
            taken from both sides, pooled over all videos; SRCC and KRCC per group, then their mean
            weighted by the groups' sizes, without the groups of `left_out`.
        between: Agreement of the groups' mean predictions with their mean opinion scores; n is the
            number of groups.
        groups: Group -> its own correlations, in the order of their first video.
        left_out: The groups without SRCC and KRCC (too small, or constant on one side).
        explained_mos: Share of the opinion scores' variance that is explained by the groups (eta
            squared), 0..1; NaN where there is no variance.
        explained_predicted: The same of the predictions.
    """

    within: Correlations
    between: Correlations
    groups: dict[Hashable, Correlations]
    left_out: tuple[Hashable, ...]
    explained_mos: float
    explained_predicted: float


def within_between(
    predicted_N: np.ndarray, mos_N: np.ndarray, group_N: Sequence[Hashable]
) -> GroupedCorrelations:
    """Agreement within and between groups; group_N names the group of every video.

    Raises:
        ValueError: As `correlations`, or another number of groups' names than of videos.
    """
    predicted_N, mos_N = checked_pairs(predicted_N, mos_N)
    index_N, names = group_indices(group_N, len(mos_N))
    n = len(mos_N)
    if n == 0:
        nothing = correlations(predicted_N, mos_N)
        return GroupedCorrelations(nothing, nothing, {}, (), np.nan, np.nan)
    size_G = np.bincount(index_N)
    predicted_G, mos_G = (
        np.bincount(index_N, weights=values_N) / size_G for values_N in (predicted_N, mos_N)
    )
    groups = {
        name: correlations(predicted_N[index_N == g], mos_N[index_N == g])
        for g, name in enumerate(names)
    }
    inside_N, inside_mos_N = predicted_N - predicted_G[index_N], mos_N - mos_G[index_N]
    # What remains of a constant group is rounding, which is no variation.
    inside_N = np.where(np.abs(inside_N) > CONSTANT_SPREAD * np.abs(predicted_N).max(), inside_N, 0)
    inside_mos_N = np.where(
        np.abs(inside_mos_N) > CONSTANT_SPREAD * np.abs(mos_N).max(), inside_mos_N, 0
    )
    pooled = correlations(inside_N, inside_mos_N)
    defined = {name: group for name, group in groups.items() if group.reason is None}
    left_out = tuple(name for name in names if name not in defined)
    reasons = [] if pooled.reason is None else [f"within groups {pooled.reason}"]
    if left_out:
        listed = ", ".join(f"{name} ({groups[name].reason})" for name in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        reasons.append(f"{len(left_out)} of {len(names)} groups have no SRCC: {listed}{more}")

    def mean(measure: str) -> float:
        if not defined:
            return float("nan")
        values = [getattr(group, measure) for group in defined.values()]
        return float(np.average(values, weights=[group.n for group in defined.values()]))

    return GroupedCorrelations(
        within=Correlations(
            srcc=mean("srcc"),
            plcc=pooled.plcc,
            krcc=mean("krcc"),
            rmse=pooled.rmse,
            mae=pooled.mae,
            n=n,
            reason="; ".join(reasons) or None,
        ),
        between=correlations(predicted_G, mos_G),
        groups=groups,
        left_out=left_out,
        explained_mos=_eta_squared(mos_N, mos_G, size_G),
        explained_predicted=_eta_squared(predicted_N, predicted_G, size_G),
    )


def group_indices(group_N: Sequence[Hashable], n: int) -> tuple[np.ndarray, list[Hashable]]:
    """Index of every video's group and the groups' names, in the order of their first video.

    Raises:
        ValueError: Not one name a video.
    """
    if len(group_N) != n:
        raise ValueError(f"{len(group_N)} groups' names for {n} videos; expected one a video")
    # NumPy's own scalars compare and print like Python's only after item().
    listed = group_N.tolist() if isinstance(group_N, np.ndarray) else list(group_N)
    order = {name: g for g, name in enumerate(dict.fromkeys(listed))}
    return np.array([order[name] for name in listed], dtype=np.intp), list(order)


def _eta_squared(values_N: np.ndarray, mean_G: np.ndarray, size_G: np.ndarray) -> float:
    if is_constant(values_N):
        return float("nan")
    between = float(np.sum(size_G * (mean_G - values_N.mean()) ** 2))
    return min(1.0, between / float(np.sum((values_N - values_N.mean()) ** 2)))
