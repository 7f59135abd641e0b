#!/usr/bin/env bash
# Cross-validation with one GPU for each fold. From the project's folder, with the settings of the run:
#   sbatch --array 0-4 configs/distributed/slurm_folds.sh --config configs/paper.yaml --out output/cv
# Numbers of the folds as in `lmme3dhf evaluate crossval --only`. A fold that comes to its time limit
# puts itself into the queue again, one that is pre-empted is put there by Slurm (--requeue); it goes
# on from its newest whole checkpoint. The last one to finish writes the tables over all.
#SBATCH --job-name=lmme3dhf-fold
#SBATCH --array=0-4
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail

requeue() {
  echo "queued again before the time limit; the same command goes on" >&2
  scontrol requeue "$SLURM_JOB_ID"
  kill -TERM "$fold" 2>/dev/null || true
  wait "$fold" 2>/dev/null || true
  exit 0
}
trap requeue USR1

srun python -m lmme3dhf.cli evaluate crossval --only "$SLURM_ARRAY_TASK_ID" "$@" &
fold=$!
wait "$fold"
