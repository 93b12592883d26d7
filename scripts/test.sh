#!/usr/bin/env bash
# Set up .venv and run the tests; arguments go to pytest (bash scripts/test.sh -k dedup; -m medium, -m slow for the longer ones).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
# Each worker with one thread, since small models are no faster with more; one worker more than cores, since a quarter of their time
# is waiting for processes, servers and disks.
workers=$(($(getconf _NPROCESSORS_ONLN) + 1))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Files in the order of tests/conftest.py, not by their number of tests.
exec .venv/bin/python -m pytest --numprocesses "$workers" --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
