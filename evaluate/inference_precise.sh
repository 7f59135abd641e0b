#!/usr/bin/env bash
# Scores of every clip of some lists, and their correlation with the opinion scores in the lists.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../scripts/python.sh" -m lmme3dhf.cli.scripts inference_precise.sh "$@"
