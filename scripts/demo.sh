#!/usr/bin/env bash
# The whole pipeline, end to end, on parts that need neither a GPU nor a network connection:
#
#   topics -> Basque paragraphs -> sentences -> English back-translations -> scores -> decontamination
#          -> fine-tuning -> translations of a test set, before and after -> scores
#
#   bash scripts/demo.sh
#
# Everything is written to outputs/demo. Run it again to resume an interrupted demo or to see its results again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=outputs/demo

step() { printf '\n=== %s\n' "$*"; }

# Everything below runs in .venv, from local files alone.
step "1/7  Set up: Python packages, Apertium, and Gemma 3 270M (base)"
bash scripts/setup.sh
.venv/bin/python scripts/prepare_gemma.py models/gemma-3-270m
export HF_HUB_OFFLINE=1
model=models/gemma-3-270m
# vLLM's CPU build does not install everywhere; transformers does the same, more slowly.
api=vllm
.venv/bin/python -c 'import vllm' >/dev/null 2>&1 || api=hf

# Gemma continues an article about a random topic, after one example paragraph in another language and six Basque
# sentences. Each text is filtered and de-duplicated, split into sentences, and translated back into English by Apertium.
step "2/7  Generate: Gemma writes 60 Basque paragraphs, Apertium translates their sentences into English"
.venv/bin/python datagen.py \
    --model_name_or_path "$model" --inference_api "$api" \
    --languages Basque --seed_topics_path topics/wikipedia_vital_topics.txt \
    --example_paragraphs udhr --number_of_icl_demonstrations 1 \
    --example_sentences udhr --number_of_icl_phrases 6 \
    --number_of_instructions 60 --max_new_tokens 160 --max_model_len 2048 --temperature 0.7 \
    --back_translator apertium --output_dir "$out"

# Pairs that share ten words in a row with the test set (articles 21 to 30 of the UDHR) are removed.
step "3/7  Decontaminate: drop pairs that overlap the test set"
.venv/bin/python decontamination.py --input_dir "$out/apertium" --languages Basque --benchmarks udhr

# Twice 24 steps of LoRA: on the generated pairs, and on the other articles of the UDHR, which are real translations.
number=4
for data in topxgen udhr; do
    step "$number/7  Train: 24 steps of LoRA on $([ $data = udhr ] && echo 'real translations (UDHR, articles 1 to 20)' || echo 'the generated pairs')"
    .venv/bin/python train.py \
        --model_name_or_path "$model" --use_peft --lora_r 32 --lora_alpha 64 --bf16 \
        --dataset_name_or_path "$data" --data_dir "$out/apertium" --target_languages Basque --reverse --targets_only \
        --max_length 256 --test_size_ratio 0.15 --max_steps 24 --num_warmup_steps 4 --learning_rate 5e-4 \
        --per_device_train_batch_size 1 --gradient_accumulation_steps 1 \
        --eval_steps 12 --save_steps 12 --output_dir "$out/train-$data"
    number=$((number + 1))
done

# The base model and the one trained on real translations, zero-shot in both directions.
step "6/7  Translate: the test set in both directions, before and after training"
for direction in "English Basque" "Basque English"; do
    .venv/bin/python main.py \
        --model_name_or_path "$model" "$out/train-udhr" --lora_rank 32 \
        --inference_api hf --request_batch_size 32 --dataset_name_or_path udhr \
        --src "${direction% *}" --tgt "${direction#* }" --k 0 --template_key 14 --max_new_tokens 60 \
        --output_dir "$out/translations"
done

step "7/7  Evaluate: BLEU, chrF++ and the share of translations in the right language"
.venv/bin/python -m comptra.evaluate "$out/translations" --baseline "$out/translations/$(basename "$model")"
