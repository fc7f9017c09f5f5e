#!/bin/bash
# An experiment on several nodes of a SLURM cluster; it goes on after every time limit.
#
#   sbatch deploy/slurm.sh tune_configs/fig6_cifar_resnets.yaml --store /shared/runs
#
# Not run on a real SLURM cluster, nor `ray symmetric-run` at all: tests check the script by `bash -n`
# and its way from the warning signal to the requeue with stand-ins for srun and scontrol. Change the
# lines of your site: account, partition, time, cores, GPUs.
#
# The store (and data) must lie on a file system that all nodes share, or the store is an MLflow
# server (--store http://HOST:5000 --storage /shared/inflight). Run it in the project's folder, on a
# shared file system too, with its .venv made by `make setup`.
#
#SBATCH --job-name=elth
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=elth-%j.log
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch deploy/slurm.sh CONFIG [KEY=VALUE]... [--store DIR_OR_URI]" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:?is set by sbatch}"
bin=${ELTH_BIN:-$PWD/.venv/bin}
export PATH="$bin:$PATH"

# Ray asks each request for this token; the file is readable by you alone. Without it, anyone on the
# cluster's network could run commands as you.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
    (umask 077 && mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")" && ray get-auth-token --generate >/dev/null)
fi
export RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# The first node runs this script, the head of Ray and elth itself.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))
pid_file=$(mktemp "${TMPDIR:-/tmp}/elth-pid.XXXXXX")

# Two minutes before the limit: trials write a checkpoint, elth ends with 130, the job is requeued.
warned=
# shellcheck disable=SC2317  # called by the trap
warn() {
    warned=yes
    local pid
    pid=$(cat "$pid_file")
    echo "slurm: the time limit is near; elth ($pid) is told"
    if [ -n "$pid" ]; then kill -USR1 "$pid" || true; fi
}
trap warn USR1

# shellcheck disable=SC2016  # $1 and $@ are those of the inner shell
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=0 \
    ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --disable-usage-stats --include-dashboard=false \
    -- bash -c 'echo $$ >"$1"; shift; exec elth run "$@" --address auto' elth "$pid_file" "$@" &
run=$!

# A signal ends `wait` before the command has ended, so it is asked again.
status=0
while true; do
    status=0
    wait "$run" || status=$?
    kill -0 "$run" 2>/dev/null || break
done
rm -f "$pid_file"

if [ -n "$warned" ] && [ "$status" -ne 0 ]; then
    echo "slurm: requeued; it goes on from what is tracked"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
