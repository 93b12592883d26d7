"""Sentences/s of a few-shot run of main.py as a share of bare LLM.generate on the same prompts and engine.

    python scripts/perf/few_shot_throughput.py --model models/gemma-3-270m --ntrex ../benchmarks/NTREX-128 --sentences 1000

main.py also retrieves demonstrations, builds prompts, saves every response and writes the translations. The two take turns at
going first, and the prefix cache is emptied before each.
"""

import os
import tempfile
from pathlib import Path

from measuring import as_flags, command_line, in_turns

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import main as script
from comptra import runner
from comptra.config import EvaluationConfig, configurations
from comptra.llm_calls import StageProgress
from topxgen.common.files import read_jsonl
from topxgen.inference.lazy_sampler import LazySampler

MAX_NEW_TOKENS = 75


class KeptSampler(LazySampler):
    """A sampler that several runs share."""

    def close(self) -> None:
        pass


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--model", default="models/gemma-3-270m")
    parser.add_argument("--ntrex", type=Path, required=True, metavar="DIR", help="NTREX-128 as published")
    parser.add_argument("--sentences", type=int, default=1000)
    args = parser.parse_args()

    def run_in(folder: str) -> EvaluationConfig:
        words = as_flags(
            model_name_or_path=args.model, dataset_name_or_path="ntrex", benchmark_dir=args.ntrex, tgt="Basque",
            max_samples=args.sentences, k=5, max_new_tokens=MAX_NEW_TOKENS, max_model_len=2048, output_dir=folder,
        )  # fmt: skip
        return configurations(script.build_parser().parse_args(words))[0]

    with tempfile.TemporaryDirectory() as folder:
        run = run_in(folder)
        model = run.models[0]
        engine = runner.load_model(run, model)
        task = run.task(model, None)
        sentences = run.test_set.sources
        prompts = [task.template.get_prompt(*item) for item in zip(task.shots(sentences), sentences, strict=True)]
    params = engine._vllm.SamplingParams(
        temperature=0.0, max_tokens=MAX_NEW_TOKENS, stop=list(task.template.stops), seed=0
    )

    def bare() -> int:
        engine._llm.reset_prefix_cache()
        return len(engine._llm.generate(prompts, params, use_tqdm=False))

    def main_py() -> int:
        engine._llm.reset_prefix_cache()
        with tempfile.TemporaryDirectory() as folder:
            run = run_in(folder)
            runner.translate_with(run, model, KeptSampler(lambda: engine), [], StageProgress())
            return len(list(read_jsonl(run.folder(model) / "translate_0.jsonl")))

    in_turns({"bare LLM.generate": bare, "main.py": main_py}, 1, "sentences")
    engine.close()


if __name__ == "__main__":
    main()
