"""Table 1: scores of our model and of any other method against the opinion scores.

A CSV or JSONL of scores becomes a row:

    python evaluate/table1_scores.py --run RUN --out DIR
    python evaluate/table1_scores.py --run RUN --out DIR --method NIQE=niqe.csv \\
        --lower_is_better NIQE
    python evaluate/table1_scores.py --data DATA --method "VSFA=vsfa.jsonl" --out DIR
"""

import sys

from lmme3dhf.comparison.command import table_command


def main(argv: list[str] | None = None) -> int:
    """Makes the table; returns the exit status."""
    return table_command(1, __doc__.split("\n\n")[0], argv)


if __name__ == "__main__":
    sys.exit(main())
