"""Without the Hub: seconds, not minutes, and one line that lists all that is missing."""

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import datagen
from tests.support.runs import ROOT, TOPICS, in_process
from topxgen.common import hub
from topxgen.common.errors import Unreachable

MISSING = {
    "datagen.py": (
        "--languages Basque --model_name_or_path org/writer --inference_api hf --use_nllb --number_of_instructions 5 "
        f"--number_of_icl_phrases 1 --seed_topics_path {TOPICS} --lid_model org/lid --output_dir out",
        ["org/writer", "google/xquad", "openlanguagedata/flores_plus", "facebook/nllb-200-3.3B", "org/lid", "facebook/blaser"],
    ),
    "main.py": (
        "--model_name_or_path org/one org/two --dataset_name_or_path ood --tgt Basque --k 5 --retriever_type SONAR "
        "--output_dir out --steps 1 --lid_model org/lid --temperature 1 --num_return_sequences 2 --selection_method blaser --blaser_name_or_path org/blaser "
        "--method_divide structural --spacy_model xx_none_sm",
        ["org/one", "org/two", "gmnlp/tico19", "openlanguagedata/flores_plus", "SONAR", "org/lid", "org/blaser", "spacy download xx_none_sm"],
    ),
    "train.py": (
        "--model_name_or_path org/base --dataset_name_or_path flores --target_languages Basque --output_dir out --max_steps 1",
        ["org/base", "openlanguagedata/flores_plus"],
    ),
    "decontamination.py": (
        "--input_dir in --benchmarks flores ntrex xquad",
        ["openlanguagedata/flores_plus", "mteb/NTREX", "google/xquad"],
    ),
    "comptra.evaluate": (
        "in --dataset_name_or_path ood --lid_model org/lid --metrics chrf mt-ranker",
        ["gmnlp/tico19", "org/lid", "ibraheemmoosa/mt-ranker-large"],
    ),
    "scripts/merge_lora.py": ("org/adapter out --base_model_name_or_path org/base", ["org/adapter", "org/base"]),
    "scripts/run.py": ("run.yaml", ["openlanguagedata/flores_plus", "org/base", "org/lid"]),
}  # fmt: skip


RUN = """output_dir: out
decontamination: {input_dir: in, benchmarks: [flores]}
train: {model_name_or_path: org/base, dataset_name_or_path: topxgen, data_dir: in, target_languages: [Basque], max_steps: 1, output_dir: out/train}
evaluate: {dirs: out, lid_model: org/lid}
"""
HUBS = [*itertools.product(MISSING, ["refuses", "offline"]), ("main.py", "never answers"), ("main.py", "stalls")]


class Stalls(BaseHTTPRequestHandler):
    """Answers HEAD, as some proxies do, and no other request."""

    def log_message(self, *_) -> None: ...

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        time.sleep(30)


@pytest.mark.parametrize(
    ("name", "hub"),
    # Two import torch first; timeouts take seconds.
    [
        pytest.param(*both, marks=pytest.mark.medium)
        if both[0] in ("datagen.py", "train.py") or both[1] in ("never answers", "stalls")
        else both
        for both in HUBS
    ],
)
def test_all_that_is_missing_is_listed_in_seconds(tmp_path, name, hub):
    offline = hub == "offline"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Basque_translate.jsonl").write_text(
        '{"sentence": "a", "propositions": [], "translations": []}\n'
    )
    (tmp_path / "run.yaml").write_text(RUN)
    flags, missing = MISSING[name]
    with socket.socket() as taken:  # bound, but nobody listens: connections are refused
        taken.bind(("127.0.0.1", 0))
        if hub == "never answers":  # the kernel accepts connections, as behind a firewall that drops what follows
            taken.listen(64)
        if hub == "stalls":
            server = ThreadingHTTPServer(("127.0.0.1", 0), Stalls)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port if hub == "stalls" else taken.getsockname()[1]
        hub_env = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": str(int(offline))}
        env = os.environ | hub_env | {"HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
        began = time.monotonic()
        words = [word.replace(TOPICS, str(ROOT / TOPICS)) for word in flags.split()]
        command = [sys.executable, *([ROOT / name] if name.endswith(".py") else ["-m", name]), *words]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    # Two tries of 5 s, and the start on a busy machine; the Hub's clients would take minutes.
    assert time.monotonic() - began < 120
    *before, error = result.stderr.splitlines()
    assert len(before) <= 1 and "Retrying" not in result.stderr and "Traceback" not in result.stderr
    assert ("cannot be reached" in before[0]) if before else offline
    assert f"{name.rpartition('/')[2]}: error: without the Hub" in error and "hf download" in error
    assert [part for part in missing if part not in error] == []


def test_mistakes_in_flags_come_before_what_the_hub_lacks(tmp_path):
    words = "main.py --model_name_or_path org/one --dataset_name_or_path flores --tgt Basque --steps 1 --number_of_subproblems 0"
    result = in_process(*words.split(), "--output_dir", tmp_path / "out")
    assert result.returncode == 2 and "--number_of_subproblems 0: pass a number" in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [("models/gema", "model models/gema (did you mean models/gemma?)."), ("elsewhere/gemma", "model elsewhere/gemma.")],
)
def test_a_misspelt_folder_is_not_only_a_missing_download(tmp_path, monkeypatch, name, hint):
    (tmp_path / "models" / "gemma").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    words = f"--model_name_or_path {name} --dataset_name_or_path udhr --tgt Basque --k 0 --output_dir out"
    result = in_process("main.py", *words.split())
    assert result.returncode == 2 and hint in result.stderr, result.stderr


def test_a_file_as_the_name_of_a_test_set_is_answered_with_the_flag_for_files(tmp_path):
    (tmp_path / "own.tsv").write_text("English\tBasque\nHello.\tKaixo.\n")
    words = f"main.py --model_name_or_path org/one --dataset_name_or_path {tmp_path}/own.tsv --tgt Basque --output_dir"
    result = in_process(*words.split(), tmp_path / "out")
    assert result.returncode == 2 and "--dataset_name_or_path files --test_files SOURCES" in result.stderr, (
        result.stderr
    )


def test_models_of_scores_are_optional(tmp_path, monkeypatch):
    """Unless they choose among candidates, too."""
    flags = [
        "--model_name_or_path",
        "m",
        "--languages",
        "Basque",
        "--output_dir",
        str(tmp_path),
        "--back_translator",
        "apertium",
    ]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for judge in ("blaser", "metricx-qe"):
        for more, end in (([], ", or --scorer none"), (["--number_of_candidates", "2", "--select_by", judge], "")):
            args = datagen.build_parser().parse_args(
                [*flags, "--stages", "translate", "score", "--scorer", judge, *more]
            )
            with pytest.raises(Unreachable, match=f"Or pass folders{end}$"):
                hub.require(datagen.needs(args))
