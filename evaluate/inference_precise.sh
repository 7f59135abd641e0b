#!/usr/bin/env bash
# Scores of every clip of some lists, and their correlation with the opinion scores in the lists.
set -euo pipefail
exec python -m lmme3dhf.cli predict --maps false --evaluate true "$@"
