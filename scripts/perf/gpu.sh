#!/usr/bin/env bash
# scripts/perf/gpu.py where msgspec, sentencex and wcwidth are not installed: `pack` fetches them (small, for three versions of Python) into
# .gpu-packages, which then travels with the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}

if [ "${1:-}" = "pack" ]; then
    for version in 3.11 3.12 3.13; do
        "$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version "$version" \
            --target ".gpu-packages/$version" --upgrade msgspec wcwidth sentencex==1.0.32
    done
    du -sh .gpu-packages
    exit
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
export PYTHONPATH="$PWD/.gpu-packages/$version${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" scripts/perf/gpu.py "$@"
