"""Hours and cost of the stages in scripts/doctor.py."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.doctor_runs import H100, doctor, findings_here, llama_8b, nvidia_smi, of, write_run
from tests.support.runs import in_process
from topxgen.doctor.rates import RATES


def test_hours_are_those_of_the_documentation(tmp_path):
    """docs/hardware.md: Llama-3-8B, LoRA, 41 M tokens on one H100: 1.4 h."""
    train = "use_peft: true\n  gradient_checkpointing: true\n  bf16: true"
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train=train)
    result = doctor(run, "--json", PATH=nvidia_smi(tmp_path / "bin", [H100.format(0, 0, 4)]))
    rows = {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}
    assert rows["train"]["hours"] == pytest.approx([1.386] * 2, rel=0.001)
    run = write_run(tmp_path, tmp_path / "llama", train=f"{train}\n  packing: none")
    rows_of_one_pair = estimates_here(run, "H100")["train"]
    assert rows_of_one_pair["hours"] == pytest.approx([1.386 * 60 / 512, 1.386], rel=0.001), (
        "two sentences, or full rows"
    )
    # 20,000 to 120,000 tokens: 79 and 469 steps, each reads 16.06 GB at a third of 3.35 TB/s; 250 tokens of a prompt for 600 new ones.
    seconds = [
        steps * 16.06e9 * 3 / 3.35e12 + 2 * 8.03e9 * new * 250 / 600 / (0.4 * 989e12)
        for steps, new in ((79, 20_000), (469, 120_000))
    ]
    assert rows["datagen: generate"]["hours"] == pytest.approx([n / 3600 for n in seconds], rel=0.001)


@pytest.mark.parametrize(
    ("launcher", "slurm", "processes", "says"),
    [
        ("accelerate, launch, --config_file, configs/zero3.yaml", "{gres: gpu:1}", 4, "4 processes, 2 GPUs visible here"),
        # accelerate starts one for each of the two GPUs
        ("accelerate, launch, --config_file, configs/multi_node.yaml", "{train: {gres: gpu:8}}", 2, "2 GPUs, ZeRO-3: 64.2 GB on each"),
        ("accelerate, launch, --config_file, configs/multi_node.yaml, --num_processes, '8'", "{}", 8, "8 processes, 2 GPUs visible here"),
        ("accelerate, launch, --config_file, configs/multi_node.yaml", "{train: {nodes: 3}}", 6, "6 GPUs of 3 nodes, ZeRO-3: 21.4 GB on each"),
        ("accelerate, launch, --config_file, configs/multi_node.yaml", "{gres: gpu:1, train: {nodes: 2, gres: 'gpu:a100:1,gpu:h100:3'}}", 8, "8 GPUs of 2 nodes, ZeRO-3: 16.1 GB"),
        ("accelerate, launch, --config_file, configs/multi_node.yaml, --num_processes, '8'", "{train: {nodes: 2}}", 8, "4 GPUs of 2 nodes"),
        ("torchrun, --nproc_per_node, '4'", "{train: {nodes: 2, gres: gpu:4}}", 8, "8 GPUs of 2 nodes, each with all of it"),
    ],
)  # fmt: skip
def test_training_counts_the_rows_of_all_processes(tmp_path, launcher, slurm, processes, says):
    """docs/hardware.md: Llama-3-8B, published recipe on 4 GPUs: 164 M tokens, 5.8 h on A100s."""
    train = f"launcher: [{launcher}]\n  gradient_checkpointing: true\n  bf16: true"
    run = write_run(tmp_path, llama_8b(tmp_path / "llama"), train=train, tail=f"slurm: {slurm}\n")
    result = in_process("scripts/doctor.py", run, "--gpu", "A100-80", "--num_gpus", 2, "--json")
    assert says in result.stdout
    rows = {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}
    assert rows["train"]["prompt_tokens"] == [processes * 40_960_000] * 2
    assert rows["train"]["work"] == f"5,000 steps of {processes} x 16 x 512 tokens"
    assert rows["train"]["hours"] == pytest.approx([5.856] * 2, rel=0.001)
    assert "one process" not in result.stdout


def estimates_here(run: Path, gpu: str = "A100-80") -> dict[str, dict]:
    result = in_process("scripts/doctor.py", run, "--gpu", gpu, "--json")
    return {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}


def test_hours_that_no_run_has_shown_are_those_of_the_table_of_rates(tmp_path, tiny_lm):
    """docs/hardware.md, "Past one machine": tests/test_scale.py compares the table there. Its rates of GPUs are an H100's."""
    share = 312 / 989
    run = write_run(
        tmp_path, tiny_lm, translator="nllb", scorer="null", more="nllb_name_or_path: facebook/nllb-200-3.3B"
    )
    text = (
        run.read_text()
        + f"decontamination:\n  input_dir: {tmp_path}/out/nllb-200-3.3B\n  benchmarks: [udhr]\n  num_workers: 3\n"
    )
    run.write_text(text)
    rows = estimates_here(run)
    rate = {name: row.value for name, row in RATES.items()}
    sentences = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", rows["datagen: translate"]["work"])]
    hours = [n * rate["tokens_per_sentence"] / (rate["nllb_tokens"] * share) / 3600 for n in sentences]
    assert rows["datagen: translate"]["hours"] == pytest.approx(hours) and len(sentences) == 2
    pairs = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", rows["datagen: score"]["work"])]
    hours = [n / (rate["scored_pairs"] * share) / 3600 for n in pairs]
    assert rows["datagen: score"]["hours"] == pytest.approx(hours)
    hours = [n / (rate["decontaminated_pairs"] * 3) / 3600 for n in sentences]
    assert rows["decontamination"]["hours"] == pytest.approx(hours)
    assert {rows[name]["by"] for name in ("datagen: translate", "datagen: score", "decontamination")} == {"estimate"}
    run.write_text(text.replace("nllb-200-3.3B\n", "nllb-200-distilled-600M\n", 1))
    rows = estimates_here(run)
    assert rows["datagen: translate"]["hours"] is rows["datagen: translate"]["by"] is None, "no rate of this model"


def test_hours_of_main_are_those_of_its_models_in_earlier_runs(tmp_path):
    """21 sentences of the UDHR, at 0.01 and 0.005 a second; unknown while one of the models has not run."""
    main = "main: {{model_name_or_path: [org/a, b], inference_api: hf, dataset_name_or_path: udhr, src: English, tgt: Basque{}}}\n"
    found = []
    for rate, more in ((None, ""), (0.005, ""), (0.005, ", method_translate: TEaR")):
        for name, value in (("a", 0.01), ("b", rate)):
            (tmp_path / "out" / "translations" / name).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "out" / "translations" / name / "rates.json"
            file.write_text(json.dumps({"translate": value} if value else {}))
        run = tmp_path / "run.yaml"
        run.write_text(f"output_dir: {tmp_path}/out\n{main.format(more)}")
        found.append(estimates_here(run)["main: English to Basque"]["hours"])
    assert found == [None, pytest.approx([21 * (100 + 200) / 3600] * 2), None]


def test_each_model_of_main_counts_with_its_own_weights(tmp_path, tiny_lm):
    """The first one's were taken for all: hours of a small and a large model were those of two small ones."""
    large = llama_8b(tmp_path / "llama")
    hours = {}
    for name, models in (("small", [tiny_lm]), ("large", [large]), ("both", [tiny_lm, large])):
        run = tmp_path / "run.yaml"
        flags = "dataset_name_or_path: udhr, src: English, tgt: Basque, k: 0"
        run.write_text(
            f"output_dir: {tmp_path}/out\nmain: {{model_name_or_path: {json.dumps([*map(str, models)])}, {flags}}}\n"
        )
        hours[name] = estimates_here(run)["main: English to Basque"]["hours"]
    assert hours["both"] == pytest.approx([a + b for a, b in zip(hours["small"], hours["large"], strict=True)])
    assert hours["large"][0] > 10 * hours["small"][0]
    train = "use_peft: true, dataset_name_or_path: udhr, target_languages: Basque"
    text = run.read_text().replace(json.dumps([str(tiny_lm), str(large)]), '"${train.output_dir}"')
    run.write_text(f"{text}train: {{model_name_or_path: {large}, {train}}}\n")
    assert estimates_here(run)["main: English to Basque"]["hours"] == hours["large"], (
        "as large as what it is trained from"
    )
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "lora_alpha": 1, "base_model_name_or_path": str(large)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    shutil.copy(Path(tiny_lm) / "model.safetensors", tmp_path / "adapter" / "adapter_model.safetensors")
    run.write_text(text.replace("${train.output_dir}", str(tmp_path / "adapter")))
    assert estimates_here(run)["main: English to Basque"]["hours"] == hours["large"], "as large as its base"
    (memory,) = of(findings_here(run, "--gpu", "16GB", code=1), "memory", "problem")
    assert memory.startswith(f"{tmp_path / 'adapter'}: main: weights 16.1 GB on 1 x 1 GPU of 16.0 GB"), memory


def test_what_an_api_costs(tmp_path):
    run = write_run(tmp_path, "gpt", more="inference_api: openai\n  base_url: http://127.0.0.1:9/v1")
    result = doctor(run, "--json", "--prices", "0", "10", OPENAI_API_KEY="none")
    rows = {row["stage"]: row for row in json.loads(result.stdout)["estimates"]}
    tokens = rows["datagen: generate"]["completion_tokens"]
    assert rows["datagen: generate"]["usd"] == pytest.approx([10 * n / 1e6 for n in tokens]) and tokens[0] > 0
    assert rows["train"]["usd"] is None


def test_paragraphs_that_variants_share_count_once(tmp_path, tiny_lm):
    """Their tokens and bytes, and as what each back-translation reads: decontamination took all variants' sentences for its own."""
    base = write_run(tmp_path, tiny_lm, scorer="none", train="use_peft: true").read_text()
    text = re.sub(r"  (back_translator|data_dir): .*\n", "", base).replace(
        "instructions: 100", "instructions: 100000000"
    )
    run = tmp_path / "variants.yaml"
    head = "seeds: [1]\ndecontamination: {benchmarks: udhr}\nmain: {dataset_name_or_path: udhr, src: English, tgt: Basque}\n"
    both = "variants:\n  one: {datagen: {use_nllb: true}}\n  two: {datagen: {back_translator: apertium}}\n"
    run.write_text(text + head + both)
    result = json.loads(in_process("scripts/doctor.py", run, "--gpu", "H100", "--json").stdout)
    rows = {name: [row for row in result["estimates"] if name in row["stage"]] for name in ("generate", "decontamina")}
    assert len(rows["generate"]) == 1
    sentences = {row["work"] for row in result["estimates"] if "translate" in row["stage"]}
    assert len(sentences) == 1 and len(rows["decontamina"]) == 2
    for row in rows["decontamina"]:
        assert row["work"].split()[2] == sentences.copy().pop().split()[2], "those of its own pairs"
    (space,) = (
        one["text"] for one in result["findings"] if one["subject"] == "output_dir" and "free for" in one["text"]
    )
    tokens = rows["generate"][0]["completion_tokens"][1]
    written = float(re.search(r"about ([\d.,]+) GB", space)[1].replace(",", ""))
    assert written == pytest.approx(tokens * 16 / 1e9, rel=0.01)
