#!/usr/bin/env bash
# One stage on the GPUs of several nodes. From the project's folder, with the stage's command:
#   sbatch --nodes 2 configs/distributed/slurm_stage.sh ./train_LLM.sh --out output/stage1
# A job that comes to its time limit puts itself into the queue again, one that is pre-empted is put
# there by Slurm (--requeue); the same command then goes on from the newest whole checkpoint (how
# often one is written: the stage's trainer.save_steps).
# Run folder, data and stores must lie where all nodes see them.
#SBATCH --job-name=lmme3dhf
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=slurm-%j.log
set -euo pipefail

(($#)) || { echo "give the stage's command, as in: sbatch $0 ./train_LLM.sh --out RUN" >&2; exit 2; }
gpus=${SLURM_GPUS_ON_NODE:-${SLURM_GPUS_PER_NODE:-8}}
# No pipe into head: with pipefail its early end would now and then be taken for a failure.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${nodes[0]}

# Slurm sends USR1 two minutes before the limit, to this script alone. The shell hears it because
# srun runs in the background.
requeue() {
  echo "queued again before the time limit; the same command goes on" >&2
  scontrol requeue "$SLURM_JOB_ID"
  kill -TERM "$steps" 2>/dev/null || true
  wait "$steps" 2>/dev/null || true
  exit 0
}
trap requeue USR1

# Each node starts its own launcher; SLURM_NODEID is known there only.
export LAUNCH="accelerate launch --config_file configs/distributed/multi_node.yaml \
  --num_machines $SLURM_NNODES --num_processes $((SLURM_NNODES * gpus)) \
  --main_process_ip $first --main_process_port $((20000 + SLURM_JOB_ID % 20000))"
srun --kill-on-bad-exit=1 bash -c '$LAUNCH --machine_rank "$SLURM_NODEID" --no_python "$@"' stage "$@" &
steps=$!
wait "$steps"
