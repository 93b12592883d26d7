"""Tokens/s of the generation pipeline as a share of bare LLM.generate on the same prompts, seeds and engine.

    python scripts/perf/pipeline_throughput.py --model models/gemma-3-270m --prompts 200 --rounds 2

The pipeline side parses, cleans, de-duplicates and writes every answer to disk as it comes. Rounds alternate
which side goes first; the prefix cache is emptied before each side.
"""

import tempfile

from measuring import as_flags, command_line, in_turns

from datagen import build_parser
from topxgen import inference
from topxgen.common.console import Progress
from topxgen.generation.paragraphs import Generation, request_seed
from topxgen.generation.plan import GenerationConfig


class Limited:
    """A sampler that takes `count` requests."""

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
    parser = command_line(__doc__)
    parser.add_argument("--model", default="models/gemma-3-270m")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()

    def config(folder) -> GenerationConfig:
        words = as_flags(
            model_name_or_path=args.model, languages="Basque", output_dir=folder, number_of_instructions=10 * args.prompts,
            seed_topics_path="topics/wikipedia_vital_topics.txt", prompt_template="continuation", temperature=0.7,
            example_paragraphs="udhr", number_of_icl_demonstrations=1, example_sentences="udhr", number_of_icl_phrases=4,
            max_new_tokens=64, max_model_len=1024, back_translator="nllb",
        )  # fmt: skip
        return GenerationConfig(build_parser().parse_args(words))

    plan = config("unused")
    seed, settings = plan.args.seed, plan.sampling_settings()
    sampler = inference.load("vllm", plan.model_settings())
    llm = sampler._llm
    options = dict(temperature=settings.temperature, max_tokens=settings.max_new_tokens, stop=list(settings.stop))

    def bare() -> int:
        llm.reset_prefix_cache()
        steps = plan.pipeline.schedule(("Basque",), 4, seed)
        asked = [prompt for _ in range(-(-args.prompts // 4)) for prompt in next(steps)][: args.prompts]
        params = [sampler._vllm.SamplingParams(**options, seed=request_seed(seed, prompt.id)) for prompt in asked]
        outputs = llm.generate([plan.pipeline.build(prompt)[0] for prompt in asked], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def pipeline() -> int:
        llm.reset_prefix_cache()
        with tempfile.TemporaryDirectory() as folder, Progress("pipeline", None, "paragraphs") as progress:
            limited = Limited(sampler, args.prompts)
            with Generation(config(folder), progress) as generation:
                generation.run(limited, settings)
            return limited.tokens

    in_turns({"bare LLM.generate": bare, "pipeline": pipeline}, args.rounds, "tokens")
    sampler.close()


if __name__ == "__main__":
    main()
