#!/usr/bin/env bash
# The whole chain on synthetic data and the tiny base, on two CPU cores; results in runs/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
exec .venv/bin/lmme3dhf demo --out runs/demo "$@"
