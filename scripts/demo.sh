#!/usr/bin/env bash
# The main job on parts that need neither GPU nor network, in outputs/demo: Basque paragraphs by Gemma 3 270M,
# back-translated by Apertium, held against the test set (articles 21 to 30 of the UDHR); then Gemma learns from the
# pairs and from the rest of the UDHR, a few dozen steps each, and translates the test set before and after, both ways. Run
# it again and it goes on where it stopped, or shows what there is.
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

for data in topxgen udhr; do
    echo
    HF_HUB_OFFLINE=1 .venv/bin/python train.py \
        --model_name_or_path models/gemma-3-270m --use_peft --lora_r 32 --lora_alpha 64 --bf16 \
        --dataset_name_or_path "$data" --data_dir outputs/demo/apertium --target_languages Basque --reverse --targets_only \
        --max_length 256 --test_size_ratio 0.15 --max_steps 24 --num_warmup_steps 4 --learning_rate 5e-4 \
        --per_device_train_batch_size 1 --gradient_accumulation_steps 1 \
        --eval_steps 12 --save_steps 12 --output_dir "outputs/demo/train-$data"
done

for direction in "English Basque" "Basque English"; do
    echo
    HF_HUB_OFFLINE=1 .venv/bin/python main.py \
        --model_name_or_path models/gemma-3-270m outputs/demo/train-udhr --lora_rank 32 \
        --inference_api hf --request_batch_size 32 --dataset_name_or_path udhr \
        --src "${direction% *}" --tgt "${direction#* }" --k 0 --template_key 14 --max_new_tokens 60 \
        --output_dir outputs/demo/translations
done
echo
HF_HUB_OFFLINE=1 .venv/bin/python -m comptra.evaluate outputs/demo/translations --baseline outputs/demo/translations/gemma-3-270m
