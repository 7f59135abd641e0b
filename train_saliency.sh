#!/usr/bin/env bash
# Stage 3: the saliency decoder from scratch, on features of the merged stage 2.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
exec "$here/scripts/python.sh" -m lmme3dhf.cli.scripts train_saliency.sh --config "$here/configs/paper.yaml" --model output/stage2/merged --out output/stage3 "$@"
