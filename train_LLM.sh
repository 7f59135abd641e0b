#!/usr/bin/env bash
# Stage 1: instruction tuning on level words and distortion answers.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
exec "$here/scripts/python.sh" -m lmme3dhf.cli.scripts train_LLM.sh --config "$here/configs/paper.yaml" --out output/stage1 "$@"
