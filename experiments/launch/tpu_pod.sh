#!/usr/bin/env bash
# Train on every worker of a Cloud TPU pod slice with one command; run it again to resume after a preemption.
#
#   TPU=my-slice ZONE=us-west4-a experiments/launch/tpu_pod.sh \
#     --config=configs/simclr_multitask.py --workdir=gs://my-bucket/simclr --config.train.batch_size=4096
#
# Needs gcloud, logged in, and a bucket that the slice can write to. REPOSITORY and BRANCH choose what is cloned.
set -euo pipefail
: "${TPU:?name of the TPU slice}" "${ZONE:?its zone}"
REPOSITORY=${REPOSITORY:-$(git remote get-url origin)}
BRANCH=${BRANCH:-main}

flags=$(printf '%q ' "$@")
read -r -d '' remote <<REMOTE || true
set -e
[ -d dnc-run ] || git clone --quiet --branch $(printf '%q' "$BRANCH") $(printf '%q' "$REPOSITORY") dnc-run
cd dnc-run
make --silent install
.venv/bin/python -m pip install --quiet '.[train,tpu]'
.venv/bin/python -m dnc train $flags
REMOTE
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "$remote"
