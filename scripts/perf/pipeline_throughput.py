"""Tokens/s of the generation pipeline as a share of bare LLM.generate on the same prompts, seeds and engine.

    python scripts/perf/pipeline_throughput.py --model models/gemma-3-270m --prompts 200 --rounds 2

The pipeline side parses, cleans, de-duplicates and writes every answer to disk as it comes. Rounds alternate
which side goes first; the prefix cache is emptied before each side.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from topxgen import inference
from topxgen.common.console import Progress
from topxgen.common.records import Layout
from topxgen.corpora import examples
from topxgen.generation import prompt_templates, topics
from topxgen.generation.paragraphs import Generation, Target, request_seed, schedule
from topxgen.generation.pipelines.topxgen import TopXGenPrompts
from topxgen.text import languages

SEED = 122


class Limited:
    """A sampler that stops asking after `count` requests."""

    def __init__(self, sampler, count: int):
        self._sampler, self._left, self.tokens = sampler, count, 0

    def generate(self, next_request, settings):
        def limited():
            request = next_request() if self._left else None
            self._left -= request is not None
            return request

        for answer in self._sampler.generate(limited, settings):
            self.tokens += answer.completion_tokens
            yield answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/gemma-3-270m")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    args = parser.parse_args()

    language = languages.find("Basque")
    template = prompt_templates.load("continuation")
    builder = TopXGenPrompts(
        template,
        topics.read_topics(Path(__file__).parents[2] / "topics" / "wikipedia_vital_topics.txt"),
        examples.example_paragraphs("udhr"),
        {"Basque": examples.example_sentences("udhr", language)},
        languages=["Basque"],
        seed=SEED,
        texts=1,
        demonstrations=1,
        phrases=4,
    )
    settings = inference.SamplingSettings(max_new_tokens=args.max_new_tokens, temperature=0.7, stop=template.stop)
    sampler = inference.load("vllm", inference.ModelSettings(args.model, max_model_len=1024))
    llm = sampler._llm

    def bare() -> tuple[int, float]:
        steps = schedule(("Basque",), 4, SEED)
        asked = [prompt for _ in range(-(-args.prompts // 4)) for prompt in next(steps)][: args.prompts]
        params = [
            sampler._vllm.SamplingParams(
                temperature=settings.temperature,
                max_tokens=settings.max_new_tokens,
                stop=list(settings.stop),
                seed=request_seed(SEED, prompt.id),
            )
            for prompt in asked
        ]
        start = time.perf_counter()
        outputs = llm.generate([builder.build(prompt)[0] for prompt in asked], params, use_tqdm=False)
        seconds = time.perf_counter() - start
        return sum(len(output.outputs[0].token_ids) for output in outputs), seconds

    def pipeline() -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder, Progress("pipeline", None, "paragraphs") as progress:
            limited = Limited(sampler, args.prompts)
            with Generation(
                Layout(Path(folder), "none"),
                Target(("Basque",), 10 * args.prompts, 0),
                build_prompt=builder.build,
                answer_format=template.answer,
                texts_per_prompt=1,
                step_size=4,
                seed=SEED,
                threshold=0.7,
                rouge_tokenizer="unicode",
                scripts={"Basque": language.script},
                filenames={},
                progress=progress,
            ) as generation:
                start = time.perf_counter()
                generation.run(limited, settings)
                return limited.tokens, time.perf_counter() - start

    sides = {"bare LLM.generate": bare, "pipeline": pipeline}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.rounds):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            llm.reset_prefix_cache()
            tokens, seconds = sides[name]()
            rates[name].append(tokens / seconds)
            print(
                f"round {turn}, {name}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.1f} tokens/s", flush=True
            )
    shares = [pipe / alone for pipe, alone in zip(rates["pipeline"], rates["bare LLM.generate"], strict=True)]
    print(f"pipeline / bare: {', '.join(f'{share:.3f}' for share in shares)}, median {statistics.median(shares):.3f}")
    sampler.close()


if __name__ == "__main__":
    main()
