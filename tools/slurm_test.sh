#!/usr/bin/env bash
# Test on a SLURM cluster, one task a GPU.
set -euo pipefail

usage='usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
environment: GPUS (8), GPUS_PER_NODE (8, at most GPUS), CPUS_PER_TASK (5), PORT (29500),
  SRUN_ARGS (further options of srun), PYTHON (python)'
if (( $# < 4 )); then
  echo "$usage" >&2
  exit 2
fi
partition=$1
job_name=$2
config=$3
checkpoint=$4
shift 4

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$(( gpus < 8 ? gpus : 8 ))}
read -r -a srun_args <<< "${SRUN_ARGS:-}"
export MASTER_PORT=${PORT:-29500}

exec srun \
  --partition "$partition" \
  --job-name "$job_name" \
  --gres "gpu:$gpus_per_node" \
  --ntasks "$gpus" \
  --ntasks-per-node "$gpus_per_node" \
  --cpus-per-task "${CPUS_PER_TASK:-5}" \
  --kill-on-bad-exit=1 \
  ${srun_args[@]+"${srun_args[@]}"} \
  "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/test.py" \
  "$config" "$checkpoint" --launcher slurm "$@"
