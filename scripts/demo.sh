#!/usr/bin/env bash
# The whole pipeline, end to end, on parts that need neither a GPU nor a network connection:
#
#   topics -> Basque paragraphs -> sentences -> English back-translations -> scores -> decontamination
#          -> fine-tuning -> translations of a test set, before and after -> scores -> a page to look at all of it
#
#   bash scripts/demo.sh
#
# The stages and their flags are in configs/runs/demo.yaml; everything is written to outputs/demo. Run it again to resume an
# interrupted demo or to see its results again.
set -euo pipefail
cd "$(dirname "$0")/.."

printf '\n=== %s\n' "Set up: Python packages, Apertium, and Gemma 3 270M (base)"
bash scripts/setup.sh
.venv/bin/python scripts/prepare_gemma.py models/gemma-3-270m
export HF_HUB_OFFLINE=1
# vLLM's CPU build does not install everywhere; transformers does the same, more slowly.
api=vllm
.venv/bin/python -c 'import vllm' >/dev/null 2>&1 || api=hf

.venv/bin/python scripts/run.py configs/runs/demo.yaml --set datagen.inference_api=$api

printf '\n=== %s\n' "The page of the run: open it in a browser"
.venv/bin/python scripts/report.py configs/runs/demo.yaml -o outputs/demo/report.html
