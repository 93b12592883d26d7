#!/usr/bin/env bash
# Fine-tune a model on the pairs of datagen.py and decontamination.py with the published recipe. CONFIG, one of
# configs/*.yaml, is the hardware; arguments are passed to train.py after the recipe's and override them:
#   DATA_DIR=outputs/gemma-3-27b-it/nllb-200-3.3B bash scripts/train.sh
#   CONFIG=configs/one_gpu.yaml bash scripts/train.sh --use_peft --lora_r 32 --lora_alpha 64 --learning_rate 1e-4
#   MODEL=facebook/nllb-200-distilled-600M CONFIG=configs/four_gpus.yaml bash scripts/train.sh
#   MODEL=models/gemma-3-270m CONFIG=configs/cpu.yaml bash scripts/train.sh --target_languages Basque --max_steps 20
# If a run is interrupted, re-run the same command: it resumes from the last checkpoint. A step has 4 x 4 rows of 512
# tokens per GPU; four GPUs with --gradient_accumulation_steps 1 have the batch size of one GPU with 4.
#
# On several machines run the same command on each, with CONFIG=configs/multi_node.yaml NUM_MACHINES=2 NUM_PROCESSES=8
# (all GPUs) MACHINE_RANK=0 (1 on the second) MAIN_PROCESS_IP=... MAIN_PROCESS_PORT=29500, as scripts/train.slurm does.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

CONFIG=${CONFIG:-$root/configs/zero3.yaml}
MODEL=${MODEL:-meta-llama/Meta-Llama-3-8B}
DATA_DIR=${DATA_DIR:-outputs/gemma-3-27b-it/nllb-200-3.3B}
OUTPUT_DIR=${OUTPUT_DIR:-outputs/$(basename "$MODEL")-topxgen}

if [ ! -f "$CONFIG" ]; then
    echo "train.sh: error: CONFIG=$CONFIG does not exist; choose one of $(cd "$root" && echo configs/*.yaml)" >&2
    exit 2
fi
accelerate=accelerate
command -v accelerate >/dev/null || accelerate=$root/.venv/bin/accelerate
if ! command -v "$accelerate" >/dev/null; then
    echo "train.sh: error: accelerate is not on the PATH; activate the environment with requirements.txt" >&2
    exit 2
fi
# A single process gets one GPU; accelerate would let it see all of them.
if grep -q "^distributed_type: *'NO'" "$CONFIG"; then export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}; fi
# accelerate passes `use_cpu` on only to a single process.
if grep -q '^use_cpu: *true' "$CONFIG"; then export ACCELERATE_USE_CPU=true; fi

command=("$accelerate" launch --config_file "$CONFIG"
    ${NUM_PROCESSES:+--num_processes "$NUM_PROCESSES"}
    ${NUM_MACHINES:+--num_machines "$NUM_MACHINES"}
    ${MACHINE_RANK:+--machine_rank "$MACHINE_RANK"}
    ${MAIN_PROCESS_IP:+--main_process_ip "$MAIN_PROCESS_IP"}
    ${MAIN_PROCESS_PORT:+--main_process_port "$MAIN_PROCESS_PORT"}
    "$root/train.py"
    --model_name_or_path "$MODEL"
    --dataset_name_or_path topxgen --data_dir "$DATA_DIR" --src English
    --target_languages Basque Hausa Igbo Kinyarwanda Nepali Somali Sundanese Swahili Urdu Xhosa
    --reverse --targets_only --max_length 512 --test_size_ratio 1000
    --max_steps 5000 --per_device_train_batch_size 4 --gradient_accumulation_steps 4
    --learning_rate 1e-5 --lr_scheduler_type cosine --num_warmup_steps 500 --weight_decay 0.01
    --bf16 --gradient_checkpointing --eval_steps 500 --save_steps 500
    --output_dir "$OUTPUT_DIR"
    "$@")
{ printf '+'; printf ' %q' "${command[@]}"; echo; } >&2
exec "${command[@]}"
