#!/usr/bin/env bash
# Stage 2: regression of the opinion scores, from the merged stage 1.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
exec "$here/scripts/python.sh" -m lmme3dhf.cli.scripts train_MLP.sh --config "$here/configs/paper.yaml" --model output/stage1/merged --out output/stage2 "$@"
