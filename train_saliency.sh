#!/usr/bin/env bash
# Stage 3: the saliency decoder from scratch, on features of the merged stage 2.
set -euo pipefail
cd "$(dirname "$0")"
exec python -m lmme3dhf.cli train saliency --config configs/paper.yaml --model output/stage2/merged --out output/stage3 "$@"
