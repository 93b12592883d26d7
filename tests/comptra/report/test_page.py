"""scripts/report.py: the file that it writes. What a browser makes of it: test_page_in_browser.py."""

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from comptra import report
from comptra.report import SECTIONS, Options, packing, page
from comptra.report.sources import watching
from tests.support.runs import ROOT, in_process
from topxgen.common.errors import UsageError
from topxgen.runs.folders import find

make_page = partial(in_process, "scripts.report")
# Each ends or begins something in HTML, JavaScript, JSON or the order of characters.
HOSTILE = {
    "script": "<script>document.title = 'run'</script>",
    "end of script": "</script><img src=x onerror=\"document.title='run'\">",
    "comment": "<!-- <script> --!> ]]>",
    "bidi": "abc \u202edcba\u202c \u2066x",
    "separators": "a\u2028b\u2029c\u0085d",
    "quotes": "\"'`&amp;<b>${1}{{data}}",
    "null": "a\u0000b\u0007",
    "long": "<b>" * 33_000,
}


def trained(folder: Path, **manifest) -> Path:
    """A folder of train.py, as far as this page reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {
        "stage": "train",
        "complete": True,
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:05+00:00",
    }
    (folder / "manifest_train.json").write_text(json.dumps(entry | manifest), encoding="utf-8")
    return folder


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A run whose texts, keys and folders are hostile."""
    trained(
        tmp_path / "run" / "<img src=x onerror=alert(1)>", command=["train.py", *HOSTILE.values()], settings=HOSTILE
    )
    (tmp_path / "run" / "manifest_generate.json").write_text('{"lone": "x\\ud800y"}', encoding="utf-8")
    return tmp_path / "run"


def test_hostile_texts_are_data_and_come_back_as_they_were(hostile, tmp_path):
    result = make_page(hostile, "-o", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    # Each script element ends where it should, and nothing of the run is outside of the packed data.
    elements = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.S)
    assert text.count("</script") == len(elements)
    assert all(re.fullmatch(r"[A-Za-z0-9+/=]+", body) for attributes, body in elements if "gzip;base64" in attributes)
    assert "<img" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    steps = packing.read(tmp_path / "page.html", "provenance")["steps"]
    settings = next(step["settings"] for step in steps if step["stage"] == "train")
    assert {key: value for key, value in settings.items() if key != "long"} == {
        k: v for k, v in HOSTILE.items() if k != "long"
    }
    assert settings["long"].startswith(HOSTILE["long"][:4000]) and settings["long"].endswith("95,000 characters more")


DAMAGED = {"torn": gzip.compress(b"{}")[:10] + b"\xff" * 20, "nested": gzip.compress(b"[" * 100_000), "no gzip": b"x"}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_data_of_a_page(hostile, tmp_path, data):
    path = tmp_path / "page.html"
    make_page(hostile, "-o", path)
    found = re.compile(rb'(id="data-provenance">)[^<]*')
    path.write_bytes(found.sub(lambda match: match[1] + base64.b64encode(data), path.read_bytes()))
    with pytest.raises(UsageError, match="its data provenance are damaged"):
        packing.read(path, "provenance")


def test_notices_and_names_are_escaped(tmp_path):
    options = Options()
    for text in HOSTILE.values():
        options.notice("problem", text)
        options.headline(text, text, "javascript:alert(1)")
    root = tmp_path / "<title><b>&\u202e\udcff"
    root.mkdir()
    with watching(tmp_path) as sources:
        pieces = page.build(find(root), sources, options, 5_000_000, ["report.py"])
    text = "".join(pieces)
    outside = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    assert "<img" not in outside and "<!--" not in outside and "<b>$" not in outside and "javascript:" not in outside
    assert text.count("<title>") == 1 and text.encode()
    assert not set("\u202e\u2028\u2066\u0000\u0007") & set(outside) and r"\u202e" in outside


def test_many_notices_are_folded_and_none_is_lost(tmp_path):
    trained(tmp_path)
    options = Options()
    for i in range(12):
        options.notice("problem", f"{tmp_path}/file-{i} is damaged", "provenance")
    for i in range(page.MAX_OPEN_NOTICES + 1):
        options.notice("info", f"note {i}", "provenance")
    with watching(tmp_path) as sources:
        text = "".join(page.build(find(tmp_path), sources, options, 5_000_000, []))
    [notices] = re.findall(r'<h2 id="title-provenance">.*?<ul class="notices">(.*?)<div class="body"', text, re.S)
    before, _, folded = notices.partition("<details><summary>8 more of this kind</summary>")
    assert re.findall(r"file-(\d+) is", before) == ["0", "1", "2", "3"] and str(tmp_path) not in notices
    assert re.findall(r"file-(\d+) is", folded) == [str(i) for i in range(4, 12)]
    assert folded.count("note ") == page.MAX_OPEN_NOTICES + 1 and notices.count("<details>") == 1


def test_only_the_scripts_of_the_page_may_run(tmp_path):
    """The policy names exactly the script and libraries that the page holds, and allows no request."""
    sections = {"provenance": replace(SECTIONS["provenance"], libraries=("plot", "tabulator"))}
    trained(tmp_path)
    with watching(tmp_path) as sources:
        text = "".join(page.build(find(tmp_path), sources, Options(), 5_000_000, [], sections))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    packed = re.findall(r'<script type="application/gzip;base64" id="library-[^"]*">(.*?)</script>', text)
    assert len(scripts) == 1 and len(packed) == 3
    import gzip

    bodies = [scripts[0].encode(), *(gzip.decompress(base64.b64decode(body)) for body in packed)]
    hashes = {"'sha256-" + base64.b64encode(hashlib.sha256(body).digest()).decode() + "'" for body in bodies}
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert set(parts["script-src"].split()) == hashes
    assert parts["default-src"] == parts["font-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
    assert "connect-src" not in parts and parts["img-src"] == "data:"
    assert not re.search(
        r"<(link|iframe|img|object|embed|base|form)\b", re.sub(r"<script.*?</script>", "", text, flags=re.S)
    )


def test_vendored_libraries_are_those_that_the_table_lists():
    folder = ROOT / "comptra" / "report" / "vendor"
    rows = re.findall(
        r"^\| `([^`]+)` \|.*\[text\]\(([^)]+)\).*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M
    )
    assert {name for name, *_ in rows} == {path.name for path in folder.iterdir() if path.suffix in (".js", ".css")}
    for name, licence, sha256 in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256 and (folder / licence).is_file()
    assert {file for files in report.LIBRARIES.values() for file in files} <= {name for name, *_ in rows}


def test_the_files_that_were_read_are_listed_with_their_digests(tmp_path):
    trained(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("not read")
    assert make_page(tmp_path / "run", "-o", tmp_path / "page.html").returncode == 0
    meta = packing.read(tmp_path / "page.html", "page")
    manifest = tmp_path / "run" / "manifest_train.json"
    listed = {file["path"]: file for file in meta["sources"]}
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert listed["manifest_train.json"] == {
        "path": "manifest_train.json",
        "size": manifest.stat().st_size,
        "sha256": sha256,
    }
    assert "notes.txt" not in listed and meta["command"][0] == "scripts.report"


def test_files_that_change_or_vanish_while_they_are_read_have_no_digest(tmp_path):
    for name in ("grows", "goes", "stays", "overwritten"):
        (tmp_path / name).write_text("a")
    with watching(tmp_path) as sources:
        for name in ("grows", "goes", "stays"):
            (tmp_path / name).read_text()
        with open(tmp_path / "grows", "a") as file:
            file.write("b")
        (tmp_path / "goes").unlink()
        for name in ("written", "overwritten"):
            (tmp_path / name).write_text("of ours")
    (tmp_path / "stays").read_text()
    listing = {file["path"]: file for file in sources.listing()}
    assert set(listing) == {"grows", "goes", "stays"}
    assert listing["grows"]["changed"] and listing["goes"]["changed"] and listing["grows"]["sha256"] is None
    assert listing["stays"]["sha256"] == hashlib.sha256(b"a").hexdigest()


def test_a_file_that_may_not_be_read_is_a_problem_and_not_listed(tmp_path, monkeypatch):
    """As root may read everything, `os.access` says what it would say to others."""
    path = tmp_path / "scores.json"
    path.write_text("{}")
    monkeypatch.setattr(os, "access", lambda name, mode: Path(name) != path)
    with watching(tmp_path) as sources:
        path.read_bytes()
    assert sources.listing() == []


def test_a_section_that_cannot_be_made_is_named_and_the_others_are_there(tmp_path, monkeypatch):
    """A folder that becomes a file between looking and reading."""
    trained(tmp_path / "run")

    def collect(run, options):
        raise OSError(5, "Input/output error", "<pairs>")

    monkeypatch.setattr("comptra.report.sections.provenance.broken", collect, raising=False)
    rows = {"pairs": replace(SECTIONS["provenance"], target="comptra.report.sections.provenance:broken", title="Pairs")}
    monkeypatch.setattr(page.build, "__defaults__", (SECTIONS | rows, None))
    result = make_page(tmp_path / "run", "-o", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert result.returncode == 3 and "pairs: this section could not be made: [Errno 5]" in result.stderr
    assert (
        '<section id="pairs"' in text
        and "could not be made: [Errno 5] Input/output error: &#x27;&lt;pairs&gt;&#x27;" in text
    )
    assert packing.read(tmp_path / "page.html", "provenance")["steps"]


def test_a_large_section_gets_what_the_others_leave(tmp_path, monkeypatch):
    trained(tmp_path)
    given = []

    def collect(run, options):
        given.append(options.max_bytes)
        return {
            "text": hashlib.shake_256(b"noise").hexdigest(options.max_bytes)
        }  # 2 characters of 4 bits for each byte

    monkeypatch.setattr("comptra.report.sections.provenance.large", collect, raising=False)
    large = replace(SECTIONS["provenance"], target="comptra.report.sections.provenance:large", is_large=True)
    with watching(tmp_path) as sources:
        pieces = page.build(find(tmp_path), sources, Options(), 1_000_000, [], {"provenance": large})
    size = len("".join(pieces).encode())
    assert 600_000 < given[0] < 740_000
    assert (
        0 < packing.packed_size(packing.size_of({"text": hashlib.shake_256(b"noise").hexdigest(given[0])})) < 1_200_000
    )
    assert size > 900_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing",), "missing does not exist; pass the output directory of a run, or its run file"),
        (("file.txt",), "file.txt is neither a directory nor a run file"),
        (("run.yaml",), "outputs/none, the output_dir of run.yaml, does not exist: run it first"),
        (("bare.yaml",), "bare.yaml needs output_dir at the top"),
        (("run", "-o", "run"), "is a directory; pass the name of a file"),
        (("run", "-o", "none/page.html"), "there is no directory none"),
        (("run", "-o", "file.txt"), "file.txt exists and is not a page of a run"),
        (("run", "-o", "pipe"), "pipe is a device or a pipe"),
        (("run", "--max_mb", "0"), "not a number from 1 to 2000"),
        (("run", "--benchmark_dir", "none"), "--benchmark_dir none is not a folder"),
    ],
)
def test_mistakes_end_in_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run.yaml").write_text("output_dir: outputs/none\ntrain: {}\n")
    (tmp_path / "bare.yaml").write_text("train: {}\n")
    result = make_page(*words, *([] if "-o" in words else ["-o", "page.html"]))
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
    assert (tmp_path / "file.txt").read_text() == "x" and (tmp_path / "pipe").is_fifo()


def test_a_run_file_stands_for_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "out" / "train")
    (tmp_path / "run.yaml").write_text("output_dir: out\ntrain: {}\n")
    assert make_page("run.yaml", "-o", "page.html").returncode == 0
    assert packing.read(tmp_path / "page.html", "page")["root"] == "out"


def test_a_run_file_brings_folders_of_stages_that_are_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "out" / "train")
    trained(tmp_path / "elsewhere")
    (tmp_path / "run.yaml").write_text(
        "output_dir: out\ntrain: {output_dir: ../" + tmp_path.name + "/elsewhere}\nmain: {output_dir: none}\n"
    )
    result = make_page("run.yaml", "-o", "page.html")
    assert result.returncode == 0, result.stderr
    folders = {step["folder"] for step in packing.read(tmp_path / "page.html", "provenance")["steps"]}
    assert folders == {"train", f"../{tmp_path.name}/elsewhere"}
    paths = {file["path"] for file in packing.read(tmp_path / "page.html", "page")["sources"]}
    assert paths == {"train/manifest_train.json", str(tmp_path / "elsewhere" / "manifest_train.json")}


def test_an_empty_folder_is_a_page_that_says_so(tmp_path):
    (tmp_path / "run").mkdir()
    assert make_page(tmp_path / "run", "-o", tmp_path / "page.html").returncode == 0
    assert "Nothing in this folder is of a run." in (tmp_path / "page.html").read_text()


def test_a_copy_of_a_run_within_it_is_said_to_count_twice(tmp_path):
    line = json.dumps({"sentence": "Kaixo.", "propositions": ["Kaixo."], "translations": ["Hello."]}) + "\n"
    for name in ("nllb", "backup/nllb", "other"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "Basque_translate.jsonl").write_text(line * (2 if name == "other" else 1))
    shutil.copy(tmp_path / "run/nllb/Basque_translate.jsonl", tmp_path / "run/nllb/Basque_translate_filtered.jsonl")
    assert make_page(tmp_path / "run", "-o", tmp_path / "page.html").returncode == 0
    said = re.findall(r"<span>([^<]* is a copy of [^<]*)</span>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert said == [
        "nllb/Basque_translate.jsonl is a copy of backup/nllb/Basque_translate.jsonl: its pairs are counted twice"
    ]


def test_the_size_of_packed_data_is_known_before():
    assert [packing.packed_size(n) for n in range(10)] == [len(packing.packed(bytes(n))) for n in range(10)]
