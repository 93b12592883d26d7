"""README.md and docs/: every command parses or runs, every path and flag exists, every message is one of the code's."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from comptra.scores import original_flags
from tests.support.documentation import (
    ALL_COMMANDS,
    DOCS,
    FOREIGN,
    PAGES,
    PARSERS,
    WRAPPERS,
    WRAPPERS_WITHOUT_FLAGS,
    fences,
    flags_of,
    make_workplace,
    parser_of,
    script_and_arguments,
    without_fences,
    words_of,
)
from tests.support.runs import ROOT, in_process

MAX_README_LINES, MAX_PROSE_COLUMNS = 150, 120


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS)
def test_every_command_is_one_that_its_script_accepts(page, command, capsys):
    words = words_of(command)
    ours = script_and_arguments(words)
    if ours is None:
        assert any(tuple(words[: len(prefix)]) == prefix for prefix in FOREIGN), f"{page}: {command}"
        for path in (word for word in words if word.startswith(("tests/", "requirements"))):
            assert (ROOT / path).exists(), f"{page}: {path}"
        return
    script, arguments = ours
    if script in WRAPPERS:
        assert (ROOT / script).is_file()
        for variable in re.findall(r"(?<!\S)([A-Z_]+)=", command.partition(script)[0]):
            assert variable in (ROOT / "scripts" / "train.sh").read_text() + (ROOT / "scripts" / "eval.sh").read_text()
        for flag in (word for word in arguments if word.startswith("--")):
            assert flag in flags_of(WRAPPERS[script]) | FLAGS_OF_THE_ORIGINAL, f"{page}: {script} has no {flag}"
    elif script in PARSERS:
        try:
            parser_of(script).parse_args(arguments)
        except SystemExit as end:
            assert end.code == 0, f"{page}: {command}: {capsys.readouterr().err}"
    elif script in WRAPPERS_WITHOUT_FLAGS:
        assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
    else:
        assert (ROOT / script).is_file(), f"{page}: {script} does not exist"
        for flag in (word for word in arguments if word.startswith("--")):
            assert flag in flags_of(script), f"{page}: {script} has no {flag}"


# Commands that need neither a GPU nor the Hub are run, in a folder of their own.


def needs_neither_gpu_nor_hub(command: str) -> bool:
    script, arguments = script_and_arguments(words_of(command)) or ("", [])
    embedded = "udhr" in arguments or "outputs/demo/translations" in arguments
    return script in PARSERS and embedded and not any(word.startswith(("http", "ftp")) for word in arguments)


# Those of extending.md need the files that it shows: tests/test_extending.py.
RUN = [
    (page, command) for page, command in ALL_COMMANDS if page != "extending.md" and needs_neither_gpu_nor_hub(command)
]
PLAN_ONLY = ("datagen.py", "train.py", "main.py")  # run with --dry_run: the model is a tiny one


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_lm) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    make_workplace(folder, tiny_lm)
    return folder


@pytest.mark.parametrize(("page", "command"), RUN)
def test_commands_on_embedded_data_run(page, command, workplace, monkeypatch):
    script, words = script_and_arguments(words_of(command))
    if script in PLAN_ONLY:
        words = [
            word if word != "vllm" else "hf"
            for word in words
            if word != "outputs/demo/train-udhr" or script == "train.py"
        ]
        words += [] if "--dry_run" in words else ["--dry_run"]
        words += ["--enable_lora", "false"] if "--lora_rank" in words else []  # the adapter is left out
    if script == "comptra.evaluate":  # translations of the original code, which do not say what they translate
        words += ["--dataset_name_or_path", "udhr"]
    monkeypatch.chdir(workplace)
    result = in_process(script, *words)
    assert result.returncode == 0, f"{page}: {command}\n{result.stdout}\n{result.stderr}"


def test_most_kinds_of_commands_are_among_those_that_run():
    scripts = {script_and_arguments(words_of(command))[0] for _, command in RUN}
    assert scripts >= {"datagen.py", "decontamination.py", "train.py", "main.py", "comptra.evaluate"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page):
    for block in fences(page, "python"):
        ast.parse(block)
        if "import" in block.split("\n")[0] and "get_template" in block:
            exec(compile(block, page.name, "exec"), {})


# Form


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES
    prose = without_fences(ROOT / "README.md").splitlines()
    assert [line for line in prose if len(line) > MAX_PROSE_COLUMNS and not line.startswith("|")] == []
    measured = [line for line in prose if re.search(r"\b\d+(\.\d+)? (tokens/s|pairs/s|s on|GiB|times as fast)", line)]
    assert not measured, "measurements belong in docs/results.md"


def test_readme_has_one_block_of_demo_output():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- demo output -->") == 1
    assert re.search(r"<!-- demo output -->\n```text\n.+?\n```\n", text, re.S)


def test_readme_links_every_page_of_docs():
    links = re.findall(r"\]\((docs/[\w.-]+\.md)[#\w-]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {f"docs/{page.name}" for page in DOCS} <= set(links)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", without_fences(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if fragment:
            headings = re.findall(r"^#+ (.+)$", without_fences(target), re.M)
            assert fragment in map(anchor, headings), f"{page.name}: {link}"


# Paths and flags in the text

# Where runs put files, and files of users: not in the repository.
NOT_OURS = ("outputs/", "models/", "checkpoint-", "original/", "data/wiki/", "dev/", "flores200_dataset/", "NTREX-128/")
NOT_OURS += ("tico19-testset/", "xquad/", ".venv", "~", "/", "org/", "google/", "meta-llama/", "facebook/", "http")
NOT_OURS += (
    "Unbabel/",
    "McGill-NLP/",
    "masakhane/",
    "microsoft/",
    "cointegrated/",
    "dir/",
    "mine/",
    "cis-lmu/",
    "my/",
    "divide/",
    "merge/",
    "Hausa/",
    "shards/",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_text_exist(page):
    for path in re.findall(r"`([\w.*{}][\w.*{},-]*/[\w./*{},-]*)`", without_fences(page)):
        if path.startswith(NOT_OURS) or "{" in path.split("/")[0] or "{translate_dir}" in path or "{run}" in path:
            continue
        assert list(ROOT.glob(path.rstrip("/"))), f"{page.name}: {path}"


# Flags of other programs that our pages mention.
FOREIGN_FLAGS = {
    "--requeue",
    "--dependency",
    "--gres",
    "--time",
    "--nodes",
    "--account",
    "--partition",
    "--wrap",
    "--array",
    "--config_file",
    "--constraint",
    "--me",  # of squeue
}
FOREIGN_FLAGS |= {"--num_processes", "--repo-type", "--port", "--no-deps", "--enable-lora", "--lora-modules"}
FOREIGN_FLAGS |= {"--no-build-isolation", "--machine_rank", "--include"}
FOREIGN_FLAGS |= {"--comet", "--browser"}  # of setup.sh
FOREIGN_FLAGS |= {"--extra"}  # of uv
FOREIGN_FLAGS |= {"--text", "--x", "--y", "--neighbors"}  # of embedding-atlas
# What comptra.evaluate puts into flags of its own.
FLAGS_OF_THE_ORIGINAL = {flag for action in original_flags._parser()._actions for flag in action.option_strings}
FOREIGN_FLAGS |= FLAGS_OF_THE_ORIGINAL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_in_the_text_exist(page):
    scripts = [*PARSERS, *(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").rglob("*.py"))]
    scripts.append("tests/attack/campaign.py")
    known = set().union(*map(flags_of, scripts)) | FOREIGN_FLAGS
    # Old names are listed in the changelog only.
    used = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", page.read_text(encoding="utf-8")))
    assert used - known == set()


# Read by libraries, not by our code.
FOREIGN_VARIABLES = {"HF_HOME", "HF_TOKEN", "VLLM_CACHE_ROOT", "SACREBLEU"}


def test_environment_variables_are_read():
    rows = re.findall(r"^\| (`[A-Z_]+.*?) \|", (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"), re.M)
    names = {name for row in rows for name in re.findall(r"`([A-Z][A-Z_]+)", row)} - FOREIGN_VARIABLES
    code = "".join(
        path.read_text(encoding="utf-8") for path in (*ROOT.rglob("topxgen/**/*.py"), *ROOT.rglob("comptra/**/*.py"))
    )
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.s*"))
    assert {name for name in names if name not in code + scripts} == set()


def test_changelog_names_flags_that_exist():
    known = set().union(*map(flags_of, PARSERS))
    rows = re.findall(r"^\| `(--\w+)[^|]*\| `(--\w+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert rows
    for old, new in rows:
        assert new in known and (old not in known or old == new or old == "--pool"), (old, new)


# Messages


@cache
def messages() -> str:
    """The texts of the product code, literals that follow each other joined, and fields of f-strings left out."""
    texts = []
    files = [*ROOT.glob("*.py"), *(ROOT / "topxgen").rglob("*.py"), *(ROOT / "comptra").rglob("*.py")]
    files += (ROOT / "scripts").glob("*.py")
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                values = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                texts.append("".join(map(str, values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    shell = [path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.s*") if path.suffix != ".py"]
    return "\n".join(texts + shell)


def test_messages_of_troubleshooting_are_the_ones_of_the_code():
    """First column: a message as it is printed, with … for what varies and (foreign) for other programs'."""
    rows = re.findall(
        r"^\| `([^`]+)`( \(foreign\))? \|", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.M
    )
    assert len(rows) >= 20
    lost = [
        fragment
        for message, foreign in rows
        for fragment in map(str.strip, message.split("…"))
        if fragment and not foreign and fragment not in messages()
    ]
    assert lost == []


def test_nothing_cites_the_contract_that_is_not_in_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    cites = [
        name
        for name in tracked
        if name.endswith((".py", ".md", ".toml", ".sh", ".slurm", ".txt", ".yaml"))
        and name not in ("tests/test_docs.py", "CHANGELOG.md")
        and re.search(r"SPEC(\.md)?( section|, )|\(SPEC", (ROOT / name).read_text(encoding="utf-8"))
    ]
    assert cites == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_words(page):
    text = without_fences(page)
    for phrase in ("held against", "mended", "turned away", "set aside", "asked in words", "with a word", "by turns"):
        assert phrase not in text.lower(), phrase
