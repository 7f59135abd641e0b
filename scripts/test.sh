#!/usr/bin/env bash
# Style and tests, a process a core and a file of tests at a time; arguments go to pytest (-m slow
# runs the long ones).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
