"""python -m lmme3dhf.cli VERB: the same as the command lmme3dhf VERB."""

import sys

from lmme3dhf.cli import main

if __name__ == "__main__":
    sys.exit(main())
