"""Text of models that are not ours: cumulative and incremental, split characters, stop strings."""

import random
from dataclasses import replace
from types import ModuleType

import pytest

from gateway.errors import ContextLengthExceeded, ModelFailed, UnsupportedOption
from gateway.model_card.card import TextMode
from gateway.operations.complete import Complete
from gateway.operations.text import Sampling, StructuredOutput
from gateway.signatures import llmapi, tensorrt_llm, third_party
from gateway.signatures.third_party import AnswerText
from gateway.triton.model_config import ModelConfig
from tests.unit.gateway.model_cards import card_of


def shown_texts(grows: TextMode | None, *texts: str, stop: tuple[str, ...] = ()) -> list[str]:
    answer = AnswerText(grows, stop)
    return [answer.feed(text.encode()) for text in texts] + [answer.finish()]


def cumulative(*deltas: str) -> list[str]:
    return ["".join(deltas[: i + 1]) for i in range(len(deltas))]


DELTAS = [
    ["Hel", "lo"],
    ["ha", "ha", "!"],
    ["1", "10", "1", "0"],
    ["a", "", "a", "", "b"],
    ["", "", "x"],
    ["the", " the", " the", "the"],
    ["Gr", "üß", "e 👋"],
]


@pytest.mark.parametrize("deltas", DELTAS)
def test_cumulative_and_incremental_texts_are_distinguished(deltas: list[str]) -> None:
    assert "".join(shown_texts(None, *deltas)) == "".join(deltas)
    assert "".join(shown_texts(None, *cumulative(*deltas))) == "".join(deltas)


def test_random_cumulative_and_incremental_answers() -> None:
    rng = random.Random(4)
    for _ in range(2000):
        deltas = [rng.choice(["a", "b", "ab", "ba", "aa", " c"]) for _ in range(rng.randint(3, 12))]
        assert "".join(shown_texts(None, *cumulative(*deltas))) == "".join(deltas)
        assert "".join(shown_texts("delta", *deltas)) == "".join(deltas)


def test_the_first_text_is_shown_at_once_and_the_second_where_both_readings_agree() -> None:
    assert shown_texts(None, "He", "Hello", "Hello you") == ["He", "", "llo you", ""]
    assert shown_texts(None, "He", "llo") == ["He", "llo", ""]


def test_a_short_answer_is_read_as_cumulative() -> None:
    assert shown_texts(None, "ha", "ha") == ["ha", "", ""]


def test_a_configured_text_mode_is_used() -> None:
    assert shown_texts("delta", "1", "11", "111") == ["1", "11", "111", ""]
    assert shown_texts("cumulative", "1", "11", "111") == ["1", "1", "1", ""]


def test_a_split_character_waits_in_cumulative_texts() -> None:
    assert shown_texts("cumulative", "a", "a\ufffd", "aä") == ["a", "", "ä", ""]
    assert shown_texts(None, "a\ufffd", "aä", "aäb", "aäbc") == ["a", "", "", "äbc", ""]
    assert shown_texts("cumulative", "a\ufffd") == ["a", "\ufffd"]


def test_a_split_character_waits_in_incremental_texts() -> None:
    answer = AnswerText("delta", ("👋",))
    assert [answer.feed(piece) for piece in (b"a\xc3", b"\xa4", b"\xf0\x9f", b"\x91\x8a.")] == ["a", "ä", "", "👊."]
    answer.feed(b"b\xf0\x9f\x91")
    assert answer.finish() == "\ufffd"
    answer.feed(b"\x8b")  # nothing comes after the end


def test_a_shrinking_text_is_not_repeated() -> None:
    assert shown_texts("cumulative", "ab", "abc<", "abc", "abcd<x") == ["ab", "c<", "", "<x", ""]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["one END two"], "one "),
        (["one E", "N", "D two"], "one "),
        (["one E", "N", "X", "END"], "one ENX"),
        (["one EN"], "one EN"),
        (["EEN", "D"], "E"),
        (["a", "STOP", "END"], "a"),
        (["ENDEND"], ""),
    ],
)
def test_stop_strings(texts: list[str], expected: str) -> None:
    pieces = shown_texts("delta", *texts, stop=("END", "STOP"))
    assert "".join(pieces) == expected
    assert "".join(shown_texts("cumulative", *cumulative(*texts), stop=("END", "STOP"))) == expected


def test_stop_strings_are_found_across_any_split() -> None:
    rng = random.Random(5)
    for _ in range(2000):
        text = "".join(rng.choice("ab") for _ in range(12))
        stop = tuple("".join(rng.choice("ab") for _ in range(rng.randint(2, 4))) for _ in range(2))
        pieces, at = [], 0
        while at < len(text):
            size = rng.randint(1, 3)
            pieces.append(text[at : at + size])
            at += size
        shown = "".join(shown_texts("delta", *pieces, stop=stop))
        assert not any(word in shown for word in stop)
        assert text == shown or (text.startswith(shown) and text[len(shown) :].startswith(stop))


def test_options_are_refused_by_their_public_names() -> None:
    with pytest.raises(UnsupportedOption, match="response_format") as caught:
        third_party.reject_unsupported_options(Sampling(structured_outputs=StructuredOutput("json", True)), ())
    assert caught.value.param == "response_format"
    third_party.reject_unsupported_options(Sampling(n=1, temperature=None, stop=()), ())


def test_failures_lose_their_traceback_and_get_a_class() -> None:
    traceback = 'Traceback (most recent call last):\n  File "/x/model.py", line 3\npb_utils.Oh: It broke.\n'
    assert third_party.explain(ModelFailed(traceback)).message == "It broke."
    long = "Executor failed process requestId 3 due to: Prompt length (12) exceeds maximum input length (10)."
    error = third_party.explain(ModelFailed(long))
    assert isinstance(error, ContextLengthExceeded)
    assert error.param == "prompt"


@pytest.mark.parametrize(
    "parameters",
    [
        {"text": "sideways"},
        {"max_tokens": "many"},
        {"context_length": "0"},
        {"operations": '["chat"]'},
        {"special_tokens": "[]"},
    ],
)
def test_invalid_parameters_are_reported(parameters: dict[str, str]) -> None:
    card_of(ModelConfig("m", {}, {}, {}, b""))
    with pytest.raises(ValueError):
        card_of(ModelConfig("m", parameters, {}, {}, b""))


@pytest.mark.parametrize("layout", [tensorrt_llm, llmapi], ids=["tensorrt_llm", "llmapi"])
def test_default_special_tokens_are_dropped_and_required_ones_refused(layout: ModuleType) -> None:
    card = card_of(ModelConfig("m", {"context_length": "100"}, layout.INPUTS, layout.OUTPUTS, b""))
    wished = Complete(model="m", prompt="p", show_special_tokens=True)
    assert layout.encode(wished, card) == layout.encode(replace(wished, show_special_tokens=False), card)
    with pytest.raises(UnsupportedOption) as raised:
        layout.encode(replace(wished, sampling=Sampling(skip_special_tokens=False)), card)
    assert raised.value.param == "skip_special_tokens"
