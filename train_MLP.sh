#!/usr/bin/env bash
# Stage 2: regression of the opinion scores, from the merged stage 1.
set -euo pipefail
exec python -m lmme3dhf.cli train score --config "$(dirname "$0")/configs/paper.yaml" --model output/stage1/merged --out output/stage2 "$@"
