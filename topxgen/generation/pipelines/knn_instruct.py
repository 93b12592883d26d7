"""KNN-Instruct (Kou et al. 2024): in each round every item of a pool and its nearest neighbours beget one more item.

Where an item stands in the pool of its language is a function of its origin: seeds come first, and what the prompts of a round
bring stands behind all that the pool can hold by then. So a prompt's number says which item it shows, in which round, also if
other prompts brought nothing.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain

from topxgen import inference
from topxgen.common.console import Progress
from topxgen.common.errors import Unreachable, UsageError
from topxgen.common.files import read_jsonl, to_line, write_atomic
from topxgen.common.provenance import digest
from topxgen.common.records import ParagraphRecord
from topxgen.generation import parsing
from topxgen.generation.pipelines import Pipeline, Prompt
from topxgen.generation.prompt_templates import for_model, load_passages, only_in_a_dry_run
from topxgen.generation.seeds import STAND_IN, seed_sentences
from topxgen.inference.response_cache import read_responses
from topxgen.prompting.style import as_prompt
from topxgen.retrieval import encoders, vector_files
from topxgen.retrieval.encoders import EncoderSettings
from topxgen.retrieval.nearest import nearest


class _Pool:
    """The items of a language by the round that brought them; `rounds[0]` are the seeds."""

    def __init__(self, seeds: list[str], texts_per_prompt: int):
        self.rounds: list[list[str]] = [seeds]
        self.places = list(range(len(seeds)))  # of all items
        self.unjudged = 0  # prompts that were scheduled
        self.shown_in = 0  # the round that the next two are of
        self.items: list[str] = []
        self.neighbours = None  # (items, k) indices
        self._growth = 1 + texts_per_prompt

    def capacity(self, number: int) -> int:
        """The places of the pool that round `number` shows: each of those before it may have brought all that it asked for."""
        return len(self.rounds[0]) * self._growth ** (number - 1)

    def prompts_before(self, number: int) -> int:
        return (self.capacity(number) - self.capacity(1)) // (self._growth - 1)

    def locate(self, prompt: Prompt) -> tuple[int, int]:
        """(round, place of the item) of a prompt."""
        number = 1
        while self.prompts_before(number + 1) <= prompt.number:
            number += 1
        return number, prompt.number - self.prompts_before(number)

    def add(self, prompt: Prompt, texts: list[str]) -> None:
        self.unjudged -= 1
        number, place = self.locate(prompt)
        first = self.capacity(number) + place * (self._growth - 1)
        self.places += range(first, first + len(texts))
        self.rounds[number] += texts


class KNNInstruct(Pipeline):
    """Raises UsageError if template, seeds or encoder cannot be read, or the seeds are fewer than a prompt shows."""

    tokens_per_text = (20, 100)
    sentences_per_text = (1, 2)
    filters = ()
    threshold = 1.0
    ends = True

    def __init__(self, config):
        args = self._args = config.args
        self._languages, self._layout = config.languages, config.layout
        shown = args.number_of_icl_demonstrations + 1
        self._template = template = for_model(config, load_passages, "neighbours", "neighbours-continuation")
        self._next = shown + 1
        self.stop = template.stop
        seeds = {name: seed_sentences(args, language, shown) for name, language in config.languages.items()}
        self._pools = {name: _Pool(texts, args.num_return_sequences) for name, texts in seeds.items()}
        self.prompts = sum(pool.prompts_before(args.number_of_rounds + 1) for pool in self._pools.values())
        # Beside an LLM on this machine's GPU there may be no room, so that the CPU is used unless the user says more.
        self._device = args.encoder_device or (None if args.inference_api in inference.REMOTE else "cpu")
        self._encoder = self._open_encoder()
        for name in config.languages:
            self._check_files(name)
        pools = ", ".join(f"{len(texts)} in {name}" for name, texts in seeds.items())
        self.summary = (
            f"template {template.path}, seed sentences: {pools}; {args.number_of_rounds} rounds, {self.prompts} prompts if all "
            f"bring a text; vectors by {args.encoder}"
        )
        self.settings = {
            "prompt_template_digest": template.digest,
            **template.chat_template,
            **{f"example_sentences_digest {name}": digest(texts) for name, texts in seeds.items()},
            "number_of_icl_demonstrations": args.number_of_icl_demonstrations,
        }
        if self._encoder is None or any(texts[0].startswith(STAND_IN) for texts in seeds.values()):
            self.settings = {}  # only in a dry run: not known
        else:
            self.settings["encoder"] = self._encoder.version

    def _open_encoder(self):
        args = self._args
        try:
            encoder = encoders.create(args.encoder, EncoderSettings.from_args(args, encoder_device=self._device))
        except Unreachable as error:
            only_in_a_dry_run(args, error)
            return None
        for language in self._languages.values():
            encoder.check(language)
        return encoder

    def _check_files(self, name: str) -> None:
        """Raise UsageError for files of rounds that another run, or the user, has made."""
        layout = self._layout
        for number in range(self._args.number_of_rounds + 1):
            texts, vectors = layout.round_texts(name, number), layout.vectors(name, number)
            for path in (texts, vectors):
                if path.exists() and not path.is_file():
                    raise UsageError(
                        f"{path} is not a file, but this run writes one of that name; pass another --output_dir"
                    )
            vector_files.check_origin(vectors)
            if number and texts.exists() and not layout.settings("generate").exists():
                raise UsageError(f"{texts} is of another run, whose settings are missing; pass another --output_dir")
            if layout.paragraphs(name) == texts:
                raise UsageError(f"--output_filenames: {texts.name} is the file of round {number}; choose another name")

    def _check_rounds(self, name: str) -> None:
        """Raise UsageError if prompts of more rounds than are asked for were sent: their texts are among the paragraphs."""
        path, pool = self._layout.responses(name), self._pools[name]
        numbers = (int(record["id"].rpartition("-")[2]) for record in read_responses(path))
        if (last := max(numbers, default=-1)) >= pool.prompts_before(self._args.number_of_rounds + 1):
            number, _ = pool.locate(Prompt("", name, last, 0))
            raise UsageError(
                f"--number_of_rounds {self._args.number_of_rounds}: {path.parent} has begun round {number} of {name}, whose texts would stay "
                f"in it; pass {number} or more, or another --output_dir"
            )

    def schedule(self, languages: tuple[str, ...], step_size: int, seed: int) -> Iterator[list[Prompt]]:
        """Round by round, all items of each language. An empty step: those of the round before have to be judged first."""
        for name in languages:
            self._check_rounds(name)
        step = 0
        for number in range(1, self._args.number_of_rounds + 1):
            for name in languages:
                pool = self._pools[name]
                while pool.unjudged:
                    yield []
                places = list(pool.places)
                pool.rounds.append([])
                for start in range(0, len(places), step_size):
                    numbers = [pool.prompts_before(number) + place for place in places[start : start + step_size]]
                    pool.unjudged += len(numbers)
                    yield [Prompt(f"{name}-{n:06d}", name, n, step) for n in numbers]
                    step += 1

    def build(self, prompt: Prompt) -> tuple[str | list[dict[str, str]], None]:
        pool = self._pools[prompt.language]
        number, place = pool.locate(prompt)
        if pool.shown_in != number:
            pool.items = list(chain.from_iterable(pool.rounds[:number]))
            pool.neighbours, pool.shown_in = self._neighbours(prompt.language, number), number
        item = bisect_left(pool.places, place)
        shown = [pool.items[i] for i in (item, *pool.neighbours[item])]
        text = self._template.fill(prompt.language, shown, self._next)
        return as_prompt(text, self._template.style), None

    def _neighbours(self, name: str, number: int):
        """For each item that round `number` shows, the indices of its nearest neighbours, (items, k)."""
        import numpy as np

        pool, k = self._pools[name], self._args.number_of_icl_demonstrations
        if self._args.dry_run and (self._encoder is None or self._read_vectors(name, 0) is None):
            self.summary += f"; other seeds of {name} stand in for neighbours, as there are no vectors yet"
            count = len(pool.rounds[0])  # a dry run loads no encoder and writes nothing
            return (np.arange(count)[:, None] + np.arange(1, k + 1)) % count
        vectors = [self._vectors(name, earlier) for earlier in range(number)]
        return nearest(np.concatenate(vectors), k, self._device)

    def _read_vectors(self, name: str, number: int):
        return vector_files.read(self._layout.vectors(name, number), self._pools[name].rounds[number], self._encoder)

    def _vectors(self, name: str, number: int):
        """The vectors of what a round brought, which is over; they and its texts are on the disk before anything uses them."""
        texts = self._pools[name].rounds[number]
        path = self._layout.round_texts(name, number)
        if number and (not path.exists() or self._written(name, number) != texts):
            write_atomic(path, (to_line({"text": text}) for text in texts))
        vectors = self._read_vectors(name, number)
        if vectors is None:
            with Progress(f"vectors of {name}, round {number}", len(texts), "texts") as progress:
                try:
                    vectors = self._encoder.encode(texts, self._languages[name], progress.update)
                finally:
                    self._encoder.close()
            vector_files.write(self._layout.vectors(name, number), vectors, texts, self._encoder)
        return vectors

    def parse(self, response: str) -> list[str] | None:
        text = parsing.first_line(response, self._next)
        return [text] if text else None

    def finished_part(self, response: str) -> str:
        return response if parsing.first_line(response, self._next, closed=True) else ""

    def judged(self, prompt: Prompt, texts: list[str]) -> None:
        self._pools[prompt.language].add(prompt, texts)

    def finish(self) -> None:
        for name, pool in self._pools.items():
            for number, texts in enumerate(pool.rounds):
                if len(self._written(name, number)) <= len(texts):  # more: by a larger --number_of_instructions before
                    self._vectors(name, number)

    def _written(self, name: str, number: int) -> list[str]:
        """The texts in the file of a round."""
        path = self._layout.round_texts(name, number)
        records = read_jsonl(path, ParagraphRecord, "remove it: it is made again") if number else ()
        return [record["text"] for record in records]
