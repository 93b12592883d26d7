#!/usr/bin/env bash
# The main job on parts that need neither GPU nor network, in outputs/demo: Basque paragraphs by Gemma 3 270M,
# back-translated by Apertium, held against the test set (articles 21 to 30 of the UDHR). Run it again and it goes on
# where it stopped, or shows what there is.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
.venv/bin/python scripts/prepare_gemma.py models/gemma-3-270m

api=vllm
.venv/bin/python -c 'import vllm' >/dev/null 2>&1 || api=hf
HF_HUB_OFFLINE=1 .venv/bin/python datagen.py \
    --model_name_or_path models/gemma-3-270m --inference_api "$api" \
    --languages Basque --seed_topics_path topics/wikipedia_vital_topics.txt \
    --example_paragraphs udhr --number_of_icl_demonstrations 1 \
    --example_sentences udhr --number_of_icl_phrases 6 \
    --number_of_instructions 60 --max_new_tokens 160 --max_model_len 2048 --temperature 0.7 \
    --back_translator apertium --output_dir outputs/demo

echo
.venv/bin/python decontamination.py --input_dir outputs/demo/apertium --languages Basque --benchmarks udhr
