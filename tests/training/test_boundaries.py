"""Limits, ties and orders of training, in small exact cases: a change by one in any of them fails here."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.training_runs import parsed
from topxgen.common.errors import UsageError
from topxgen.training import (
    arguments,
    checkpoints,
    eval_translation,
    log,
    model_card,
    named_datasets,
    run,
    tokenization,
    training_data,
)
from topxgen.training import pairs as pairs_module
from topxgen.training.dataset_spec import LoadedPairs
from topxgen.training.packing import IGNORED, best_fit, decoder_rows
from topxgen.training.pairs import Pair, by_direction, split
from topxgen.training.streaming import StreamedRows, windows
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer, TokenizedTexts
from topxgen.training.trainer import (
    EpochOrder,
    PairTrainer,
    SetEpochCallback,
    StopAndSaveCallback,
    held_out_losses,
)


def pair(i: int, tgt: str = "Basque", **changed) -> Pair:
    fields = dict(source=f"source {i}", target=f"target {i}", src="English", tgt=tgt, group=f"{tgt} {i}")
    return Pair(**{**fields, **changed})


class Words:
    """A tokenizer of one token per word, whose ids are counted from 10; BOS (2) before a text and EOS (1) after it."""

    eos_token_id, pad_token_id, unk_token_id = 1, 0, None

    def __init__(self):
        self.words: dict[str, int] = {}

    def tokens(self, text: str) -> list[str]:
        return text.split()

    def __call__(self, text=None, add_special_tokens=True, text_target=None, **_):
        texts = text_target if text is None else text
        rows = [self.tokens(text) for text in ([texts] if isinstance(texts, str) else texts)]
        ids = [[self.words.setdefault(word, 10 + len(self.words)) for word in row] for row in rows]
        ids = [[2, *row, 1] if add_special_tokens else row for row in ids]
        return {"input_ids": ids[0] if isinstance(texts, str) else ids}

    def decode(self, ids):
        names = {number: word for word, number in self.words.items()}
        return " ".join(names[i] for i in ids)


# Which pairs


@pytest.mark.parametrize("char", "#>")
def test_a_pair_is_dropped_for_either_side(char):
    ten = "0123456789"
    assert named_datasets.drop_reason(ten, ten) is named_datasets.drop_reason(ten, "今天下雨") is None
    assert named_datasets.drop_reason(ten, "今下雨") == "too_short"
    for sides in ((ten[1:], ten), (ten, ten[1:]), (f" {ten[1:]} ", ten), ("#", ten)):
        assert named_datasets.drop_reason(*sides) == "too_short"
    for sides in ((ten + char, ten), (ten, char + ten)):
        assert named_datasets.drop_reason(*sides) == "forbidden_characters"


def selected(scores: list[float], **options) -> list[int]:
    defaults = {"data_dir": (), "percentile": None, "dataset_size": -1, "strategy": "soonest", "seed": 122}
    spec = SimpleNamespace(**defaults | options)
    data = LoadedPairs()
    for i, score in enumerate(scores):
        data.add(pair(i), score, "blaser")
    return training_data._select(spec, data, "English to Basque", list(range(len(scores))))[0]


def test_what_is_selected():
    scores = [3.0, 1.0, 2.0, 3.0, 0.5]
    assert selected(scores, percentile=50) == [0, 3], "above the median (2.0), which is not above itself"
    assert selected(scores, percentile=0) == [0, 1, 2, 3], "above the lowest"
    assert selected(scores, dataset_size=2) == [0, 1] and selected(scores, dataset_size=4) == [0, 1, 2, 3]
    assert selected(scores, dataset_size=1, strategy="highest") == [0], "the first of equals"
    assert selected(scores, dataset_size=3, strategy="highest") == [0, 3, 2]
    assert selected(scores, dataset_size=5, strategy="highest") == selected(scores, dataset_size=6) == [0, 1, 2, 3, 4]
    # The same command selects the same pairs, in this version and in the next.
    assert selected(scores * 4, dataset_size=5, strategy="random") == [3, 19, 11, 13, 12]
    assert selected(scores * 4, dataset_size=5, strategy="random", seed=1) == [18, 2, 10, 13, 17]


def numbers_of(*parts: list[Pair]) -> list[list[int]]:
    return [[int(one.source.split()[1]) for one in part] for part in parts]


def test_the_split_of_a_seed():
    """The same command splits the same way, in this version and in the next."""
    pairs = [pair(i, group=str(i // 2)) for i in range(12)]
    assert numbers_of(*split(pairs, 0.3, 122)) == [[0, 6, 7, 5, 1, 4, 9, 8], [11, 10, 2, 3]]
    pairs = [pair(i, group=group) for i, group in enumerate("aabbbccc")]
    assert numbers_of(*split(pairs, 5, 2)) == [[3, 4, 2], [5, 1, 6, 7, 0]]
    assert numbers_of(*split(pairs, 6, 1)) == [[1, 0], [3, 6, 5, 7, 4, 2]], "3 + 3, though the first group has 2"


def test_groups_that_fill_the_test_set():
    assert pairs_module._choose_groups([3, 3], 5) == [0], "in the shuffled order, where another choice is no better"
    assert pairs_module._choose_groups([2, 2, 1, 1], 2) == [0], "the first that fits"
    assert pairs_module._choose_groups([2, 3, 3], 6) == [2, 1], "another choice where it is better"
    assert sorted(pairs_module._subset_sum([4, 3], 8)) == [0, 1], "each group once"
    assert pairs_module._subset_sum([9, 5], 4) == []


def test_pairs_by_direction():
    pairs = [pair(0, "Hausa"), pair(1), pair(2, "Hausa"), pair(3, src="", tgt="", source="")]
    assert by_direction(pairs) == {"English to Hausa": [0, 2], "English to Basque": [1], "raw text": [3]}
    assert list(by_direction(pairs)) == ["English to Hausa", "English to Basque", "raw text"]
    assert eval_translation.choose(pairs, 1) == pairs[:2] and eval_translation.choose(pairs, 0) == []


# Rows


def test_best_fit_takes_the_tightest_row():
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED
    # 6 and 5 open rows, the other 5 and 4 fill them up; 3 opens a row, in which 2 and 1 follow.
    assert best_fit(np.array([1, 6, 2, 5, 4, 5, 3]), 10) == [[1, 4], [3, 5], [6, 2, 0]]
    assert best_fit(np.array([6, 5, 4]), 10) == [[0, 2], [1]], "of two rows with room the fuller one"
    assert best_fit(np.array([10, 9, 1]), 10) == [[0], [1, 2]], "a text as long as a row, and one that just fits"
    assert best_fit(np.array([5, 6]), 10) == [[1], [0]], "one token too many for one row"
    assert best_fit(np.array([7, 7, 3]), 10) == [[0], [1, 2]], "of equal rows the newest"
    with pytest.raises(ValueError, match="text 0 has 11 tokens, more than 10"):
        best_fit(np.array([11]), 10)


def test_packings_by_name():
    texts = TokenizedTexts(np.arange(5, dtype=np.int32), np.array([3, 5]), np.array([2, 0], np.int32))
    assert [len(decoder_rows(texts, name, 5, True)) for name in ("bestfit", "none", "concat")] == [1, 2, 1]
    assert len(decoder_rows(texts, "bestfit", 4, True)) == 2 and decoder_rows(texts, "concat", 4, True).lengths == [
        4,
        1,
    ]
    orders = {tuple(decoder_rows(texts, "concat", 5, True, seed)[0]["input_ids"]) for seed in range(9)}
    assert orders == {(0, 1, 2, 3, 4), (3, 4, 0, 1, 2)}, "by the seed"


# Token ids


def test_a_decoder_reads_bos_prompt_target_eos(monkeypatch):
    words = Words()
    encoder = CausalTokenizer(words, "none", 100)
    pairs = [
        Pair("a b ", "c d", "English", "Basque", ""),
        Pair("", "e", "", "", ""),
        Pair("a ", "b", "Basque", "English", ""),
    ]
    texts = encoder.encode(pairs)
    a, b, c, d, e = (words.words[word] for word in "abcde")
    assert [texts[i].tolist() for i in range(3)] == [[2, a, b, c, d, 1], [2, e, 1], [2, a, b, 1]]
    assert texts.prompts.tolist() == [3, 1, 2] and texts.lengths.tolist() == [6, 3, 4]
    assert encoder.prompt_ids(["a b"]) == [[2, a, b]]
    assert CausalTokenizer(words, "14", 100).encode(pairs[1:2]).ids.tolist() == [2, e, 1], "raw text has no template"
    short = encoder.encode(pairs, 4)
    assert short.too_long == ((0, 6),) and [short[i].tolist() for i in range(2)] == [[2, e, 1], [2, a, b, 1]]
    monkeypatch.setattr(tokenization, "TOKENIZER_BATCH_TEXTS", 2)
    again = encoder.encode([*pairs, pairs[0]], 4)
    assert again.ids.tolist() == short.ids.tolist() and again.too_long == ((0, 6), (3, 6)), "numbers go on over batches"


class Merging(Words):
    """ "b c" is one token."""

    def tokens(self, text: str) -> list[str]:
        return text.replace("b c", "b_c").split()

    def decode(self, ids):
        return super().decode(ids).replace("_", " ")


class Prefixing(Merging):
    """As SentencePiece does, it marks the word that a text begins with, but not after a line break."""

    def tokens(self, text: str) -> list[str]:
        words = super().tokens(text)
        return ["\n", *words] if text.startswith("\n") else [f"^{words[0]}", *words[1:]]


class Lossy(Merging):
    def decode(self, ids):
        return f"{len(ids)} {super().decode(ids)}"


@pytest.mark.parametrize(
    "kind, prompt, target",
    [
        (Merging, ["a", "b"], ["c", "d"]),
        (Prefixing, ["^a", "b"], ["c", "d"]),  # not "^c": the target is tokenized after a line break
        (Lossy, ["a"], ["b_c", "d"]),  # where nothing else decodes to the text, the merged token is learned
    ],
)
def test_a_token_over_the_boundary_is_split(kind, prompt, target):
    tokenizer = kind()
    texts = CausalTokenizer(tokenizer, "none", 100).encode([Pair("a b ", "c d", "English", "Basque", "")])
    names = {number: word for word, number in tokenizer.words.items()}
    tokens = [names.get(i, i) for i in texts[0].tolist()]
    assert tokens == [2, *prompt, *target, 1] and texts.prompts.tolist() == [1 + len(prompt)]


def test_a_side_is_truncated_to_the_limit():
    words = Words()
    prefixes = SimpleNamespace(prefixes=lambda source, target: ([5], [6, 7]), ids=frozenset())
    one = Pair("a b", "c d", "English", "Basque", "")
    fits, short = (Seq2SeqTokenizer(words, prefixes, length) for length in (5, 4))
    a, b, c, d = (words(word, add_special_tokens=False)["input_ids"][0] for word in "abcd")
    texts = fits.encode([one])
    assert texts[0].tolist() == [5, a, b, 1, 6, 7, c, d, 1] and texts.prompts.tolist() == [4] and fits.truncated == 0
    assert short.encode([one])[0].tolist() == [5, a, b, 1, 6, 7, c, 1] and short.truncated == 1
    assert fits.source_ids(one) == [5, a, b, 1]


# Streams


class Stream(list):
    epochs: tuple = ()

    def set_epoch(self, number):
        self.epochs = (*self.epochs, number)


def stream_of(*pairs: Pair) -> Stream:
    return Stream({name: getattr(one, name) for name in ("source", "target", "src", "tgt")} for one in pairs)


def test_windows_of_a_stream():
    rows = stream_of(
        *map(pair, range(5)), pair(5, target=" \u200b"), pair(6, source=""), pair(7, source="", src="", tgt="")
    )
    numbers = [[int(one.target.split()[1]) for one in window] for window in windows(rows, 2)]
    assert numbers == [[0, 1], [2, 3], [4, 7]], "without empty sides; raw text has no source"
    numbers = [[int(one.target.split()[1]) for one in window] for window in windows(rows, 2, {"source 1", "target 2"})]
    assert numbers == [[0, 3], [4, 7]], "without texts of the test set, on either side"
    respelled = windows(rows, 2, {"SOURCE\u00a01.", "\u201ctarget 2\u201d", " "})
    assert [[int(one.target.split()[1]) for one in window] for window in respelled] == [[0, 3], [4, 7]], (
        "in any spelling"
    )


@pytest.mark.timeout(60)  # a fault may make it endless
def test_rows_of_a_stream(caplog):
    caplog.set_level(logging.INFO)
    args = parsed(*["--num_of_sequences", "3", "--max_length", "8", "--packing", "none", "--seed", "5", "--reverse"])
    tokenizer = CausalTokenizer(Words(), "none", 100)
    long = pair(6, target="one two three four five six seven")
    stream = stream_of(*map(pair, range(5)), long)
    rows = StreamedRows(stream, tokenizer, [pair(1)], args)
    iterator = iter(rows)
    found = [next(iterator)["input_ids"].tolist() for _ in range(8)]
    expected = []
    for number, window in enumerate(([0, 2, 3], [4])):
        both = [pair(i) for i in window] + [Pair(p.target, p.source, p.tgt, p.src, "") for p in map(pair, window)]
        texts = tokenizer.encode(both)
        order = torch.randperm(len(both), generator=torch.Generator().manual_seed(5 + number)).tolist()
        expected += [texts[i].tolist() for i in order]
    assert found == expected and stream.epochs == (0,)
    assert next(iterator)["input_ids"].tolist() == expected[0] and stream.epochs == (0, 1), "endless, reshuffled"
    assert caplog.messages == ["2 pairs skipped so far, longer than --max_length 8 tokens"]
    assert list(StreamedRows(stream_of(pair(1)), tokenizer, [pair(1)], args)) == [], "an empty stream ends"
    args.packing = "concat"
    iterator = iter(StreamedRows(stream_of(long), tokenizer, [], args))
    assert sorted(len(next(iterator)["input_ids"]) for _ in range(3)) == [4, 8, 8], "cut, not skipped"


# Orders and decisions of a run


def test_the_order_of_an_epoch():
    order = EpochOrder([1] * 5, 3, seed=7)
    assert (order.steps_per_epoch, len(order)) == (2, 6)
    for step, epoch in ((0, 0), (1, 0), (2, 1), (5, 2)):
        SetEpochCallback(order).on_epoch_begin(None, SimpleNamespace(global_step=step), None)
        expected = torch.randperm(5, generator=torch.Generator().manual_seed(7 * 100_003 + epoch)).tolist()
        assert list(order) == [*expected, expected[0]]
    assert EpochOrder([1] * 6, 3, seed=7).steps_per_epoch == 2


def trainer(**own) -> PairTrainer:
    """Without transformers' set-up; the summed loss is 3 a label."""
    made = object.__new__(PairTrainer)
    args = SimpleNamespace(use_liger_kernel=False, average_tokens_across_devices=False, seed=7)
    vars(made).update({"args": args, "_pad": 0, "_tokens": 0} | own)
    return made


def fake_model(labels: torch.Tensor, **_):
    return SimpleNamespace(loss=3.0 * (labels != IGNORED).sum())


@pytest.mark.parametrize(
    ("mask", "labels", "tokens"),
    [
        (None, [[IGNORED, 3, 1], [3, IGNORED, IGNORED]], 5),
        (None, [[IGNORED, 3, 1], [3, 9, 0]], 6),  # the padding token ends the second text
        ([[1, 1, 1], [1, 1, 0]], [[3, 1], [1, IGNORED]], 8),  # an encoder-decoder: those of both sides
    ],
)
def test_tokens_per_second_are_those_that_a_model_reads(mask, labels, tokens):
    made = trainer(_decoder=mask is None)
    batch = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]), "labels": torch.tensor(labels)}
    batch |= {} if mask is None else {"attention_mask": torch.tensor(mask)}
    loss = made.compute_loss(fake_model, batch, num_items_in_batch=torch.tensor(3))
    assert (int(made._tokens), float(loss)) == (tokens, 3.0 * sum(x != IGNORED for row in labels for x in row) / 3)


@pytest.mark.parametrize("decoder", [True, False])
def test_rows_of_similar_length_are_together_in_batches_with_padding(decoder):
    lengths = np.random.default_rng(1).integers(1, 100, 800).tolist()
    made = trainer(_decoder=decoder, train_dataset=SimpleNamespace(lengths=lengths))
    made.get_total_train_batch_size, made.add_callback = lambda args: 4, lambda callback: None
    order = [lengths[i] for i in made._get_train_sampler()]
    padding = sum(max(order[i : i + 4]) * 4 - sum(order[i : i + 4]) for i in range(0, 800, 4)) / sum(lengths)
    assert padding > 0.4 if decoder else padding < 0.1


def test_the_held_out_loss_of_directions_of_few_tokens():
    losses = held_out_losses({"a": (3.0, 1), "b": (8.0, 4)})
    assert losses == {"eval_loss": 11 / 5, "eval_loss_a": 3.0, "eval_loss_b": 2.0}
    assert held_out_losses({"a": (3.0, 1), "c": (0.0, 0)})["eval_loss_c"] == 0.0
    assert held_out_losses({"a": (3.0, 2)}) == {"eval_loss": 1.5} and held_out_losses({"a": (0.0, 0)}) == {}


def test_the_log_of_an_early_stop_that_was_killed(tmp_path):
    """Its mean loss is over the steps that were done, not over --max_steps."""
    sums = {checkpoints.SUMS: {"unlogged": [2.0], "logged": 6.0, "last_logged_step": 3}}
    state = SimpleNamespace(
        stateful_callbacks=sums, global_step=4, max_steps=10, total_flos=1.0, epoch=0.4, log_history=[{"step": 3}]
    )
    log.complete(tmp_path / "log.jsonl", state)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last == {"total_flos": 1.0, "train_loss": 2.0, "epoch": 0.4, "step": 4}


def test_patience():
    def waits(patience, greater, *values):
        stopper = StopAndSaveCallback("eval_chrf", greater, patience, True)
        return stopper.out_of_patience([{"loss": 1}, *({"eval_chrf": value} for value in values)])

    assert waits(2, True, 3, 1, 2) and not waits(3, True, 3, 1, 2) and not waits(2, True, 1, 3, 2)
    assert waits(2, False, 1, 3, 2) and not waits(2, False, 3, 1, 2)
    assert waits(2, True, 3, 3, 3), "no better is not better"
    assert not waits(None, True, 3, 1, 1, 1) and not waits(1, True)


def test_regressions_are_worse_than_before_training():
    start = {"step": 0, "eval_runtime": 1.0, "eval_loss": 2.0, "eval_chrf": 20.0, "eval_bleu": 3.0}
    last = {"step": 5, "eval_runtime": 2.0, "eval_loss": 2.1, "eval_chrf": 19.9, "eval_bleu": 3.0, "eval_new": 0.0}
    between = {"step": 3, "eval_runtime": 1.0, "eval_loss": 3.0, "eval_chrf": 30.0}
    assert model_card.regressions([start, between, {"step": 3, "loss": 9.0}, last]) == [
        ("loss", 2.1, 2.0),
        ("chrf", 19.9, 20.0),
    ]
    for step in (3, 4):  # that of the best checkpoint
        assert model_card.regressions([start, between, last], step) == [("loss", 3.0, 2.0)]
    assert model_card.regressions([start]) == model_card.regressions([{**start, "step": 1}, last]) == []
    table = model_card.evaluations_table([start, last, {"step": 5, "loss": 9.0}], 5)
    assert "| loss | 2 | 2.1 |" in table and "| chrF++ | 20 | 19.9 |" in table and "runtime" not in table
    assert "| new | - | 0 |" in table and model_card.evaluations_table([start, last], 4) == ""


def test_batches_of_translations():
    pairs = [pair(0), pair(1), pair(2, "Arabic"), pair(3), pair(4, "Arabic")]
    rows = [[0] * length for length in (3, 1, 2, 2, 1)]
    assert eval_translation._batches(pairs, rows, 2) == [[4, 2], [1, 3], [0]]
    scores = eval_translation.score(
        [pair(0, target="Kaixo mundua hor."), pair(1, "Hausa", target="x")], ["Kaixo mundua hor.", "y"]
    )
    assert scores["chrf_English to Basque"] == 100 and scores["chrf_English to Hausa"] == 0 and scores["chrf"] == 50
    chinese = eval_translation.score([pair(0, "Chinese (Simplified)", target="今天在下雨了。")], ["今天在下雨吗。"])
    assert chinese["bleu"] > 40, "by characters, not by spaces"


def test_a_translation_may_be_twice_as_long_as_either_side():
    pairs = [pair(0, source="a b", target="a b c d e"), pair(1, source="a b c", target="a")]
    limits = [
        eval_translation._limit(lambda texts: {"input_ids": list(map(str.split, texts))}, some)
        for some in (pairs, pairs[1:])
    ]
    assert limits == [2 * 5 + 16, 2 * 3 + 16]


# Flags


def test_what_does_not_decide_the_result_are_flags():
    names = arguments.NOT_PART_OF_THE_RESULT
    assert len(set(names)) == len(names) and set(names) <= set(vars(parsed()))


def settings(*words: str) -> dict:
    args = parsed("--target_languages", "Basque", *words)
    arguments.set_defaults(args)
    return arguments.result_settings(args, "digest")


def test_what_decides_the_result(monkeypatch, tmp_path):
    default = settings()
    before = settings("--tokenizer_name_or_path", str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert settings("--tokenizer_name_or_path", str(tmp_path)) != before
    assert default["data"] == "digest" and default["effective_batch_rows"] == 16 and default["learning_rate"] == 5e-6
    assert not set(default) & set(arguments.NOT_PART_OF_THE_RESULT)
    monkeypatch.setenv("WORLD_SIZE", "2")
    halved = settings("--per_device_train_batch_size", "2", "--output_dir", "other")
    assert halved == default, "as many rows per step on two devices"
    assert set(arguments.EVALUATION_FLAGS) <= set(settings("--lr_scheduler_type", "reduce_lr_on_plateau"))


def test_the_best_checkpoint_is_chosen_by_one_metric():
    by_loss, by_chrf = settings(), settings("--num_eval_translations", "2")
    assert (by_loss["metric_for_best_model"], by_chrf["metric_for_best_model"]) == ("loss", "chrf")
    assert by_chrf != settings("--num_eval_translations", "3"), "scores of other sentences"
    assert by_loss == settings("--num_eval_translations", "3", "--metric_for_best_model", "loss")


def test_a_run_of_an_older_version_is_resumed(tmp_path):
    current = settings("--packing", "concat")
    (tmp_path / "settings_train.json").write_text(json.dumps({**current, "packing": "original"}))
    (tmp_path / "checkpoint-1").mkdir()
    run.check_output_dir(tmp_path, {**current, "weights": "an id that older versions did not record"})
    with pytest.raises(UsageError, match="packing was 'concat', now 'bestfit'"):
        run.check_output_dir(tmp_path, {**current, "packing": "bestfit"})
    with pytest.raises(UsageError, match="holds results of other settings"):
        run.check_output_dir(tmp_path, {**current, "data": "other"})


def test_a_flag_of_the_same_name_reaches_the_trainer():
    words = "--learning_rate 3e-4 --save_steps 7 --num_warmup_steps 9 --weight_decay 0.5 --max_steps 11 --seed 4 --num_workers 0"
    args = parsed(*words.split())
    result = arguments.training_arguments(args, "eval_chrf", True, False)
    assert (result.learning_rate, result.save_steps, result.warmup_steps, result.weight_decay) == (3e-4, 7, 9, 0.5)
    assert (result.max_steps, result.seed, result.data_seed, result.greater_is_better) == (11, 4, 4, True)
    assert (result.save_total_limit, result.push_to_hub, result.report_to) == (None, False, [])
    assert not arguments.training_arguments(args, "eval_loss", False, False).greater_is_better
