"""Table 3: saliency maps of our model and of any other method.

A folder of maps becomes a row:

    python evaluate/table3_saliency.py --run RUN --out DIR
    python evaluate/table3_saliency.py --run RUN --method "GBVS=maps/" --preset mit --out DIR
"""

import sys

from lmme3dhf.comparison.command import table_command


def main(argv: list[str] | None = None) -> int:
    """Makes the table; returns the exit status."""
    return table_command(3, __doc__.split("\n\n")[0], argv)


if __name__ == "__main__":
    sys.exit(main())
