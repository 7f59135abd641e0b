"""Makes one loadable folder of a score run's adapter and head, RUN/merged, and verifies it:
merge_mlp.py RUN [--form auto|merged|adapter]. Without a run it takes the newest in output/.

The head is trained, saved and merged together with the adapter, so this is the same command as
merge_lora.sh; after that one it only checks.
"""

import sys

from lmme3dhf.cli.scripts import started

if __name__ == "__main__":
    sys.exit(started("merge_mlp.py", sys.argv[1:]))
