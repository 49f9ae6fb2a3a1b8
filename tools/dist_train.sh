#!/usr/bin/env bash
# Train with several processes, one a GPU (without a GPU: one a core, over gloo).
set -euo pipefail

usage='usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
environment: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500),
  RDZV_ENDPOINT (HOST:PORT, instead of the last three; MASTER_ADDR:PORT with restarts),
  RDZV_ID (mmvlr), MAX_RESTARTS (0), PYTHON (python)'
if (( $# < 2 )) || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
  echo "$usage" >&2
  exit 2
fi
config=$1
gpus=$2
shift 2

rendezvous=(
  --node-rank "${NODE_RANK:-0}"
  --master-addr "${MASTER_ADDR:-127.0.0.1}"
  --master-port "${PORT:-29500}"
)
if [[ -n ${RDZV_ENDPOINT:-} || ${MAX_RESTARTS:-0} != 0 ]]; then
  endpoint=${RDZV_ENDPOINT:-${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}}
  rendezvous=(--rdzv-backend c10d --rdzv-endpoint "$endpoint" --rdzv-id "${RDZV_ID:-mmvlr}")
  # A store that outlives a restart tells the new processes the addresses of those that are gone.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
fi

exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "${NNODES:-1}" \
  "${rendezvous[@]}" \
  --nproc-per-node "$gpus" \
  ${MAX_RESTARTS:+--max-restarts "$MAX_RESTARTS"} \
  "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "$@"
