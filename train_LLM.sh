#!/usr/bin/env bash
# Stage 1: instruction tuning on level words and distortion answers.
set -euo pipefail
exec python -m lmme3dhf.cli train text --config "$(dirname "$0")/configs/paper.yaml" --out output/stage1 "$@"
