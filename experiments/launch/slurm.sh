#!/usr/bin/env bash
# Train on a GPU cluster under SLURM: one process per GPU, requeued until the run is complete.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 --time=04:00:00 experiments/launch/slurm.sh \
#     --config=configs/simclr_multitask.py --workdir=/scratch/$USER/simclr
#
# SLURM sends SIGTERM two minutes before the time limit; the run saves its state and the job is requeued.
# Needs a virtual environment with dnc and jax[cuda12]: VENV, by default .venv.
#SBATCH --job-name=dnc
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
set -uo pipefail

status=0
srun --kill-on-bad-exit=1 "${VENV:-.venv}/bin/python" -m dnc train --multihost "$@" || status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
