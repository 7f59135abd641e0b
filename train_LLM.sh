#!/usr/bin/env bash
# Stage 1: instruction tuning on level words and distortion answers.
set -euo pipefail
cd "$(dirname "$0")"
exec python -m lmme3dhf.cli train text --config configs/paper.yaml --out output/stage1 "$@"
