#!/usr/bin/env bash
# Folds a run's adapter (and head, and decoder) into RUN/merged and verifies it: merge_lora.sh RUN
set -euo pipefail
exec python -m lmme3dhf.cli merge "$@"
