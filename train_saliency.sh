#!/usr/bin/env bash
# Stage 3: the saliency decoder from scratch, on features of the merged stage 2.
set -euo pipefail
exec python -m lmme3dhf.cli train saliency --config "$(dirname "$0")/configs/paper.yaml" --model output/stage2/merged --out output/stage3 "$@"
