#!/usr/bin/env bash
# Start a training on each node of a SLURM job: the launcher that scripts/slurm/submit.py gives to scripts/run.py.
#   bash scripts/slurm/on_nodes.sh accelerate launch --config_file configs/multi_node.yaml train.py ...
# On several nodes `accelerate launch` gets their number, the rank of each, and the address of the first one
# (MAIN_PROCESS_IP, if its name is not that of the fast network). SIGTERM lets train.py save: it, and no launcher, gets SIGUSR1.
set -euo pipefail

ranks=""
if [ "$SLURM_NNODES" -gt 1 ]; then
    mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    port=$((10000 + SLURM_JOB_ID % 20000)) # below the kernel's ephemeral ports
    ranks="--num_machines $SLURM_NNODES --num_processes $((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-1}))"
    ranks+=" --main_process_ip ${MAIN_PROCESS_IP:-${nodes[0]}} --main_process_port ${MAIN_PROCESS_PORT:-$port} --machine_rank"
fi
leaving=""
trap 'leaving=yes; scancel --signal=USR1 "$SLURM_JOB_ID" || true' TERM

# USR1 reaches every process of the step: train.py handles it, all others ignore it.
RANKS=$ranks srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} bash -c '
    trap "" USR1
    if [ -n "$RANKS" ]; then set -- "$1" "$2" $RANKS "$SLURM_NODEID" "${@:3}"; fi
    exec "$@"' node "$@" &
step=$!
status=0
wait "$step" || status=$?
if [ -n "$leaving" ]; then # the trap has ended `wait`
    again=0
    wait "$step" || again=$?
    if [ "$again" != 127 ]; then status=$again; fi
    if [ "$status" != 0 ]; then status=143; fi # a launcher has exit codes of its own
elif [ "$status" = 143 ]; then
    status=1 # a node has failed, and srun has ended the others by SIGTERM
fi
exit "$status"
