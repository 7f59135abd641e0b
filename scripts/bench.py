"""How fast is this, against the plain path, in one run and with the same results?

Each row is one lever: what the released recipe does (stock class, batch 1, decode and tower for
every question and epoch, gradient checkpointing, all logits, generated words) against the package's
own code, on the same samples, by turns. Beside every ratio stands how far the two results are
apart: a ratio without it is no result. Costs are processor time of one thread, medians over the
repeats.

    python scripts/bench.py --device cpu --out bench.json
    python scripts/bench.py --rows R7,R9
    python scripts/bench.py --device cpu --out bench.json --growth --report docs/performance.md
    python scripts/bench.py --device cuda --geometry 7b --steps 300 --out bench_cuda.json

The exit status is 1 where a row misses its gate or the sides differ. `--report` writes the tables
and pictures of a page from the figures, between its marks; with `--from FILE` it takes the figures
of an earlier run. With `--device cuda` (or `--geometry 7b`) the stages themselves are timed on
random weights in bf16, beside the FLOPs that they need; nothing is downloaded. `--layers`, `--px`
and `--steps` cut that down for trying it on a CPU.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: one thread for whatever reads the environment.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from bench_parts import accelerator, growth, measure, report, rows
from bench_parts.material import GEOMETRIES

from lmme3dhf.files import write_json


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--geometry", choices=GEOMETRIES, default="tiny")
    made.add_argument("--rows", help="some of R1..R12, with commas; all of them by default")
    made.add_argument("--repeats", type=int, default=5, help="how often each side is timed")
    made.add_argument("--growth", action="store_true", help="growth and shares of time too")
    made.add_argument("--steps", type=int, default=300, help="steps of each stage (cuda, 7b)")
    made.add_argument("--layers", type=int, help="at most so many layers (cuda, 7b)")
    made.add_argument("--px", type=int, default=504, help="side of the frames (cuda, 7b)")
    made.add_argument("--clips", type=int, default=64, help="different clips (cuda, 7b)")
    made.add_argument("--parts", help="some of the parts of the accelerator's run, with commas")
    made.add_argument("--out", type=Path, help="write the figures as JSON")
    made.add_argument("--report", type=Path, help="write tables and pictures of this page")
    made.add_argument("--from", dest="known", type=Path, help="figures of an earlier run")
    made.add_argument("--work", type=Path, help="folder for models and clips; kept")
    return made


def main(argv: list[str] | None = None) -> int:
    """Runs what is asked for; returns the exit status."""
    arguments = parser().parse_args(argv)
    if arguments.repeats < 1 or arguments.steps < 1:
        parser().error("at least 1 repeat and 1 step")
    figures = {}
    if arguments.known:
        figures = json.loads(arguments.known.read_text(encoding="utf-8"))
    else:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with contextlib.ExitStack() as stack:
            work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            work.mkdir(parents=True, exist_ok=True)
            # What the package tells on its way is no figure.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            measured = cpu_figures
            if arguments.device == "cuda" or arguments.geometry == "7b":
                measured = accelerator_figures
            # Written as soon as something is known: a run that is cut off leaves what it has.
            for figures in measured(arguments, work):
                if arguments.out:
                    write_json(arguments.out, figures)
    if arguments.report:
        report.write(arguments.report, figures)
    print(report.text(figures))
    for failure in figures.get("failures", []):
        print(failure, file=sys.stderr)
    return 1 if figures.get("failures") else 0


def cpu_figures(arguments: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """Rows, and with `--growth` curves and shares, on one thread of a CPU; all that is known so
    far, after each row.
    """
    torch.set_num_threads(1)
    started = time.time()
    bench = rows.Bench(work, repeats=arguments.repeats)
    known = rows.all_rows(bench)
    wanted = _chosen(arguments.rows, known, "--rows")
    figures: dict[str, Any] = {
        "kind": "cpu",
        "environment": measure.environment(),
        "repeats": arguments.repeats,
        "rows": [],
        "failures": [],
    }

    def so_far() -> dict[str, Any]:
        figures["load_average_at_the_end"] = list(os.getloadavg())
        figures["peak_rss_mb"] = measure.peak_rss_mb()
        figures["wall_seconds"] = time.time() - started
        return figures

    for name in wanted:
        for row in known[name]():
            print(report.line(row), file=sys.stderr, flush=True)
            figures["rows"].append(row.to_dict())
            figures["failures"] += row.failures
            yield so_far()
    if arguments.growth:
        curves = [*growth.with_videos(bench), *growth.with_size(bench)]
        figures["growth"] = [curve.to_dict() for curve in curves]
        figures["shares"] = {
            f"{px} px": {
                "plain": growth.plain_shares(bench, px),
                "ours": growth.our_shares(bench, px),
            }
            for px in (bench.gate_px, bench.default_px)
        }
        yield so_far()


def accelerator_figures(arguments: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """The stages of a geometry on a device; see `bench_parts.accelerator`."""
    plan = accelerator.Plan(
        device=arguments.device,
        geometry=arguments.geometry,
        steps=arguments.steps,
        layers=arguments.layers,
        side_px=arguments.px,
        clips=arguments.clips,
    )
    parts = _chosen(arguments.parts, accelerator.PARTS, "--parts")
    yield from accelerator.run(plan, work, parts)


def _chosen(names: str | None, known: Collection[str], option: str) -> list[str]:
    wanted = names.split(",") if names else list(known)
    if unknown := [name for name in wanted if name not in known]:
        parser().error(f"{option} {', '.join(unknown)}: known are {', '.join(known)}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
