from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.prompting.reasoning import REASONING_PARSERS, ReasoningPiece, Thought, ends_inside_thought
from gateway.prompting.tool_calls import Text


def read(deltas: list[str] | str, opened: bool) -> list[ReasoningPiece]:
    parser = REASONING_PARSERS["think"](opened=opened)
    parts = [part for delta in deltas for part in parser.feed(delta)]
    parts += parser.finish()
    return [kind("".join(part.text for part in group)) for kind, group in groupby(parts, type)]


@pytest.mark.parametrize(
    ("answer", "opened", "expected"),
    [
        ("<think>\nHm, 1 < 2.\n</think>\n\nYes. ", False, [Thought("Hm, 1 < 2."), Text("Yes. ")]),
        ("\n<think>Hm.</think>Yes.", False, [Thought("Hm."), Text("Yes.")]),
        ("Hm.\n\nHm.\n</think>\n\nYes.", True, [Thought("Hm.\n\nHm."), Text("Yes.")]),
        ("<think>\nHm.</think>Yes.", True, [Thought("Hm."), Text("Yes.")]),
        ("<think>\n\n</think>\n\nYes.", False, [Text("Yes.")]),
        ("\n</think>\n\nYes.", True, [Text("Yes.")]),
        (" Yes. <think>x</think>", False, [Text(" Yes. <think>x</think>")]),
        ("<thinking>Yes.", False, [Text("<thinking>Yes.")]),
        ("<thi", False, [Text("<thi")]),
        ("<think>Hm.\n</thin", False, [Thought("Hm.\n</thin")]),
        ("Hm. ", True, [Thought("Hm. ")]),
        ("<think>a</think>b</think><think>c", False, [Thought("a"), Text("b</think><think>c")]),
        ("<think>a</think>\n", False, [Thought("a")]),
        ("<think>", False, []),
        ("", True, []),
    ],
)
def test_reasoning_is_separated_from_text(answer: str, opened: bool, expected: list[ReasoningPiece]) -> None:
    assert read([answer], opened) == expected
    assert read(answer, opened) == expected
    for cut in range(1, len(answer)):
        assert read([answer[:cut], answer[cut:]], opened) == expected


BITS = st.sampled_from(["<think>", "</think>", "<", "/", ">", "think", "\n", " " * 70, "é", "a"])


@settings(max_examples=300, deadline=None)
@given(st.lists(BITS, max_size=10).map("".join), st.booleans(), st.integers(1, 9))
def test_any_split_gives_the_same_reasoning(answer: str, opened: bool, size: int) -> None:
    whole = read([answer], opened)
    assert read([answer[at : at + size] for at in range(0, len(answer), size)], opened) == whole
    if not opened and not answer.lstrip().startswith("<think>"):
        assert "".join(part.text for part in whole) == answer


def test_holds_back_only_what_may_be_a_tag() -> None:
    parser = REASONING_PARSERS["qwen3"](opened=False)
    assert list(parser.feed("He")) == [Text("He")]
    thinking = REASONING_PARSERS["deepseek_r1"](opened=True)
    assert list(thinking.feed("a <")) == [Thought("a")]
    assert list(thinking.feed("b>")) == [Thought(" <b>")]


def test_knows_a_prompt_that_opened_a_thought() -> None:
    assert ends_inside_thought("<|im_start|>assistant\n<think>\n")
    assert not ends_inside_thought("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not ends_inside_thought("user: what is <think>?\nassistant:")
