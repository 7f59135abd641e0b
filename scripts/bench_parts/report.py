"""The benchmark's figures as text, and as tables and pictures of a page.

A page holds sections between marks, `<!-- bench: NAME -->` and `<!-- bench: end -->`; what stands
between is replaced, all else is prose and stays.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_parts.accelerator import TARGETS, Target
from bench_parts.measure import Row
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from lmme3dhf.errors import UserError
from lmme3dhf.files import replace_file
from lmme3dhf.reports.plots import style

PARTS = (
    "decode",
    "patches and tokens",
    "waiting for the batch",
    "tower",
    "language model",
    "head and loss",
    "optimiser",
    "other",
)


class ReportError(UserError, ValueError):
    """A page that cannot be filled."""


def line(row: Row) -> str:
    """One row, for the terminal."""
    gate = f"gate {row.gate:g}, aim {row.aim:g}" if row.gate is not None else "beside"
    return (
        f"{row.id}: {row.ratio:.2f} times ({gate}); {_cost(row.plain.cost, row.unit)} against "
        f"{_cost(row.ours.cost, row.unit)}; difference {_difference(row.difference)} ({row.of})"
    )


def text(figures: dict[str, Any]) -> str:
    """All figures of a run as Markdown tables."""
    made = [section(figures) for section in SECTIONS.values() if section]
    return "\n\n".join(part for part in made if part)


def write(page: Path, figures: dict[str, Any]) -> None:
    """Replaces the sections of a page that the figures have something for, and its pictures.

    Args:
        page: Markdown with marks; pictures go to the folder of its name beside it.
        figures: Of a run, as its JSON holds them.

    Raises:
        ReportError: There is no such page, or a section is missing in it.
    """
    if not page.is_file():
        raise ReportError(f"{page}: no such page; give docs/performance.md")
    content = page.read_text(encoding="utf-8")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, section in SECTIONS.items():
        made = section(figures)
        if not made:
            continue
        content = with_section(page, content, name, made)
    if figures["kind"] == "cpu":
        draw_ratios(folder / "ratios.png", figures["rows"])
        if "growth" in figures:
            draw_growth(folder / "growth.png", figures["growth"])
            draw_shares(folder / "shares.png", figures["shares"])
    replace_file(page, content)


def with_section(page: Path, content: str, name: str, made: str) -> str:
    """The content of a page with one of its marked sections replaced.

    Raises:
        ReportError: The section is missing.
    """
    mark = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- bench: end -->)", re.DOTALL)
    if not mark.search(content):
        raise ReportError(
            f"{page}: no section `<!-- bench: {name} -->` to `<!-- bench: end -->`; put it where "
            "its table belongs"
        )
    return mark.sub(lambda found: f"{found[1]}\n{made}\n\n{found[2]}", content)


def environment_section(figures: dict[str, Any]) -> str:
    """Where and with what the figures were measured."""
    if figures["kind"] != "cpu":
        return ""
    about = figures["environment"]
    load = ", ".join(f"{value:.1f}" for value in about["load_average"])
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"One thread of a {about['cores']}-core {about['processor']}; load average at the start "
        f"{load}; {figures['repeats']} repeats; peak resident memory "
        f"{figures['peak_rss_mb']:,.0f} MB; {figures['wall_seconds'] / 60:.0f} minutes of wall "
        f"time.\n{versions}."
    )


def rows_section(figures: dict[str, Any]) -> str:
    """Ratios, gates, costs and differences."""
    if not figures.get("rows"):
        return ""
    head = (
        "| row | what | ratio | gate | aim | plain | ours | spread | difference | of |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for row in figures["rows"]:
        gated = row["gate"] is not None
        ratio = f"{row['ratio']:.2f}" if row["ratio"] < 100 else f"{row['ratio']:,.0f}"
        cells = [
            row["id"],
            row["what"],
            f"**{ratio}**" if gated else ratio,
            f"{row['gate']:g}" if gated else "",
            f"{row['aim']:g}" if gated else "",
            _cost(row["plain"]["cost"], row["unit"]),
            _cost(row["ours"]["cost"], row["unit"]),
            f"{row['plain']['spread']:.0%}, {row['ours']['spread']:.0%}",
            _difference(row["difference"]),
            row["of"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    failures = figures.get("failures", [])
    told = "\n".join(f"- {failure}" for failure in failures)
    verdict = f"Rows that miss their gate:\n\n{told}" if failures else "Every row passes its gate."
    return "\n".join(lines) + f"\n\n{verdict}"


def sides_section(figures: dict[str, Any]) -> str:
    """What exactly either side of each gated row does."""
    rows = [row for row in figures.get("rows", []) if row["gate"] is not None]
    if not rows:
        return ""
    lines = ["| row | plain | ours |", "|---|---|---|"]
    lines += [f"| {r['id']} | {r['plain']['does']} | {r['ours']['does']} |" for r in rows]
    return "\n".join(lines)


def growth_section(figures: dict[str, Any]) -> str:
    """Fitted exponents."""
    if not figures.get("growth"):
        return ""
    lines = ["| what | against | sizes | seconds | exponent |", "|---|---|---|---|---|"]
    for curve in figures["growth"]:
        sizes = ", ".join(f"{size:,.0f}" for size in curve["sizes"])
        seconds = ", ".join(f"{value:.2f}" for value in curve["seconds"])
        fitted = f"{curve['exponent']:.3f} ± {curve['error']:.3f}"
        lines.append(f"| {curve['what']} | {curve['against']} | {sizes} | {seconds} | {fitted} |")
    return "\n".join(lines)


def shares_section(figures: dict[str, Any]) -> str:
    """Seconds and share of each part of a step."""
    if not figures.get("shares"):
        return ""
    sides = [
        (f"{name}, {size}", seconds)
        for size, both in figures["shares"].items()
        for name, seconds in both.items()
    ]
    lines = [
        f"| part | {' | '.join(name for name, _ in sides)} |",
        "|---|" + "---|" * len(sides),
    ]
    for part in PARTS:
        cells = []
        for _, seconds in sides:
            share = seconds.get(part, 0.0) / sum(seconds.values())
            cells.append(f"{share:.1%}" if part in seconds else "")
        if any(cells):
            lines.append(f"| {part} | {' | '.join(cells)} |")
    totals = " | ".join(f"{sum(seconds.values()):.2f} s" for _, seconds in sides)
    lines.append(f"| a video | {totals} |")
    return "\n".join(lines)


def targets_section(figures: dict[str, Any]) -> str:
    """What was asked of one H200 at 7B geometry, with what was measured, or that nothing was."""
    measured = figures.get("goals", {}) if figures["kind"] == "accelerator" else None
    if measured is None:
        return ""
    return targets_table(measured, figures.get("environment", {}).get("accelerator"))


def targets_table(measured: dict[str, float], accelerator: str | None) -> str:
    """Targets with measured values.

    Args:
        measured: Key of a target -> its value.
        accelerator: Name of the GPU; without one nothing was measured.
    """
    head = f"measured on {accelerator}" if accelerator else "measured"
    lines = [
        f"| what | target | floor by FLOPs or bytes | {head} | command |",
        "|---|---|---|---|---|",
    ]
    for key, target in TARGETS.items():
        known = accelerator is not None and measured.get(key) is not None
        value = f"{measured[key]:,.1f} {target.unit}" if known else "not measured here"
        lines.append(
            f"| {target.what} | {_limit(target, target.most)} | {_limit(target, target.floor)} | "
            f"{value} | `--parts {target.part}` |"
        )
    return "\n".join(lines)


def _limit(target: Target, value: float | None) -> str:
    return "" if value is None else f"{value:g} {target.unit}"


def accelerator_section(figures: dict[str, Any]) -> str:
    """Everything that a run on an accelerator measured."""
    if figures["kind"] != "accelerator":
        return ""
    plan = figures["plan"]
    layers = f"{plan['layers']} layers" if plan["layers"] else "all layers"
    device = figures["environment"].get("accelerator", plan["device"])
    lines = [
        f"{device}: geometry {plan['geometry']}, {layers}, 8 frames of {plan['side_px']} px, "
        f"{plan['clips']} clips, {plan['steps']} steps a stage, bfloat16.",
        "",
        "| part | case | s a video | tokens/s | model TFLOP/s | of the peak | at 790 TFLOP/s | "
        "memory GB | waiting |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in figures["cases"]:
        if "unavailable" in case:
            lines.append(f"| {case['part']} | {case['case']}: {case['unavailable']} |||||||")
            continue
        cells = [case["part"], case["case"]]
        for key, form in (
            ("seconds_a_video", "{:.4f}"),
            ("tokens_per_s", "{:,.0f}"),
            ("model_tflop_per_s", "{:,.2f}"),
            ("mfu", "{:.1%}"),
            ("predicted_seconds_a_video", "{:.4f}"),
            ("peak_memory_gb", "{:.1f}"),
            ("data_wait", "{:.1%}"),
        ):
            cells.append("" if case.get(key) is None else form.format(case[key]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# Section of the page -> what makes it, or "" where the figures have nothing for it.
SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "environment": environment_section,
    "rows": rows_section,
    "sides": sides_section,
    "growth": growth_section,
    "shares": shares_section,
    "targets": targets_section,
    "accelerator": accelerator_section,
}


def draw_ratios(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Ratio of each gated row, with its gate and its aim."""
    gated = [row for row in rows if row["gate"] is not None]
    with style.picture(path, 6.4, 0.9 + 0.3 * len(gated), _NOTE) as figure:
        axis = figure.subplots()
        for place, row in enumerate(reversed(gated)):
            good = row["ratio"] >= row["gate"]
            colour = style.BLUE if good else style.VERMILION
            axis.plot([1, row["ratio"]], [place, place], color=colour, linewidth=5, alpha=0.35)
            axis.plot(row["ratio"], place, "o", color=colour, markersize=6)
            axis.plot(row["gate"], place, "|", color="black", markersize=13, markeredgewidth=1.6)
            axis.plot(row["aim"], place, "*", color=style.ORANGE, markersize=8)
            value = f"{row['ratio']:.1f}" if row["ratio"] < 100 else f"{row['ratio']:,.0f}"
            right = max(row["ratio"], row["aim"])
            axis.text(right * 1.12, place, value, va="center", fontsize=8.5)
        for label, marker, colour, size in (
            ("measured", "o", style.BLUE, 6),
            ("gate", "|", "black", 11),
            ("aim", "*", style.ORANGE, 8),
        ):
            axis.plot([], [], marker, color=colour, markersize=size, label=label)
        axis.set_yticks(range(len(gated)), [row["id"] for row in reversed(gated)])
        axis.set_xscale("log")
        axis.set_xlim(1, 2.2 * max(max(row["ratio"], row["aim"]) for row in gated))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("plain path / ours (times; logarithmic)")
        axis.grid(visible=False, axis="y")
        axis.legend(loc="lower right")


def draw_growth(path: Path, curves: Sequence[dict[str, Any]]) -> None:
    """Cost against size, one panel for each kind of size."""
    kinds = list(dict.fromkeys(curve["against"] for curve in curves))
    with style.picture(path, 3.5 * len(kinds), 4.0, _NOTE) as figure:
        for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            shown = [curve for curve in curves if curve["against"] == kind]
            for index, curve in enumerate(shown):
                name = curve["what"].split(",")[0].replace(" from the store", "")
                axis.plot(
                    curve["sizes"],
                    curve["seconds"],
                    **style.line(index),
                    markersize=4.5,
                    label=f"{name}: {curve['exponent']:.2f} ± {curve['error']:.2f}",
                )
            _linear(axis, shown)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel({"pixels": "pixels of a frame"}.get(kind, kind))
            axis.set_xticks(shown[0]["sizes"], [_short(size) for size in shown[0]["sizes"]])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
            axis.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), fontsize=7.5)
        figure.axes[0].set_ylabel("processor time, s")


def _linear(axis: Axes, curves: Sequence[dict[str, Any]]) -> None:
    """A line of exponent 1 below the curves."""
    sizes = np.array(curves[0]["sizes"])
    start = min(curve["seconds"][0] for curve in curves) * 0.8
    axis.plot(sizes, start * sizes / sizes[0], color="0.6", linewidth=1, label="linear: 1")


def _short(size: float) -> str:
    return f"{size:.0f}" if size < 1000 else f"{size / 1000:.0f}k"


def draw_shares(path: Path, shares: dict[str, dict[str, dict[str, float]]]) -> None:
    """Share of a step's time by part, the plain path above ours."""
    bars = [
        (f"{name}, {size}", seconds)
        for size, both in shares.items()
        for name, seconds in both.items()
    ]
    colours = (
        style.VERMILION,
        style.ORANGE,
        "#F0E442",
        style.PINK,
        style.BLUE,
        style.SKY,
        style.GREEN,
        "0.7",
    )
    with style.picture(path, 7.2, 0.55 * len(bars) + 1.5, _NOTE) as figure:
        axis = figure.subplots()
        for place, (_, seconds) in enumerate(reversed(bars)):
            total, left = sum(seconds.values()), 0.0
            for part, colour in zip(PARTS, colours, strict=True):
                share = seconds.get(part, 0.0) / total
                axis.barh(place, share, left=left, color=colour, height=0.62)
                if share > 0.06:
                    dark = colour in (style.BLUE, style.VERMILION, style.GREEN)
                    axis.text(
                        left + share / 2,
                        place,
                        f"{share:.0%}",
                        ha="center",
                        va="center",
                        size=7.5,
                        color="white" if dark else "black",
                    )
                left += share
            axis.text(1.01, place, f"{total:.2f} s", va="center", fontsize=8.5)
        axis.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
        axis.set_xlim(0, 1.1)
        axis.set_xticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
        axis.set_xlabel("share of a video's training step, three questions")
        axis.grid(visible=False, axis="y")
        present = [part for part in PARTS if any(part in seconds for _, seconds in bars)]
        for part in present:
            axis.bar(0, 0, color=colours[PARTS.index(part)], label=part)
        figure.legend(loc="outside upper center", ncols=4, fontsize=8)


_NOTE = "tiny geometry, random weights, one CPU thread"


def _cost(cost: float, unit: str) -> str:
    if unit != "s":
        return f"{cost:,.0f} {unit}"
    return f"{cost:.2f} s" if cost >= 0.1 else f"{1000 * cost:.2f} ms"


def _difference(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"
