"""Table 2: distortion answers of our model and of any other method.

A CSV or JSONL of answers becomes a row:

    python evaluate/table2_answers.py --run RUN --out DIR
    python evaluate/table2_answers.py --run RUN --method "Qwen2-VL=replies.csv" --out DIR
    python evaluate/table2_answers.py --run RUN --accuracy exact --out DIR
"""

import sys

from lmme3dhf.comparison.command import table_command


def main(argv: list[str] | None = None) -> int:
    """Makes the table; returns the exit status."""
    return table_command(2, __doc__.split("\n\n")[0], argv)


if __name__ == "__main__":
    sys.exit(main())
