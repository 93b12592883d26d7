"""Where the attacks take place: a folder of inputs, a stub of an OpenAI server, forks that run the scripts, and what is
checked after each run."""

import base64
import gzip
import hashlib
import json
import os
import random
import re
import select
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.api_server import ApiServer
from tests.support.runs import ROOT
from tests.support.tiny_models import udhr_pairs

KEY = "sk-attack-51f0c7d2e94b8a36"
CODES = (0, 1, 2, 3, 4, 130, 141, 143)  # those of docs/files.md; 1 is of CHECKERS alone
CHECKERS = ("scripts/verify.py", "scripts/doctor.py")
TIMEOUT_S = 120.0
# What a run adds to its folder that is no result.
NO_RESULTS = re.compile(
    r"(^|/)(rates\.json(\.partial)?|unusable-checkpoint-\d+/.*|checkpoint_files\.json|\.lock\S*|run/[^/]+\.json|engine\.log|[^/]*\.torn|SHA256SUMS|nowhere)$"
)
# Fields that differ between two runs of the same command.
_TIMES = re.compile(
    "started|finished|command|versions|modified_ns|.*_per_second|.*_runtime"
    # how many answers are in flight at the end depends on timing
    "|prompts_asked|prompts|answers|not_needed|(prompt|completion|cached)_tokens"
)


class Stub(ApiServer):
    """An OpenAI server: the answer to a prompt is always the same. `hostile` gives another body and header fields."""

    def __init__(self):
        super().__init__(delay=0.0, key=None)
        pairs = udhr_pairs("Basque")
        self.basque, self.english = ([texts[i] for texts in pairs if len(texts[i]) > 40] for i in (0, 1))
        self.hostile = None

    async def _reply(self, writer, path, body, headers, name, attempt) -> bool:
        answer = shaped(path, self.answer(body))
        whole, fields = self.hostile(answer) if self.hostile else (json.dumps(answer).encode(), {})
        await self._send(writer, 200, whole, fields)
        self.delivered[name] += 1
        return True

    def answer(self, body: dict) -> dict:
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        rng = random.Random(hashlib.sha256(prompt.encode()).hexdigest())
        if "numbered list of exactly" in prompt:
            text = "\n".join(f"{i}. " + " ".join(rng.sample(self.basque, 2)) for i in (1, 2))
        elif "numbered list of 20 passages" in prompt:
            words = " ".join(self.basque).lower().split()
            text = "\n\n##\n\n".join(f"{i}. {' '.join(rng.sample(words, 12)).capitalize()}." for i in (3, 4, 5))
        elif "self-contained" in prompt:
            words = prompt.rpartition("Sentence: ")[2].partition("\n")[0].split()
            half = max(1, len(words) // 2)
            text = f"1. {' '.join(words[:half])}\n2. {' '.join(words[half:]) or words[0]}"
        else:
            languages = re.findall(r"\b(?:into|to|in) (Basque|English)", prompt)
            texts = self.basque if languages[-1:] == ["Basque"] else self.english
            text = rng.choice(texts).rstrip(".;,") + "."
        choices = []
        for i in range(body.get("n") or 1):
            if i:
                text = rng.choice(self.english).rstrip(".;,") + "."
            said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
            choices.append({"index": i, "finish_reason": "stop", **said})
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        return {
            "id": "x", "object": "o", "created": 1, "model": body["model"], "choices": choices, "usage": usage,
        }  # fmt: skip


def shaped(path: str, answer: dict) -> dict:
    """An answer of OpenAI's API as the API of that path gives it."""
    if path not in ("/v2/chat", "/v1/messages"):
        return answer
    content = [{"type": "text", "text": answer["choices"][0]["message"]["content"]}]
    tokens = {"input_tokens": 100, "output_tokens": 50}
    if path == "/v2/chat":
        message = {"role": "assistant", "content": content}
        return {"id": "x", "finish_reason": "COMPLETE", "message": message, "usage": {"tokens": tokens}}
    whole = {"id": "x", "type": "message", "role": "assistant", "model": "stub-1", "content": content}
    return {**whole, "stop_reason": "end_turn", "usage": tokens}


@dataclass
class Outcome:
    """What a run did, and what is wrong with that."""

    arguments: list[str]
    folder: Path
    code: int | None  # negative: the signal that ended it; None: it hung
    out: str
    err: str
    seconds: float
    seen: list = field(default_factory=list)  # file operations (operation, path)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        end = "\n".join(self.err.rstrip().split("\n")[-3:])[-800:]
        return (
            f"{'; '.join(self.problems)} (exit {self.code})\n  in {self.folder}: {shlex.join(self.arguments)}\n  {end}"
        )


class Range:
    """Runs scripts in folders of its own; `modules`: the folder of scripts that are not ours. Call `close` at the end."""

    def __init__(self, folder: Path, heavy: bool = False, modules: Path | None = None):
        self.folder, self.count = folder, 0
        self.stub = Stub().__enter__()
        self.url = self.stub.url("openai")
        imports = ["--modules", str(modules)] if modules else ["--heavy" if heavy else "--light"]
        command = [sys.executable, str(ROOT / "tests/attack/child.py"), "--serve", *imports]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(folder / "scratch/home"),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "server.log", "w") as log:
            self._children = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._is_ready = False

    def close(self) -> None:
        self._children.stdin.close()
        self._children.kill()
        self._children.wait()
        self._children.stdout.close()
        self.stub.__exit__()

    def _answer(self, seconds: float) -> str:
        ready, _, _ = select.select([self._children.stdout], [], [], seconds)
        line = self._children.stdout.readline() if ready else ""
        assert line, f"the server of forks is gone; see {self.folder}/server.log"
        return line

    def new_folder(self, source: Path) -> Path:
        """A copy of a prepared folder."""
        self.count += 1
        folder = self.folder / f"{source.name}-{self.count}"
        copy_tree(source, folder)
        return folder

    def folders_since(self, count: int) -> list[Path]:
        return [path for number in range(count + 1, self.count + 1) for path in self.folder.glob(f"*-{number}")]

    def run(self, folder: Path, arguments, fault=None, timeout=TIMEOUT_S, kill_after=None, expect=CODES) -> Outcome:
        """Run a script in `folder`; `fault` is {"at": N, "action": NAME}, `expect` the exit codes that are right."""
        return self.run_at_once(folder, [arguments], fault, timeout, kill_after, expect)[0]

    def run_at_once(
        self, folder, commands, fault=None, timeout=TIMEOUT_S, kill_after=None, expect=CODES, delay=0.0
    ) -> list[Outcome]:
        """The same for several scripts at once, each `delay` seconds after the one before it. The first suffers the fault, or the kill."""
        if not self._is_ready:
            assert self._answer(600).strip() == "ready"
            self._is_ready = True
        root = self.stub.url("cohere")  # of the other APIs
        scratch = self.folder / "scratch"
        for name in ("tmp", "home"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
        jobs = []
        for i, words in enumerate(commands):
            files = {name: scratch / f"{name}-{i}" for name in ("out", "err", "record")}
            for path in files.values():  # a stage that a killed run left running goes on writing to its own
                path.unlink(missing_ok=True)
            for name in ("out", "err"):
                files[name].touch()
            jobs.append(
                {
                    **{name: str(path) for name, path in files.items()},
                    "arguments": [str(word).replace("{url}", self.url).replace("{root}", root) for word in words],
                    "cwd": str(folder),
                    "fault": {"root": str(folder), "scratch": str(scratch), **((fault or {}) if i == 0 else {})},
                    "timeout": timeout,
                    "delay": i * delay,
                    "kill_after": kill_after if i == 0 else None,
                    "environment": {**dict.fromkeys(("OPENAI_API_KEY", "CO_API_KEY", "ANTHROPIC_API_KEY"), KEY), "TMPDIR": str(scratch / "tmp"), "HOME": str(scratch / "home")},
                }
            )  # fmt: skip
        print(json.dumps(jobs), file=self._children.stdin, flush=True)
        results = json.loads(self._answer(timeout + 60))
        return [self._outcome(folder, job, result, expect) for job, result in zip(jobs, results, strict=True)]

    def _outcome(self, folder: Path, job: dict, result: dict, expect) -> Outcome:
        out, err = (Path(job[name]).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        recorded = Path(job["record"])
        record = json.loads(recorded.read_text()) if recorded.exists() else {}
        outcome = Outcome(job["arguments"], folder, result["code"], out, err, result["seconds"], record.get("seen", []))
        outcome.problems = list(self._problems(outcome, expect))
        outcome.problems += ["processes are left"] * (result["left"] and outcome.code is not None and outcome.code >= 0)
        outcome.problems += [f"writes outside: {what}" for what in record.get("outside", [])[:1]]
        return outcome

    @staticmethod
    def _problems(outcome: Outcome, expect):
        if outcome.code is None:
            yield "hang"
            return
        if "Traceback (most recent call last)" in outcome.err + outcome.out or "Exception ignored" in outcome.err:
            yield "traceback"
        elif outcome.code not in expect or (outcome.code == 1 and outcome.arguments[0] not in CHECKERS):
            yield f"unexpected exit {outcome.code}"
        elif outcome.code in (2, 4):
            errors = [line for line in outcome.err.split("\n") if ": error: " in line]
            last = outcome.err.rstrip("\n").split("\n")[-1]
            if len(errors) != 1 or errors[0] != last or len(last) > 9000:
                yield "no single line that says what is wrong"
        if KEY in outcome.out + outcome.err:
            yield "the API key is printed"
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]", outcome.out + outcome.err.replace("\r", "")):
            yield "control characters reach the terminal"


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with all that is in it: links, FIFOs, device files."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by path, without what Python keeps of a program that it has imported."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.parent.name != "__pycache__"
    }


def results(folder: Path) -> dict[str, str]:
    """The texts of all results below a folder by path, without what differs from run to run."""
    found = {}
    # A file that a run leaves as it is names the folder that this one is a copy of.
    place = re.compile(re.escape(str(folder.parent.parent)) + r"/[\w-]+")
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or NO_RESULTS.search(name):
            continue
        text = path.read_bytes().decode("utf-8", "backslashreplace")
        text = place.sub("", unpacked(text) if path.name == "report.html" else text)
        if path.name == "report.html":
            text = "\n".join(map(_without_times, text.split("\n")))
        elif path.suffix == ".json":
            text = _without_times(text)
        elif path.name == "train_log.jsonl":
            text = "\n".join(map(_without_times, text.split("\n")))
        found[name] = text
    return found


def unpacked(page: str) -> str:
    """A page of scripts/report.py, without the time when it was made, and with its data as JSON on lines of their own."""
    return re.sub(
        r'(?<=;base64" id="data-)(\w+">)([^<]*)',
        lambda match: f"{match[1]}\n{gzip.decompress(base64.b64decode(match[2])).decode()}\n",
        re.sub(r'<p class="made">Made \S+', "", page),
    )


def _without_times(text: str) -> str:
    def without(pairs: list[tuple]) -> dict:
        return {key: value for key, value in pairs if not _TIMES.fullmatch(key)}

    try:
        return json.dumps(json.loads(text, object_pairs_hook=without), ensure_ascii=False, sort_keys=True)
    except (ValueError, RecursionError):
        return text


def differences(whole: dict[str, str], other: dict[str, str]) -> list[str]:
    """How `other` results differ from those of an undisturbed run."""
    whole, other = _of_same_answers(whole, other)
    return [
        f"{name} {_difference(whole.get(name), other.get(name))}"
        for name in sorted(whole.keys() | other.keys())
        if whole.get(name) != other.get(name)
    ]


def _of_same_answers(whole: dict[str, str], other: dict[str, str]) -> list[dict[str, str]]:
    """Both with only the answers that both have, sorted: how many are in flight at the end depends on timing."""
    both = [dict(whole), dict(other)]
    for name in whole.keys() & other.keys():
        if name.endswith("answers.jsonl"):
            # One that failed stays before the one that came later.
            lines = [
                [line for line in files[name].strip("\n").split("\n") if '"error": ' not in line] for files in both
            ]
            for files, own in zip(both, lines, strict=True):
                ids = Counter(line.partition(",")[0] for line in own)
                doubled = [line for line, count in ids.items() if count > 1]
                files[name] = "\n".join([*sorted(set(lines[0]) & set(lines[1])), *doubled])
    return both


def _difference(whole: str | None, other: str | None) -> str:
    if whole is None or other is None:
        return "is missing" if other is None else "is left behind"
    same = next((i for i, (a, b) in enumerate(zip(whole, other, strict=False)) if a != b), min(len(whole), len(other)))
    start = max(0, same - 40)
    return f"is different: {other[start : start + 80]!r} for {whole[start : start + 80]!r}"
