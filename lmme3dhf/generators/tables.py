"""The tables of the comparison: means with intervals and ranks, tests, levels, distortions, and
what could not be scored. Each is a sheet of the page and rows of a CSV file.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmme3dhf.aspects import Scale
from lmme3dhf.assessment import FLAG, digits, on_scale, score_text
from lmme3dhf.escaping import visible
from lmme3dhf.generators.names import LONGEST_NAME
from lmme3dhf.metrics.group_means import STARS, GroupMean, Pair, stars
from lmme3dhf.reports.page import Sheet, Value
from lmme3dhf.scores import FAILED, OK, ScoreRow
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

UNDEFINED, NONE = "undefined", "–"
FAULTS = tuple(category for category in DISTORTIONS if category != NO_DISTORTION)
_LONGEST_GENERATOR = 60


@dataclass(frozen=True)
class Generator:
    """The videos of one generator.

    Attributes:
        name: As the pattern found it.
        rows: Rows with scores.
        failed: Rows without.
    """

    name: str
    rows: tuple[ScoreRow, ...]
    failed: tuple[ScoreRow, ...]

    @property
    def shown(self) -> str:
        """The name as it may stand on a page."""
        return visible(self.name, _LONGEST_GENERATOR)

    def scores(self, aspect: str) -> np.ndarray:
        """The scores of its videos, in the order of the table."""
        return np.array([row.ratings[aspect].score for row in self.rows], dtype=float)


@dataclass(frozen=True)
class Listed:
    """A table of the page with what its CSV file holds: all digits, and names as they are."""

    sheet: Sheet
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


Scales = Mapping[str, Scale]  # aspect -> scale, in the order of the table
Means = Mapping[str, Mapping[str, GroupMean]]  # aspect -> generator -> mean


def grouped(
    rows: Sequence[ScoreRow], generators: Sequence[str | None], scales: Scales
) -> list[Generator]:
    """The rows of each generator, by their mean in the first aspect from the best; without a scored
    video last, and else by name.
    """
    found: dict[str, dict[str, list[ScoreRow]]] = {}
    for row, name in zip(rows, generators, strict=True):
        if name is not None:
            found.setdefault(name, {OK: [], FAILED: []})[row.status].append(row)
    made = [Generator(name, tuple(of[OK]), tuple(of[FAILED])) for name, of in found.items()]
    first, scale = next(iter(scales.items()))

    def place(g: Generator) -> float:
        return -goodness(float(g.scores(first).mean()), scale) if g.rows else math.inf

    return sorted(made, key=lambda g: (place(g), g.name))


def goodness(score: Any, scale: Scale) -> Any:
    """A score, or an array of them, as what is higher for better."""
    return score if scale.higher_is_better else -score


def ranks(means: Mapping[str, GroupMean], scale: Scale) -> dict[str, int | None]:
    """Generator -> one more than the number of generators with a better mean; None without one."""
    good = {name: goodness(own.mean, scale) for name, own in means.items()}
    return {
        name: None if math.isnan(own) else 1 + sum(other > own for other in good.values())
        for name, own in good.items()
    }


def means_table(generators: Sequence[Generator], means: Means, scales: Scales) -> Listed:
    """Number of videos, mean, interval, median and rank of each generator. The sheet shows them on
    the scale; its order and the CSV file keep what the raw scores give.
    """
    rank_of = {aspect: ranks(means[aspect], scale) for aspect, scale in scales.items()}
    shown, rows = [], []
    for generator in generators:
        flagged = sum(bool(row.outside_training) for row in generator.rows)
        counts = [len(generator.rows), len(generator.failed), flagged]
        cells = [_name(generator), *map(_count, counts[:2]), _flags(flagged)]
        row: list[Any] = [generator.name, *counts]
        for aspect, scale in scales.items():
            mean, rank = means[aspect][generator.name], rank_of[aspect][generator.name]
            interval = f"{_number(mean.low, scale)} to {_number(mean.high, scale)}"
            cells += [
                Value(_number(mean.mean, scale, NONE), mean.mean),
                Value(UNDEFINED if math.isnan(mean.low) else interval, mean.low),
                Value(_number(mean.median, scale, NONE), mean.median),
                Value(NONE if rank is None else str(rank), rank),
            ]
            row += [mean.mean, mean.low, mean.high, mean.median, rank]
        shown.append(tuple(cells))
        rows.append(tuple(row))
    of_aspect = ("mean", "95 % interval", "median", "rank")
    return Listed(
        Sheet(
            name="means",
            title="Mean scores",
            over=(("", 4), *((aspect, len(of_aspect)) for aspect in scales)),
            header=("generator", "videos", "failed", "flagged", *of_aspect * len(scales)),
            rows=tuple(shown),
        ),
        (
            "generator",
            "videos",
            "failed",
            "flagged",
            *(
                f"{aspect}_{key}"
                for aspect in scales
                for key in ("mean", "low", "high", "median", "rank")
            ),
        ),
        tuple(rows),
    )


def differences_table(
    aspect: str, scale: Scale, generators: Sequence[Generator], pairs: Sequence[Pair]
) -> Listed:
    """Every generator against every other: difference of the means and corrected p."""
    found = {(pair.first, pair.second): (pair.difference, pair.p_holm) for pair in pairs}
    means = {g.name: on_scale(g.scores(aspect).mean(), scale) for g in generators if g.rows}
    found |= {(pair.second, pair.first): (-pair.difference, pair.p_holm) for pair in pairs}
    shown = []
    for row in generators:
        cells = [_name(row)]
        for column in generators:
            if row is column:
                cells.append(Value(NONE))
                continue
            difference, p = found[row.name, column.name]
            if math.isnan(p):
                cells.append(Value(UNDEFINED))
                continue
            # As the means above are shown.
            shown_as = means[row.name] - means[column.name]
            text = f"{shown_as:+.{digits(scale)}f} {stars(p)}".rstrip() + f"\n{p_text(p)}"
            # Coloured where the test finds something, and only there.
            better = goodness(difference, scale)
            heat = math.copysign({3: 1, 2: 0.7, 1: 0.4, 0: 0}[len(stars(p))], better)
            cells.append(Value(text, difference, heat))
        shown.append(tuple(cells))
    limits = ", ".join(f"{mark} p < {limit:g}" for limit, mark in reversed(STARS))
    return Listed(
        Sheet(
            name=f"differences-{aspect}",
            title=f"Differences in {aspect}",
            header=("row less column", *(generator.shown for generator in generators)),
            rows=tuple(shown),
            notes=(
                f"Difference of the means, and below it the corrected p. {limits}; blue where the "
                "row's mean is better, vermilion where it is worse.",
            ),
            sortable=False,
        ),
        ("first", "second", "difference", "share_of_wins", "p", "p_holm"),
        tuple((p.first, p.second, p.difference, p.wins, p.p, p.p_holm) for p in pairs),
    )


def p_text(p: float) -> str:
    """A p value with two digits; never "0"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def level_shares(generator: Generator, aspect: str, levels: Sequence[str]) -> list[float]:
    """Share of the videos at each level, of those that have one; NaN without any."""
    words = Counter(row.ratings[aspect].level for row in generator.rows)
    total = sum(words[level] for level in levels)
    return [words[level] / total if total else math.nan for level in levels]


def levels_table(generators: Sequence[Generator], scales: Scales) -> Listed:
    """Share of each generator's videos at each level word, from the lowest scores up."""
    words = {aspect: scale.levels for aspect, scale in scales.items() if scale.levels}
    shares = {
        g.name: [s for a, w in words.items() for s in level_shares(g, a, w)] for g in generators
    }
    header = [f"{aspect}_{level}" for aspect, levels in words.items() for level in levels]
    return Listed(
        Sheet(
            name="levels",
            title="Levels",
            over=(("", 2), *((f"{a}, % of the videos", len(w)) for a, w in words.items())),
            header=("generator", "videos", *(level for w in words.values() for level in w)),
            rows=tuple(
                (_name(g), _count(len(g.rows)), *(_share(s) for s in shares[g.name]))
                for g in generators
            ),
        ),
        ("generator", "videos", *header),
        tuple((g.name, len(g.rows), *shares[g.name]) for g in generators),
    )


def distortion_shares(generator: Generator) -> dict[str, float]:
    """Category -> share of the videos of which it is named, of those that were asked; NaN where
    none was.
    """
    named = [row.distortions for row in generator.rows if row.distortions is not None]
    return {
        category: sum(category in names for names in named) / len(named) if named else math.nan
        for category in DISTORTIONS
    }


def distortions_table(generators: Sequence[Generator]) -> Listed:
    """Share of each generator's videos with each category."""
    shares = {generator.name: distortion_shares(generator) for generator in generators}
    # Blue for what is wished for, vermilion for what is not.
    signs = {category: 1 if category == NO_DISTORTION else -1 for category in DISTORTIONS}
    return Listed(
        Sheet(
            name="distortions",
            title="Distortions, % of the videos that have them",
            header=("generator", "videos", *(short_category(c) for c in DISTORTIONS)),
            rows=tuple(
                (
                    _name(g),
                    _count(len(g.rows)),
                    *(_share(share, signs[c]) for c, share in shares[g.name].items()),
                )
                for g in generators
            ),
        ),
        ("generator", "videos", *DISTORTIONS),
        tuple((g.name, len(g.rows), *shares[g.name].values()) for g in generators),
    )


def short_category(category: str) -> str:
    """A category as it fits above a column: "Eye Distortions" is "eye"."""
    for ending in (" Distortions", " Issues"):
        category = category.removesuffix(ending)
    return category.lower()


def failures_table(rows: Sequence[ScoreRow], generators: Sequence[str | None]) -> Listed:
    """How many files failed for which reason; every one in the CSV."""
    failed = [
        (row, generator)
        for row, generator in zip(rows, generators, strict=True)
        if row.status == FAILED
    ]
    reasons = Counter(row.reason for row, _ in failed)
    return Listed(
        Sheet(
            name="failures",
            title="Files without scores",
            header=("reason", "files"),
            rows=tuple(
                (Value(visible(reason, LONGEST_NAME), reason), _count(count))
                for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            ),
        ),
        ("file", "generator", "reason", "message"),
        tuple((row.file, generator, row.reason, row.message) for row, generator in failed),
    )


def _name(generator: Generator) -> Value:
    return Value(generator.shown, generator.shown)


def _count(n: int) -> Value:
    return Value(str(n), n)


def _flags(n: int) -> Value:
    return Value(f"{n} {FLAG}" if n else "0", n)


def _number(score: float, scale: Scale, absent: str = UNDEFINED) -> str:
    return absent if math.isnan(score) else score_text(score, scale)


def _share(share: float, sign: int = 1) -> Value:
    if math.isnan(share):
        return Value(NONE)
    return Value(f"{100 * share:.0f}", share, sign * share)
