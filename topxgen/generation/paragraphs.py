"""The generation loop: prompts in flight, answers cleaned and de-duplicated as they come.

Everything a run decides is a function of its settings and of the answers, never of the order in which the
answers happened to come or of how often the run was stopped: prompts are numbered, each has a seed of its
own, and answers are judged in the order of the numbers, whenever they arrive. An answer is on disk before
it is judged; a restarted run reads the answers it has and asks only for the others.
"""

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from topxgen.common.console import Progress, printable
from topxgen.common.files import Appender, read_jsonl
from topxgen.common.records import Layout, Paragraph, with_ids
from topxgen.generation.cleaning import reject_reason
from topxgen.generation.parsing import PARSERS
from topxgen.inference import Answer, Request, SamplingSettings
from topxgen.text.near_duplicates import NearDuplicates

MAX_BARREN_STEPS = 50  # in a row that kept nothing (SPEC section 3)


@dataclass(frozen=True)
class Prompt:
    """The `number`-th prompt of a language, asked in the `step`-th step of the run."""

    id: str
    language: str
    number: int
    step: int


@dataclass(frozen=True)
class Target:
    """When a run has enough: `total` kept paragraphs over all languages and `minimum` in each."""

    languages: tuple[str, ...]
    total: int
    minimum: int

    def wants(self, kept: Counter, language: str) -> bool:
        """Whether one more paragraph in `language` brings the run nearer to its end.

        Once wanted no more, a language stays so: more kept paragraphs never bring the need back.
        """
        if kept[language] < self.minimum:
            return True
        return self.total > sum(max(kept[name], self.minimum) for name in self.languages)

    def missing(self, kept: Counter) -> int:
        deficits = sum(max(self.minimum - kept[name], 0) for name in self.languages)
        return max(self.total - sum(kept[name] for name in self.languages), deficits)

    def reached(self, kept: Counter) -> bool:
        return not any(self.wants(kept, language) for language in self.languages)


def schedule(languages: tuple[str, ...], step_size: int, seed: int) -> Iterator[list[Prompt]]:
    """Without end, the prompts of each step: `step_size` consecutive ones of a language drawn at random.

    Languages come in shuffled rounds, so that none falls behind by chance.
    """
    numbers = Counter()
    step = 0
    while True:
        shuffled = list(languages)
        random.Random(f"languages {seed} {step}").shuffle(shuffled)
        for language in shuffled:
            first = numbers[language]
            numbers[language] += step_size
            yield [
                Prompt(f"{language}-{number:06d}", language, number, step) for number in range(first, first + step_size)
            ]
            step += 1


def request_seed(seed: int, prompt_id: str) -> int:
    """The seed of a prompt's own sampling, below 2**31 as every engine takes it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt_id}".encode()).digest()[:4]) >> 1


@dataclass
class _LanguageFiles:
    """What is on disk for a language, and the index that new candidates are held against."""

    known: NearDuplicates
    answers: dict[str, dict] = field(default_factory=dict)  # by prompt id
    kept: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)


@dataclass
class Outcome:
    """How a run went: `requested` counts the answers on disk and the prompts sent by this run."""

    requested: int
    kept: Counter
    enough: bool
    barren_steps: int


class Generation:
    """One run over the files of `layout`: enter it, ask `needs_answers`, and if so `run` it with a sampler.

    `build_prompt` gives the prompt to send and its topic, and depends on the Prompt alone.
    """

    def __init__(
        self,
        layout: Layout,
        target: Target,
        *,
        build_prompt: Callable[[Prompt], tuple[str | list[dict[str, str]], str]],
        answer_format: str,
        texts_per_prompt: int,
        step_size: int,
        seed: int,
        threshold: float,
        rouge_tokenizer: str,
        scripts: dict[str, str],
        filenames: dict[str, str],
        progress: Progress,
        verbose: bool = False,
    ):
        self._layout, self._target = layout, target
        self._build_prompt = build_prompt
        self._parse = PARSERS[answer_format]
        self._texts_per_prompt = texts_per_prompt
        self._seed = seed
        self._scripts = scripts
        self._filenames = filenames
        self._progress, self._verbose = progress, verbose
        self._kept = Counter()
        self._files = {name: self._read(name, NearDuplicates(threshold, rouge_tokenizer)) for name in target.languages}
        self._steps = schedule(target.languages, step_size, seed)
        self._queue: deque[Prompt] = deque()  # prompts of the current step not yet looked at
        self._undecided: deque[Prompt] = deque()  # asked or answered, in the order in which they are judged
        self._arrived: dict[str, dict] = {}
        self._unsent: deque[Request] = deque()
        self._asked: dict[str, str] = {}  # prompt id -> topic
        self._current_step: int | None = None
        self._kept_in_step = self._barren = 0
        self._decided_prompts = self._kept_now = 0
        self._requested = self._received = sum(len(files.answers) for files in self._files.values())
        progress.update(sum(self._kept.values()))

    def _read(self, language: str, known: NearDuplicates) -> _LanguageFiles:
        layout = self._layout
        files = _LanguageFiles(known)
        for name, record in with_ids(read_jsonl(layout.paragraphs(language, self._filenames.get(language))), "text"):
            files.known.add(name, str(record.get("text", "")))
            files.kept.add(name)
        files.rejected = {record["id"] for record in read_jsonl(layout.rejects(language))}
        files.answers = {record["id"]: record for record in read_jsonl(layout.answers(language))}
        # Paragraphs without an id of ours (brought along from elsewhere) count from the start; the others
        # are counted when their prompt's turn comes, so that a restart goes through the same states.
        self._kept[language] = sum(1 for name in files.kept if not name.startswith(f"{language}-"))
        return files

    def __enter__(self):
        layout, languages = self._layout, self._target.languages
        self._answers_out = {name: Appender(layout.answers(name)) for name in languages}
        self._rejects_out = {name: Appender(layout.rejects(name)) for name in languages}
        self._kept_out = {name: Appender(layout.paragraphs(name, self._filenames.get(name))) for name in languages}
        return self

    def __exit__(self, *_):
        for output in (*self._answers_out.values(), *self._rejects_out.values(), *self._kept_out.values()):
            output.close()

    def needs_answers(self) -> bool:
        """Judge the answers on disk; whether the run then needs more of them (and so a model)."""
        request = self.next_request()
        if request is not None:
            self._unsent.append(request)
        return request is not None

    def outcome(self) -> Outcome:
        return Outcome(self._requested, self._kept, self._target.reached(self._kept), self._barren)

    def run(self, sampler, settings: SamplingSettings) -> None:
        """Ask, judge and write until the target is reached or MAX_BARREN_STEPS steps kept nothing."""
        answers = sampler.generate(self.next_request, settings)
        try:
            for answer in answers:
                self._take(answer)
                if self._finished():
                    break
        finally:
            answers.close()

    def _finished(self) -> bool:
        return self._target.reached(self._kept) or self._barren >= MAX_BARREN_STEPS

    def next_request(self) -> Request | None:
        """The next prompt without an answer, or None while those in flight may be enough."""
        if self._unsent:
            return self._unsent.popleft()
        while not self._finished():
            if self._undecided and len(self._undecided) * self._expected() >= self._target.missing(self._kept):
                return None
            if not self._queue:
                self._queue.extend(next(self._steps))
            prompt = self._queue.popleft()
            if not self._target.wants(self._kept, prompt.language):
                continue
            self._undecided.append(prompt)
            record = self._files[prompt.language].answers.get(prompt.id)
            if record is None:
                self._requested += 1
                text, self._asked[prompt.id] = self._build_prompt(prompt)
                return Request(prompt.id, text, request_seed(self._seed, prompt.id))
            self._arrived[prompt.id] = record
            self._judge()
        return None

    def _expected(self) -> float:
        """Paragraphs that a prompt in flight is likely to bring: as so far, three quarters of its texts at first."""
        return max((self._kept_now + 3 * self._texts_per_prompt) / (self._decided_prompts + 4), 0.01)

    def _take(self, answer: Answer) -> None:
        """Write an answer to disk, then judge all whose turn has come."""
        language = answer.id.rsplit("-", 1)[0]
        record = {
            "id": answer.id,
            "topic": self._asked.pop(answer.id),
            "answers": answer.texts,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            **({"error": answer.error} if answer.error else {}),
        }
        self._answers_out[language].write(record)
        self._answers_out[language].sync()
        self._arrived[answer.id] = record
        self._received += 1
        self._judge()

    def _judge(self) -> None:
        while self._undecided and not self._finished():
            prompt = self._undecided[0]
            if self._target.wants(self._kept, prompt.language):
                if prompt.id not in self._arrived:
                    break
                if prompt.step != self._current_step:
                    if self._current_step is not None and not self._kept_in_step:
                        self._barren += 1
                    self._current_step, self._kept_in_step = prompt.step, 0
                    continue  # the run may be finished now
                self._judge_prompt(prompt, self._arrived.pop(prompt.id))
            else:
                self._arrived.pop(prompt.id, None)
            self._undecided.popleft()
        self._progress.update(0, answers=self._received, rejected=sum(len(f.rejected) for f in self._files.values()))

    def _judge_prompt(self, prompt: Prompt, record: dict) -> None:
        self._decided_prompts += 1
        index = 0
        if record.get("error"):
            reason = "prompt_too_long" if "--max_model_len" in record["error"] else "answer_failed"
            self._reject(prompt, f"{prompt.id}.0", reason, record["error"], record)
        for answer in record["answers"]:
            texts = self._parse(answer, self._texts_per_prompt)
            if texts is None:
                reason = "unparseable" if answer.strip() else "empty"
                self._reject(prompt, f"{prompt.id}.{index}", reason, answer, record)
                index += self._texts_per_prompt
                continue
            for text in texts:
                if self._target.wants(self._kept, prompt.language):
                    self._judge_text(prompt, f"{prompt.id}.{index}", text, record)
                index += 1

    def _judge_text(self, prompt: Prompt, name: str, text: str, record: dict) -> None:
        files = self._files[prompt.language]
        if name in files.rejected:
            return
        if name not in files.kept:
            reason = reject_reason(text, self._scripts[prompt.language])
            if reason is None and (match := files.known.match(text)) is not None:
                reason = f"near_duplicate of {match[0]} (ROUGE-L F1 {match[1]:.3f})"
            if reason is not None:
                self._reject(prompt, name, reason, text, record)
                return
            self._kept_out[prompt.language].write(Paragraph(name, text, record["topic"]).to_json())
            files.known.add(name, text)
            files.kept.add(name)
            if self._verbose:
                self._progress.write(f"[{name}] {record['topic']}: {printable(text)}")
        self._progress.update(1)
        self._kept[prompt.language] += 1
        self._kept_now += 1
        self._kept_in_step += 1
        self._barren = 0

    def _reject(self, prompt: Prompt, name: str, reason: str, text: str, record: dict) -> None:
        files = self._files[prompt.language]
        if name in files.rejected:
            return
        files.rejected.add(name)
        rejected = {"id": name, "prompt": prompt.id, "reason": reason, "text": text, "topic": record["topic"]}
        self._rejects_out[prompt.language].write(rejected)
        if self._verbose:
            self._progress.write(f"[{name}] rejected, {printable(reason)}: {printable(text)}")
