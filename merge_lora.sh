#!/usr/bin/env bash
# Makes one loadable folder of a run's adapter (and head, and decoder), RUN/merged, and verifies it:
# merge_lora.sh RUN [--form auto|merged|adapter]. Without a run it takes the newest in output/ that
# waits for it.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/scripts/python.sh" -m lmme3dhf.cli.scripts merge_lora.sh "$@"
