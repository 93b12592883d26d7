#!/usr/bin/env bash
# Set up .venv and run the tests; arguments go to pytest (bash scripts/test.sh -k dedup; -m slow for the long ones).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest "$@"
