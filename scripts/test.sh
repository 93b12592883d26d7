#!/usr/bin/env bash
# Set up .venv and run the tests; arguments go to pytest (bash scripts/test.sh -k dedup; -m medium, -m slow for the longer ones).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
# A worker a core, each with one thread: small models are no faster with more.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
