#!/usr/bin/env bash
# Score the translations of main.py. OUTPUT_DIR holds its runs, BASELINE (may be empty) is the run that the others are compared
# with; further arguments are passed on to comptra/evaluate.py:
#   OUTPUT_DIR=outputs/flores bash scripts/eval.sh
#   OUTPUT_DIR=outputs/flores BASELINE=outputs/flores/Meta-Llama-3-8B bash scripts/eval.sh --csv scores.csv --json scores.json
#   OUTPUT_DIR=original/outputs bash scripts/eval.sh --dataset_name_or_path flores --benchmark_dir ~/benchmarks
# With --data_dir, a flag of the original's evaluation, OUTPUT_DIR is not read:
#   bash scripts/eval.sh --data_dir GENERATIONS --dataset_name_or_path flores --strategies TEaR --languages Basque Hausa --metric bleu
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

OUTPUT_DIR=${OUTPUT_DIR:-outputs}
BASELINE=${BASELINE:-}

python=$root/.venv/bin/python
if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || [ ! -x "$python" ]; then python=python3; fi
# Relative paths are relative to the current directory.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

dirs=("$OUTPUT_DIR")
for word in "$@"; do
    case $word in --data_dir | --data_dir=*) dirs=() ;; esac
done
command=("$python" -m comptra.evaluate ${BASELINE:+--baseline "$BASELINE"} ${dirs[@]+"${dirs[@]}"} "$@")
{ printf '+'; printf ' %q' "${command[@]}"; echo; } >&2
exec "${command[@]}"
