"""Limits of prompts, stop strings, and beam search by hand."""

from types import SimpleNamespace

import pytest

from topxgen.inference import Answer, Request, SamplingSettings, cut_at_stop, from_list, gather
from topxgen.inference.beam_search import BeamSearch


def test_prompts_up_to_the_models_length():
    requests = [Request(str(n), "x" * n, 0) for n in (9, 10, 11, 3)]
    settings = SamplingSettings(max_new_tokens=6)
    taken, refused = gather(from_list(requests), 9, lambda text: [0] * len(text), settings, 16)
    assert [request.id for request, _ in taken] == ["9", "10", "3"]
    (answer,) = refused
    assert (answer.id, answer.texts, answer.prompt_tokens) == ("11", [], 11) and "--max_model_len 16" in answer.error
    taken, refused = gather(from_list(requests), 1, lambda text: [0] * len(text), settings, 16)
    assert len(taken) == 1 and not refused


@pytest.mark.parametrize(
    "stops, text", [(("b", "c"), "a "), (("c", "b"), "a "), (("c",), "a b "), (("x",), "a b c b"), ((), "a b c b")]
)
def test_the_first_stop_string_ends_a_text(stops, text):
    assert cut_at_stop("a b c b", stops) == text


def test_half_a_character_at_the_limit_is_left_out():
    """hf decoded its first bytes, vLLM does not."""
    answer = Answer("1", ["नेपा\ufffd\ufffd", "नेपा\ufffd", "\ufffd"], finish_reasons=("length", "stop"))
    assert answer.texts == ["नेपा", "नेपा\ufffd", "\ufffd"]


def test_do_sample_false_is_greedy():
    fields = dict.fromkeys(("max_new_tokens", "num_return_sequences", "num_beams"), 1) | dict.fromkeys(
        ("top_p", "repetition_penalty"), 1.0
    )
    for sample, temperature in ((True, 0.7), (False, 0.0)):
        args = SimpleNamespace(temperature=0.7, do_sample=sample, **fields)
        assert SamplingSettings.from_args(args).temperature == temperature


EOS = 0


def test_finished_beams_are_compared_by_their_mean():
    search = BeamSearch(2, 10, frozenset({EOS}))
    assert search.width == 4 and BeamSearch(3, 10, frozenset({0, 1, 2})).width == 12
    search.advance([[(1, -0.1), (2, -0.2), (EOS, -5.0), (3, -6.0)]])
    # EOS ranks third: beyond the two beams it was only a reserve.
    assert search.live == [([1], -0.1), ([2], -0.2)] and search.best(9) == [] and not search.done
    search.advance([[(EOS, -0.1), (1, -3.0), (2, -4.0), (3, -5.0)], [(2, -0.5), (EOS, -2.0), (1, -6.0), (3, -7.0)]])
    assert search.best(9) == [[1, EOS]] and search.live == [([2, 2], -0.7), ([1, 1], -3.1)]
    search.advance([[(EOS, -0.2), (1, -9.0), (2, -9.0), (3, -9.0)], [(3, -1.0), (EOS, -2.0), (1, -9.0), (2, -9.0)]])
    # Means: -0.1 of two tokens, -0.3 of three; the live one (-4.1 / 3) cannot reach the second any more.
    assert search.best(9) == [[1, EOS], [2, 2, EOS]] and search.done


def test_the_longest_length_ends_beams():
    search = BeamSearch(2, 2, frozenset({EOS}))
    search.advance([[(1, -0.1), (2, -0.2), (3, -0.3), (4, -9.0)]])
    search.advance([[(3, -0.1), (4, -0.4), (5, -0.5), (6, -9.0)], [(3, -0.1), (4, -3.0), (5, -4.0), (6, -9.0)]])
    assert search.done and search.best(9) == [[1, 3], [2, 3]] and len(search.live) == 0


def test_search_goes_on_while_a_live_beam_may_win():
    search = BeamSearch(1, 10, frozenset({EOS}))
    search.advance([[(1, -0.1), (EOS, -0.2)]])
    assert not search.done and search.live == [([1], -0.1)]
    search.advance([[(EOS, -3.0), (2, -4.0)]])
    assert search.best(1) == [[1, EOS]] and search.done


def test_stop_strings_end_beams():
    search = BeamSearch(1, 10, frozenset(), stops=lambda tokens: tokens[-1] == 7)
    search.advance([[(7, -0.1), (1, -0.2)]])
    assert search.best(1) == [[7]] and search.done
