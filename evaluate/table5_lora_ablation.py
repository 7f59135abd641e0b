"""Table 5: LoRA and regression, from the ablations of a run.

The rows come from `lmme3dhf evaluate ablations`:

    python evaluate/table5_lora_ablation.py --run RUN --out DIR
"""

import sys

from lmme3dhf.comparison.command import table_command


def main(argv: list[str] | None = None) -> int:
    """Makes the table; returns the exit status."""
    return table_command(5, __doc__.split("\n\n")[0], argv)


if __name__ == "__main__":
    sys.exit(main())
