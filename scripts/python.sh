#!/usr/bin/env bash
# Runs a Python that has the project: the one that is active, or else that of the checkout's .venv.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
for python in python python3 "$root/.venv/bin/python"; do
    if "$python" -c "import lmme3dhf.cli" 2> /dev/null; then
        exec "$python" "$@"
    fi
done
echo "lmme3dhf is not installed for this Python: conda activate lmme3dhf, or pip install -e '$root'" >&2
exit 1
