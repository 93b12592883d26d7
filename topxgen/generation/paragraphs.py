"""The generation loop: prompts in flight, responses parsed, filtered and de-duplicated as they arrive.

What a run keeps is a function of its settings and of the responses, not of the order in which they arrive or of how
often the run is stopped: prompts are numbered, each has a seed of its own, and responses are judged in the order of the
prompts. A response is on disk before it is judged; a resumed run reads those it has and requests only the others.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from topxgen.common.console import Progress
from topxgen.common.files import Appender, read_json, read_jsonl, to_line, write_atomic
from topxgen.common.records import Paragraph, ParagraphRecord, RejectRecord, with_ids
from topxgen.generation import deduplication
from topxgen.generation.filters import Filter, reject_reason
from topxgen.generation.pipelines import Pipeline, Prompt
from topxgen.inference import REMOTE, Answer, Request, SamplingSettings
from topxgen.inference.response_cache import ResponseCache, response_record
from topxgen.text.languages import Language
from topxgen.text.near_duplicates import NearDuplicates
from topxgen.text.words import is_blank

MAX_UNPRODUCTIVE_STEPS = 50  # in a row that keep nothing, as in the TopXGen pipeline: then the run stops


@dataclass(frozen=True)
class Target:
    """When a run has enough: `total` kept paragraphs over all languages and in each its `minimums`."""

    languages: tuple[str, ...]
    total: int
    minimums: Mapping[str, int]  # by language

    @property
    def paragraphs(self) -> int:
        """How many a run of these keeps, at least."""
        return max(self.total, sum(self.minimums.values()))

    def wants(self, kept: Counter, language: str) -> bool:
        """Whether one more paragraph in `language` brings the run nearer to its end.

        A language that is not wanted once never is again: more kept paragraphs cannot bring the need back.
        """
        if kept[language] < self.minimums[language]:
            return True
        return self.total > sum(map(max, map(kept.__getitem__, self.languages), self._ordered_minimums))

    @cached_property
    def _ordered_minimums(self) -> list[int]:
        return [self.minimums[name] for name in self.languages]

    def missing(self, kept: Counter) -> int:
        """How many more paragraphs are needed, at least."""
        deficits = sum(max(self.minimums[name] - kept[name], 0) for name in self.languages)
        return max(self.total - sum(kept[name] for name in self.languages), deficits)

    def reached(self, kept: Counter) -> bool:
        return not any(self.wants(kept, language) for language in self.languages)


def request_seed(seed: int, prompt_id: str) -> int:
    """The sampling seed of a prompt, below 2**31 as every engine takes it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt_id}".encode()).digest()[:4]) >> 1


def is_generated(paragraph_id: str, language: str) -> bool:
    """Whether the id is of a generated paragraph; others came with the file, as from published data."""
    return paragraph_id.startswith(f"{language}-")


def native_id(language: str, row: int, index: int) -> str:
    """The id of a paragraph of --paragraphs, the `index`-th of that row of the source. It is none of a prompt's."""
    return f"{language}-native-{row}.{index}"


def is_native(paragraph_id: str, language: str) -> bool:
    return paragraph_id.startswith(f"{language}-native-")


def has_failed(response: dict) -> bool:
    """Whether there is no text, for another reason than the length of the prompt."""
    error = response.get("error")
    return "--max_model_len" not in error if error else all(map(is_blank, response["texts"]))


def reason_against(
    text_id: str, text: str, language: Language, filters: Mapping[str, Filter], near_duplicates: NearDuplicates
) -> str | None:
    """The reason code, with its detail, if a filter rejects `text` or a kept one is nearly the same; None to keep it, and then
    later texts are compared with it, too."""
    reason = reject_reason(text, language, filters)
    if reason is None and (match := near_duplicates.keep(text_id, text)) is not None:
        reason = deduplication.reason(*match)
    return reason


class _LanguageFiles:
    """The files of a language, and what is in them."""

    def __init__(self, config, language: Language):
        layout, name, self.language = config.layout, language.name, language
        self._config = config
        paragraphs = with_ids(read_jsonl(layout.paragraphs(name), ParagraphRecord), "text")
        self.kept = {paragraph_id for paragraph_id, _ in paragraphs}
        is_remote = config.args.inference_api in REMOTE
        self.responses = ResponseCache(layout.responses(name), fsync_each=is_remote)
        if is_remote and not read_json(layout.manifest("generate", name)).get("complete"):
            self._forget_failed(layout.rejects(name))
        self.rejected = {record["id"] for record in read_jsonl(layout.rejects(name), RejectRecord)}
        self.kept_out, self.rejects_out = Appender(layout.paragraphs(name)), Appender(layout.rejects(name))

    @cached_property
    def near_duplicates(self) -> NearDuplicates:
        """The index of what texts are compared with: made when the first one is, as a run that only reads its files needs none."""
        config, name = self._config, self.language.name
        index = deduplication.new_index(config.args)
        for number, text in enumerate(config.pipeline.known_texts(name), 1):
            index.add(f"example sentence {number}", text)
        paragraphs = with_ids(read_jsonl(config.layout.paragraphs(name), ParagraphRecord), "text")
        for paragraph_id, record in paragraphs:
            index.add(paragraph_id, str(record.get("text", "")))
        return index

    def _forget_failed(self, path: Path) -> None:
        """Ask again, before a run goes on, what an API refused or left empty: a server that was at fault may work again."""
        failed = self.responses.forget(has_failed)
        rejects = list(read_jsonl(path, RejectRecord)) if failed else []
        if any(reject.get("prompt") in failed for reject in rejects):
            write_atomic(path, (to_line(reject) for reject in rejects if reject.get("prompt") not in failed))

    def close(self) -> None:
        for output in (self.responses, self.rejects_out, self.kept_out):
            output.close()


class Generation:
    """One run over the files of `config.layout`: enter it, ask `needs_responses`, and if so `run` it with a sampler."""

    def __init__(self, config, progress: Progress, steps: Iterator[list[Prompt]] | None = None):
        """`config`: a topxgen.generation.plan.GenerationConfig; `steps`: the schedule, if it is not the pipeline's."""
        self._args, self._pipeline, self._filters = config.args, config.pipeline, config.filters
        self._target, self._progress = config.target, progress
        self._is_remote = self._args.inference_api in REMOTE
        self._files = {name: _LanguageFiles(config, language) for name, language in config.languages.items()}
        # Paragraphs that came with the file count from the start; generated ones are counted when their prompt's turn
        # comes, so that a resumed run goes through the same states.
        self.kept = Counter(
            {name: sum(not is_generated(key, name) for key in files.kept) for name, files in self._files.items()}
        )
        if self._pipeline.ends and not config.limited:  # its whole schedule, whatever came with the file
            self._target = replace(self._target, total=self._target.total + self.kept.total())
        languages, size = self._target.languages, self._args.request_batch_size
        self._steps = steps or self._pipeline.schedule(languages, size, self._args.seed)
        self._queue: deque[Prompt] = deque()  # prompts of the current step not yet looked at
        self._undecided: deque[Prompt] = deque()  # sent or answered, in the order in which they are judged
        self._arrived: set[str] = set()  # ids of those that are on the disk and not judged yet
        self._unsent: deque[Request] = deque()
        self._topics: dict[str, str | None] = {}  # of prompts in flight, by id
        self._current_step: int | None = None
        self._kept_in_step = self.unproductive_steps = 0
        self._all_scheduled = False  # the schedule has no more prompts
        self._decided_prompts = self._kept_now = 0
        # Responses on disk, and requests sent by this run.
        self.requested_by_language = Counter({name: len(files.responses) for name, files in self._files.items()})
        self._responses = self.requested  # those on disk, for the progress
        self._rejected = sum(len(files.rejected) for files in self._files.values())
        # Of most pipelines, all that a prompt can have; those that go on from the texts, as self-instruct does, need to see them.
        self._texts_of_a_prompt = self._pipeline.texts_per_prompt * self._args.num_return_sequences
        self._needs_texts = type(self._pipeline).judged is not Pipeline.judged
        progress.update(self.kept.total())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for files in self._files.values():
            files.close()

    def needs_responses(self) -> bool:
        """Judge the responses on disk; whether the run then needs more of them (and so a model)."""
        request = self.next_request()
        if request is not None:
            self._unsent.append(request)
        return request is not None

    @property
    def requested(self) -> int:
        return self.requested_by_language.total()

    @property
    def target_reached(self) -> bool:
        return self._target.reached(self.kept)

    @property
    def complete(self) -> bool:
        """Whether the target was reached, or the pipeline has sent all that it sends and none of it has failed. It reads files."""
        ended = self._pipeline.ends and self._all_scheduled and not self._undecided
        return self.target_reached or (ended and not self.failed_prompts())

    def failed_prompts(self) -> int:
        """How many prompts an API has failed to answer: the next run asks them again."""
        if not self._is_remote:
            return 0
        records = (record for files in self._files.values() for record in files.responses.values())
        return sum(bool(record.get("error")) and has_failed(record) for record in records)

    def run(self, sampler, settings: SamplingSettings) -> None:
        """Request, judge and write until the target is reached or MAX_UNPRODUCTIVE_STEPS steps kept nothing.

        Then the responses of an API that are in flight are still written, because they are paid for.
        """
        answers = sampler.generate(self.next_request, settings)
        try:
            for answer in answers:
                self._take(answer)
                if self._finished():
                    break
            else:
                return
            if self._is_remote:
                sampler.finish()
                for answer in answers:
                    self._take(answer)
        finally:
            answers.close()

    def _finished(self) -> bool:
        return self.target_reached or self.unproductive_steps >= MAX_UNPRODUCTIVE_STEPS

    def next_request(self) -> Request | None:
        """The next prompt without a response; None while those in flight may be enough or the pipeline waits for them."""
        if self._unsent:
            return self._unsent.popleft()
        while not self._finished():
            if self._undecided and len(self._undecided) * self._expected() >= self._target.missing(self.kept):
                return None
            if not self._queue:
                step = next(self._steps, None)
                self._all_scheduled = step is None
                self._queue.extend(step or ())
            if not self._queue:  # there are no more, or they wait for texts
                return None
            prompt = self._queue[0]
            if not self._target.wants(self.kept, prompt.language):
                self._pipeline.judged(self._queue.popleft(), [])
                continue
            if prompt.id not in self._files[prompt.language].responses:
                if (built := self._pipeline.build(prompt)) is None:
                    return None
                content, self._topics[prompt.id] = built
                self.requested_by_language[prompt.language] += 1
                self._undecided.append(self._queue.popleft())
                return Request(prompt.id, content, request_seed(self._args.seed, prompt.id))
            self._undecided.append(self._queue.popleft())
            self._arrived.add(prompt.id)
            self._judge()
        return None

    def _expected(self) -> float:
        """Paragraphs that a prompt in flight is likely to bring: as so far, three quarters of its texts at first."""
        prior = 3 * self._pipeline.texts_per_prompt
        return max((self._kept_now + prior) / (self._decided_prompts + 4), 0.01)

    def _take(self, answer: Answer) -> None:
        """Write a response to disk, then judge all whose turn has come."""
        topic = self._topics.pop(answer.id)
        record = {"id": answer.id, **({} if topic is None else {"topic": topic}), **response_record(answer)}
        self._files[answer.id.rsplit("-", 1)[0]].responses.add(record)
        self._responses += 1
        self._arrived.add(answer.id)
        self._judge()

    def _judge(self) -> None:
        """Judge the responses that have arrived, in the order of the prompts, up to the first that has not."""
        while self._undecided and not self._finished():
            prompt = self._undecided[0]
            if self._target.wants(self.kept, prompt.language):
                if prompt.id not in self._arrived:
                    break
                if prompt.step != self._current_step:
                    if self._current_step is not None and not self._kept_in_step:
                        self.unproductive_steps += 1
                    self._current_step, self._kept_in_step = prompt.step, 0
                    continue  # the run may be finished now
                self._arrived.remove(prompt.id)
                self._judge_prompt(prompt)
            else:
                self._arrived.discard(prompt.id)
                self._pipeline.judged(prompt, [])
            self._undecided.popleft()
        self._progress.update(0, responses=self._responses, rejected=self._rejected)

    def _judge_prompt(self, prompt: Prompt) -> None:
        self._decided_prompts += 1
        if self._was_judged(prompt):
            return
        record = self._files[prompt.language].responses.get(prompt.id)
        index, kept = 0, []
        if record.get("error"):
            reason = "prompt_too_long" if "--max_model_len" in record["error"] else "answer_failed"
            self._reject(prompt, f"{prompt.id}.0", reason, record["error"], record)
        reasons = record.get("finish_reasons") or []
        for response, ended_by in zip_longest(record["texts"], reasons[: len(record["texts"])]):
            texts = self._pipeline.parse(response)
            if texts is None:
                reason = "empty" if is_blank(response) else "unparseable"
                self._reject(prompt, f"{prompt.id}.{index}", reason, response, record)
                index += self._pipeline.texts_per_prompt
                continue
            finished, is_cut = len(texts), ended_by == "length"
            if is_cut and (part := self._pipeline.finished_part(response)) is not None:
                finished, is_cut = len(self._pipeline.parse(part) or []), False
            for number, text in enumerate(texts, start=1):
                wanted, truncated = self._target.wants(self.kept, prompt.language), is_cut and number == len(texts)
                if wanted and number > finished:
                    self._reject(prompt, f"{prompt.id}.{index}", "unfinished", text, record)
                elif wanted and self._keeps(prompt, f"{prompt.id}.{index}", text, record, truncated):
                    kept.append(text)
                index += 1
        self._pipeline.judged(prompt, kept)

    def _was_judged(self, prompt: Prompt) -> bool:
        """Whether earlier runs have judged all texts that a response can have; then they count as before, and it is not read."""
        if self._needs_texts:
            return False
        files, wants = self._files[prompt.language], self._target.wants
        ids = [f"{prompt.id}.{index}" for index in range(self._texts_of_a_prompt)]
        if not all(text_id in files.kept or text_id in files.rejected for text_id in ids):
            return False
        for text_id in ids:
            if text_id in files.kept and wants(self.kept, prompt.language):
                self._count_kept(prompt.language)
        return True

    def _keeps(self, prompt: Prompt, text_id: str, text: str, record: dict, truncated: bool) -> bool:
        """Judge one text: write it to the paragraphs or to the rejects, unless an earlier run has."""
        files = self._files[prompt.language]
        if text_id in files.rejected:
            return False
        if text_id not in files.kept:
            reason = reason_against(text_id, text, files.language, self._filters, files.near_duplicates)
            if reason is not None:
                self._reject(prompt, text_id, reason, text, record)
                return False
            files.kept_out.write(Paragraph(text_id, text, record.get("topic"), truncated).to_json())
            files.kept.add(text_id)
            if self._args.verbose:
                self._progress.write(f"[{text_id}] {record.get('topic', prompt.language)}: {text}")
        self._count_kept(prompt.language)
        return True

    def _count_kept(self, language: str) -> None:
        self._progress.update(1)
        self.kept[language] += 1
        self._kept_now += 1
        self._kept_in_step += 1
        self.unproductive_steps = 0

    def _reject(self, prompt: Prompt, text_id: str, reason: str, text: str, record: dict) -> None:
        files = self._files[prompt.language]
        if text_id in files.rejected:
            return
        files.rejected.add(text_id)
        self._rejected += 1
        topic = {key: record[key] for key in ("topic",) if key in record}
        files.rejects_out.write({"id": text_id, "prompt": prompt.id, "reason": reason, "text": text, **topic})
        if self._args.verbose:
            self._progress.write(f"[{text_id}] rejected, {reason}: {text}")
