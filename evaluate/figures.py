"""The paper's figures from a run, as PNG, SVG and CSV, with an index of them.

    python evaluate/figures.py --run runs/demo --out runs/demo/figures \
        --method "GBVS=maps_folder/" --method "NIQE=niqe.csv"

Figures 2, 3, 5 and 6 describe the data set and go to OUT/dataset, the others to OUT;
OUT/figures.json lists them all, those that could not be drawn with the reason.
"""

import argparse
import sys
from pathlib import Path

from lmme3dhf.comparison.command import read_methods
from lmme3dhf.comparison.figures import dataset_records, draw, of_data_set, write_index
from lmme3dhf.comparison.sources import read_source
from lmme3dhf.describe import describe
from lmme3dhf.errors import UserError, format_error


def main(argv: list[str] | None = None) -> int:
    """Draws the figures and prints what was drawn and what was not; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run")
    add("--out", type=Path, required=True, help="folder for the figures and figures.json")
    add(
        "--method",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="foreign predictions: a folder of maps, or a CSV or JSONL of scores or answers",
    )
    add(
        "--lower_is_better",
        action="append",
        default=[],
        metavar="NAME",
        help="of a method: its scores are turned",
    )
    add("--only", nargs="+", metavar="FIGURE", help="names of the figures to draw, as in the index")
    args = parser.parse_args(argv)
    try:
        source = read_source(args.run)
        methods = read_methods(source, args.method, lower=args.lower_is_better)
        records = draw(args.run, args.out, methods, args.only)
        if of_data_set(args.only):
            described = describe(source.data, args.out / "dataset")
            records = [*dataset_records(described, "dataset"), *records]
        write_index(args.out, records)
    except (UserError, OSError) as error:
        print(f"figures: {format_error(error)}", file=sys.stderr)
        return 1
    for record in records:
        print(f"{record.name}: {record.png or record.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
