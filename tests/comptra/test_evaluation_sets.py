"""What main.py translates: test sets and pools of every benchmark, both directions, and a line for all that goes wrong."""

import hashlib
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from comptra import evaluation_sets
from tests.support.runs import BENCHMARKS
from tests.support.tiny_models import udhr_texts
from topxgen.common.errors import UsageError
from topxgen.common.files import write_json
from topxgen.text import languages

BASQUE, CHOKWE, ENGLISH, FRENCH = map(languages.find, ("Basque", "Chokwe", "English", "French"))
KINYARWANDA, SOMALI, SUNDANESE, XHOSA = map(languages.find, ("Kinyarwanda", "Somali", "Sundanese", "Xhosa"))
TICO_HEADER = "sourceLang\ttargetLang\tsourceString\ttargetString\tstringID\turl\tlicense\ttranslatorId"


def load(name, src=ENGLISH, tgt=BASQUE, folder=None, max_samples=None, **options):
    options = {"folder": folder, "max_samples": max_samples, "allow_partial": True} | options
    return evaluation_sets.load(name, src, tgt, **options)


def refusal(*args, **options) -> str:
    with pytest.raises(UsageError) as error:
        load(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path, *lines: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@pytest.fixture
def flores(tmp_path):
    """FLORES of three and two sentences in English, Basque and French."""
    for code, words in (("eng_Latn", "one two three"), ("eus_Latn", "bat bi hiru"), ("fra_Latn", "un deux trois")):
        write(tmp_path / f"flores200_dataset/dev/{code}.dev", *(f" Dev {word}.\r" for word in words.split()))
        write(tmp_path / f"flores200_dataset/devtest/{code}.devtest", *(f"Test {w}." for w in words.split()[:2]))
    return tmp_path


@pytest.fixture
def tico(tmp_path):
    """TICO-19 of two sentences each in Kinyarwanda and Somali."""
    for part in ("dev", "test"):
        for code, words in (("rw", "rimwe kabiri"), ("so", "kow laba")):
            rows = [
                f"en\t{code}\t{part} {english}\t{part} {word}\tWiki_{i}:{part}\thttps://example.org\tCC0\t7"
                for i, (english, word) in enumerate(zip(("one", "two"), words.split(), strict=True))
            ]
            write(tmp_path / f"tico19-testset/{part}/{part}.en-{code}.tsv", TICO_HEADER, *rows)
    return tmp_path


def test_flores(flores):
    found = load("flores", folder=flores)
    assert (found.name, found.src, found.tgt) == ("flores", ENGLISH, BASQUE)
    assert found.sources == ["Test one.", "Test two."] and found.references == ["Test bat.", "Test bi."]
    assert found.pool == [("Dev one.", "Dev bat."), ("Dev two.", "Dev bi."), ("Dev three.", "Dev hiru.")]
    facts = found.facts
    assert facts["test"]["sources"] == {
        "from": str(flores / "flores200_dataset/devtest/eng_Latn.devtest"),
        "part": "devtest",
        "sha256": sha256("Test one.", "Test two."),
        "published_texts": 1012,
    }
    assert facts["test"]["pairs"] == 2 and facts["pool"]["pairs"] == 3 and facts["pool"]["empty"] == 0
    assert facts["pool"]["references"]["part"] == "dev" and json.dumps(facts)
    back = load("flores", BASQUE, FRENCH, folder=flores)
    assert back.sources == found.references and back.references == ["Test un.", "Test deux."]
    assert back.pool[0] == ("Dev bat.", "Dev un.")
    assert load("flores", folder=flores, max_samples=1).sources == ["Test one."]
    assert load("flores", folder=flores, max_samples=99).facts["test"]["pairs"] == 2
    assert len(load("flores", folder=flores, max_samples=1).pool) == 3


def test_what_is_not_needed_is_not_read(flores, tico):
    found = load("validation", folder=flores)
    assert found.sources == ["Dev one.", "Dev two.", "Dev three."] and found.pool == []
    assert found.facts["pool"] is None
    found = load("tico", KINYARWANDA, ENGLISH, folder=tico, need_pool=False)
    assert found.pool == [] and found.sources == ["test rimwe", "test kabiri"]
    # Its pool would be FLORES, which has no Kinyarwanda here.
    assert load("ood", KINYARWANDA, ENGLISH, folder=tico, need_pool=False).sources == found.sources
    assert load("topxgen", folder=flores, need_pool=False).sources == ["Test one.", "Test two."]


def test_tico_in_every_direction(tico):
    found = load("tico", ENGLISH, KINYARWANDA, folder=tico)
    assert list(zip(found.sources, found.references, strict=True)) == [
        ("test one", "test rimwe"),
        ("test two", "test kabiri"),
    ]
    assert found.pool == [("dev one", "dev rimwe"), ("dev two", "dev kabiri")]
    back = load("tico", KINYARWANDA, ENGLISH, folder=tico)
    assert (back.sources, back.references) == (found.references, found.sources)
    assert back.pool == [(y, x) for x, y in found.pool]
    between = load("tico", KINYARWANDA, SOMALI, folder=tico)
    assert between.references == ["test kow", "test laba"] and between.pool[1] == ("dev kabiri", "dev laba")


def test_out_of_domain(flores, tico):
    for code, word in (("eng_Latn", "one"), ("kin_Latn", "rimwe")):
        write(flores / f"flores200_dataset/dev/{code}.dev", f"Dev {word}.")
        write(flores / f"flores200_dataset/devtest/{code}.devtest", f"Never read, {word}.")
    found = load("ood", ENGLISH, KINYARWANDA, folder=flores)
    assert found.sources == ["test one", "test two"] and found.pool == [("Dev one.", "Dev rimwe.")]


@pytest.mark.parametrize("name", ["Basque", "Urdu"])
def test_ntrex(ntrex, name):
    language = languages.find(name)
    files = [ntrex / f"newstest2019-{name}.txt" for name in ("src.eng", f"ref.{language.ntrex.split('_')[0]}")]
    sides = [path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n") for path in files]
    pairs = [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True)]
    found = load("ntrex", ENGLISH, language, folder=BENCHMARKS)
    assert list(zip(found.sources, found.references, strict=True)) == pairs[:1000]
    assert found.pool == pairs[1000:] and len(found.pool) == 997
    back = load("ntrex", language, ENGLISH, folder=BENCHMARKS, max_samples=10)
    assert back.sources == found.references[:10] and back.pool[-1] == pairs[-1][::-1]


def test_flores_english_of_its_publishers(ntrex, tmp_path):
    """The real 997 and 1012 sentences, beside as many single characters."""
    for part, count in (("dev", 997), ("devtest", 1012)):
        real = (BENCHMARKS / f"flores200_dataset/{part}/eng_Latn.{part}").read_text(encoding="utf-8")
        write(tmp_path / f"{part}/eng_Latn.{part}", *real.splitlines())
        write(tmp_path / f"{part}/eus_Latn.{part}", *map(chr, range(0x4E01, 0x4E01 + count)))
    found = load("flores", folder=tmp_path)
    assert (len(found.sources), found.references[-1], len(found.pool)) == (1012, chr(0x4E00 + 1012), 997)
    assert load("validation", BASQUE, ENGLISH, folder=tmp_path).sources[-1] == chr(0x4E00 + 997)


def test_udhr():
    found = load("udhr")
    assert 20 <= len(found.sources) == len(found.references) and len(found.pool) >= 20
    assert not {*found.sources} & {source for source, _ in found.pool}
    assert "aske jaiotzen dira" in " ".join(target for _, target in found.pool), "article 1 is in the pool"
    assert found.facts["test"]["unaligned"] >= 0 and found.facts["pool"]["sources"]["part"] == "dev"
    back = load("udhr", BASQUE, ENGLISH)
    assert (back.sources, back.references) == (found.references, found.sources)
    assert load("udhr", XHOSA, SUNDANESE, max_samples=3).facts["test"]["pairs"] == 3


def generated(path, *records: tuple[list[str], list[str]], **extra):
    lines = [
        json.dumps({"sentence": " ".join(texts), "propositions": texts, "translations": others, **extra})
        for texts, others in records
    ]
    return write(path, *lines)


def test_generated_pairs_as_the_pool(flores):
    data = flores / "data"
    path = generated(data / "Basque_translate.jsonl", (["Ez garbia."], ["Not clean."]))
    found = load("topxgen", folder=flores, data_dir=data)
    assert found.pool == [("Not clean.", "Ez garbia.")] and found.facts["pool"]["decontaminated"] is False
    records = (
        (["Kaixo.", " Agur. ", "", "\ud800 hiru."], ["Hello.", "Bye.\n", "Lost.", "\nThree\r\n."]),
        (["Bai."], [" "]),
        ([], []),
    )
    path = generated(data / "Basque_translate_filtered.jsonl", *records, scores=[None], topic="x")
    found = load("topxgen", folder=flores, data_dir=data)
    assert found.sources == ["Test one.", "Test two."]
    assert found.pool == [("Hello.", "Kaixo."), ("Bye.", "Agur."), ("Three .", "? hiru.")]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"from": str(path), "sha256": digest, "decontaminated": True, "pairs": 3, "empty": 2}
    assert found.facts["pool"] == facts
    back = load("topxgen", BASQUE, ENGLISH, folder=flores, data_dir=data)
    assert back.pool == [(y, x) for x, y in found.pool] and back.sources == ["Test bat.", "Test bi."]
    message = refusal("topxgen", BASQUE, FRENCH, folder=flores, data_dir=data)
    assert (
        "has pairs with English" in message and "not of Basque and French: choose English as --src or --tgt" in message
    )
    write_json(data / "settings_translate.json", {"target_language": "French"})
    assert load("topxgen", BASQUE, FRENCH, folder=flores, data_dir=data).pool[0] == ("Kaixo.", "Hello.")
    assert "has pairs with French" in refusal("topxgen", folder=flores, data_dir=data)


def test_what_stands_in_place_of_decontaminated_pairs_is_named(flores):
    generated(flores / "data" / "Basque_translate.jsonl", (["Ez garbia."], ["Not clean."]))
    (flores / "data" / "Basque_translate_filtered.jsonl").mkdir()
    assert "Basque_translate_filtered.jsonl is a directory" in refusal(
        "topxgen", folder=flores, data_dir=flores / "data"
    )


def test_generated_pairs_without_those_of_a_shard(flores):
    generated(flores / "data" / "Basque_translate_filtered.jsonl", (["Kaixo."], ["Hello."]))
    shard = flores / "shards" / "0000-of-0001" / "data"
    shard.mkdir(parents=True)
    (shard / "shard_translate_Hausa.json").write_text("{}")
    assert load("topxgen", folder=flores, data_dir=flores / "data").pool == [("Hello.", "Kaixo.")]
    (shard / "shard_translate_Basque.json").write_text("{}")
    said = refusal("topxgen", folder=flores, data_dir=flores / "data")
    assert "lacks what shard 0000-of-0001 has done since the last merge (translate): python scripts/merge.py" in said


def test_generated_pairs_that_cannot_be_had(flores):
    data = flores / "data"
    assert "pass --data_dir FOLDER" in refusal("topxgen", folder=flores)
    message = refusal("topxgen", folder=flores, data_dir=data)
    assert (
        "no Basque_translate_filtered.jsonl or Basque_translate.jsonl in " in message
        and "no language at all" in message
    )
    generated(data / "Hausa_translate_filtered.jsonl", (["Sannu."], ["Hello."]))
    assert "only files of Hausa; pass another --data_dir" in refusal("topxgen", folder=flores, data_dir=data)
    path = generated(data / "Basque_translate.jsonl", (["Bat."], ["One."]), (["Bat.", "Bi."], ["One."]))
    message = refusal("topxgen", folder=flores, data_dir=data)
    assert f"{path}, line 2: field translations: expected 2 items, one per proposition, got 1; fix or" in message
    write(path, "", '{"propositions": ["Bat."], "translations": [null]}')
    message = refusal("topxgen", folder=flores, data_dir=data)
    assert f"{path}, line 2: field translations[0]: expected text, got null; fix or remove the line" in message
    write(path, "{")
    assert f"{path}, line 1: " in refusal("topxgen", folder=flores, data_dir=data)


def test_files_of_the_users_own(tmp_path):
    source = write(tmp_path / "test.en", "\ufeff One.\u2028More. ", "Two.\r")
    reference = write(tmp_path / "test.eu", "Bat.", "Bi.")
    found = load("files", test_files=(source, reference))
    assert found.sources == ["One.\u2028More.", "Two."] and found.references == ["Bat.", "Bi."] and found.pool == []
    assert found.facts["test"]["references"]["from"] == str(reference) and found.facts["pool"] is None
    pool = (
        write(tmp_path / "a.txt", "Three.", "", "Four.", ""),
        write(tmp_path / "b.txt", "Hiru.", "Bost.", "Lau.", " "),
    )
    found = load("files", test_files=(source, reference), pool_files=pool, max_samples=1)
    assert found.sources == ["One.\u2028More."] and found.pool == [("Three.", "Hiru."), ("Four.", "Lau.")]
    assert found.facts["pool"]["empty"] == 2
    assert load("files", test_files=(source, reference), pool_files=pool, need_pool=False).pool == []


def test_a_file_in_another_language_is_warned_of(tmp_path, caplog):
    source, hausa = (write(tmp_path / code, *udhr_texts(code)[:40]) for code in ("eng_Latn", "hau_Latn"))
    load("files", test_files=(source, hausa))
    assert f"{hausa}: 99 % of the text is Hausa according to CLD2, not Basque" in caplog.text
    assert "English" not in caplog.text


@pytest.mark.parametrize(
    "name, lines",
    [
        ("t.tsv", ["Basque\tENGLISH\tnote", "Bat.\tOne.\tx", "Bi.\tTwo.\t"]),
        ("t.csv", ["eng_Latn,eus_Latn", "One.,Bat.", '"Two.",Bi.']),
        ("t.csv", ["id,Source,Ref", "1,One.,Bat.", "2,Two.,Bi."]),
        ("t.jsonl", ['{"source": "One.", "target": "Bat."}', "", '{"target": "Bi.", "source": "Two."}']),
        ("t.jsonl", ['{"sentence": "One.", "translation": "Bat."}', '{"sentence": "Two.", "translation": "Bi."}']),
        (
            "t.json",
            ['[{"translation": {"English": "One.", "Basque": "Bat."}},', '{"English": "Two.", "Basque": "Bi."}]'],
        ),
    ],
)
def test_tables_of_the_users_own(tmp_path, name, lines):
    path = write(tmp_path / name, *lines)
    found = load("files", test_files=(path, path), pool_files=(path, path))
    assert found.sources == ["One.", "Two."] and found.references == ["Bat.", "Bi."]
    assert found.pool == [("One.", "Bat."), ("Two.", "Bi.")]
    mixed = load("files", test_files=(write(tmp_path / "one.txt", "One.", "Two."), path))
    assert (mixed.sources, mixed.references) == (found.sources, found.references)


@pytest.mark.parametrize("header", [(), ("n\tSource\tTarget",), ("n\ten\teu",)], ids=str)
def test_columns_of_the_users_own_by_a_mapping(header, tmp_path):
    path = write(tmp_path / "t.tsv", *header, "1\tOne.\tBat.", "2\tTwo.\tBi.")
    sides = Path(f"{path}:English=2,Basque=3"), Path(f"{path}:Basque=3")
    loaded = load("files", test_files=sides)
    assert (loaded.sources, loaded.references) == (["One.", "Two."], ["Bat.", "Bi."])
    assert loaded.facts["test"]["references"]["from"] == f"{path}:Basque=3", "comptra.evaluate reads it again"
    assert load("files", test_files=(sides[0], sides[0])).references == loaded.references
    assert "has no column in English" in refusal("files", test_files=(sides[1], sides[1]))
    assert "stands for both sides" in refusal(
        "files", test_files=[Path(f"{write(tmp_path / 'a.txt', 'a')}:Basque")] * 2
    )


def test_files_that_cannot_be_used(tmp_path):
    one, two = write(tmp_path / "one.txt", "One.", "Two."), write(tmp_path / "two.txt", "Bat.", "Bi.", "Hiru.")
    message = refusal("files", test_files=(one, two))
    assert f"{one} has 2 sentences in English, but {two} 3 in Basque" in message
    write(two, "Bat.", " \t", "Hiru.")
    assert f"{two}, line 2: it is empty" in refusal("files", test_files=(one, two))
    write(two, "Bat.", "Bi.", "")
    assert f"{two}, line 3: it is empty" in refusal("files", test_files=(one, two))
    write(two)
    assert f"{two} is empty" in refusal("files", test_files=(one, two))
    assert "stands for both sides" in refusal("files", test_files=(one, one))
    assert f"cannot read {tmp_path / 'none.txt'}" in refusal("files", test_files=(one, tmp_path / "none.txt"))
    table = write(tmp_path / "t.tsv", "one\ttwo", "One.\tBat.", "Two.\tBi.")
    message = refusal("files", test_files=(table, table))
    assert "has no column in English (columns: column 1, column 2); label one English or eng_Latn, or pass" in message
    write(table, "English\tBasque\teus_Latn", "One.\tBat.\tBat.")
    assert "has several columns in Basque" in refusal("files", test_files=(table, table))
    write(table, "English\tBasque", "One.\tBat.", "Two.")
    assert f"{table}, line 3: it is empty" in refusal("files", test_files=(table, table))
    table = write(tmp_path / "t.jsonl", '{"English": "One."}', '{"Basque": "Bat."}')
    assert f"{table}, record 2: it has no text in English" in refusal("files", test_files=(table, table))
    write(two, "Bat.", "Bi.")
    message = refusal("files", test_files=(one, two), pool_files=(one, write(tmp_path / "three.txt", "Hiru.")))
    assert "has 2 sentences in English, but" in message and "three.txt 1 in Basque" in message


def test_flags_that_do_not_go_together(flores):
    pair = (flores / "a", flores / "b")
    assert "files needs --test_files" in refusal("files")
    assert "--test_files is for --dataset_name_or_path files, not flores: pass that, or drop --test_files" in refusal(
        "flores", folder=flores, test_files=pair
    )
    assert "--demonstration_pool is for --dataset_name_or_path files" in refusal(
        "flores", folder=flores, pool_files=pair
    )
    assert "--data_dir is for --dataset_name_or_path topxgen, not ntrex" in refusal("ntrex", data_dir=flores)
    message = refusal("flore")
    assert (
        "choose one of flores, ntrex, tico, ood, validation, topxgen, udhr, udhr-dev, files (did you mean flores?)"
        in message
    )


def test_sides_that_are_not_parallel(flores, tico):
    path = write(flores / "flores200_dataset/devtest/eus_Latn.devtest", "Bat.")
    message = refusal("flores", folder=flores)
    assert "eng_Latn.devtest has 2 sentences in English, but" in message and f"{path} 1 in Basque" in message
    write(path, "Bat.", "")
    assert f"{path}, line 2: it is empty" in refusal("flores", folder=flores)
    assert f"{path}, line 2: it is empty" in refusal("flores", BASQUE, ENGLISH, folder=flores, max_samples=1)
    dev = flores / "flores200_dataset/dev/eus_Latn.dev"
    write(path, "Bat.", "Bi.")
    write(dev, "Bat.", "", "Hiru.")
    found = load("flores", folder=flores)
    assert found.pool == [("Dev one.", "Bat."), ("Dev three.", "Hiru.")] and found.facts["pool"]["empty"] == 1
    write(dev, "Bat.")
    assert f"{dev} 1 in Basque" in refusal("flores", folder=flores)
    load("flores", folder=flores, need_pool=False)
    test = tico / "tico19-testset/test/test.en-so.tsv"
    rows = test.read_text(encoding="utf-8").splitlines()
    write(test, *rows[:2], rows[2].replace("Wiki_1", "Wiki_9"))
    assert "has sentence Wiki_1:test where" in refusal("tico", KINYARWANDA, SOMALI, folder=tico)
    write(test, *rows[:2], rows[2].replace("test laba", ""))
    assert f"{test}, line 3: it is empty" in refusal("tico", KINYARWANDA, SOMALI, folder=tico)


def test_a_benchmark_without_the_language(flores, tmp_path_factory):
    message = refusal("ntrex", SUNDANESE, ENGLISH, folder=flores)
    assert "ntrex as published has no Sundanese" in message
    assert message.endswith("pass --dataset_name_or_path flores or udhr or files (--test_files of your own)")
    message = refusal("tico", BASQUE, CHOKWE)
    assert "tico as published has no Basque" in message and "--benchmark_dir FOLDER with a copy that has it" in message
    sorbian = replace(BASQUE, name="Upper Sorbian", flores="hsb_Latn", iso639_1="", iso639_3="hsb", ntrex="", tico="")
    message = refusal("udhr", ENGLISH, sorbian)
    assert "udhr as published has no Upper Sorbian" in message and message.endswith(
        "pass --dataset_name_or_path flores or files (--test_files of your own)"
    )
    empty = tmp_path_factory.mktemp("empty")
    message = refusal("flores", folder=empty)
    assert "no devtest/eus_Latn.devtest" in message or "no dev/eng_Latn.dev" in message
    assert message.endswith(
        "pass --benchmark_dir FOLDER with a copy of it, or --dataset_name_or_path udhr, which is embedded"
    )
    assert "is not a folder; pass --benchmark_dir" in refusal("flores", folder=empty / "nowhere")
    message = refusal("flores")
    assert (
        "cannot load 'openlanguagedata/flores_plus, eng_Latn'" in message and "--dataset_name_or_path udhr" in message
    )


def test_every_language_of_the_table_can_be_had(tmp_path):
    for language in islice(languages.load().values(), 0, None, 7):
        if language is ENGLISH:
            continue
        for part in ("dev", "devtest"):
            write(tmp_path / f"{part}/eng_Latn.{part}", "One.")
            write(tmp_path / f"{part}/{language.flores}.{part}", language.name)
        assert load("flores", ENGLISH, language, folder=tmp_path).references == [language.name]


def test_a_text_that_is_null_shifts_no_pair(tmp_path):
    """As many texts on both sides, of other rows: scores would be of other sentences."""
    both = tmp_path / "both.csv"
    both.write_text("source,target\nOne house.,Etxe bat.\nTwo.,Bi.\n")
    assert load("files", test_files=(both, both)).sources == ["One house.", "Two."]
    for suffix, join in ((".jsonl", "\n".join), (".json", lambda rows: f"[{', '.join(rows)}]")):
        files = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        for path, side, hole in zip(files, ("source", "target"), (2, 4), strict=True):
            rows = [json.dumps({side: None if i == hole else f"{side} {i}"}) for i in range(6)]
            path.write_text(join(rows))
        with pytest.raises(UsageError, match=r"a\.jsonl?, line 3: it is empty"):
            load("files", test_files=files)
        pool = load("files", test_files=(both, both), pool_files=files).pool
        assert pool == [(f"source {i}", f"target {i}") for i in (0, 1, 3, 5)]
        files[0].write_text(files[0].read_text().replace('{"source": null}', '{"note": "none"}'))
        with pytest.raises(UsageError, match=r"a\.jsonl?, record 3: it has no text in English"):
            load("files", test_files=files)
