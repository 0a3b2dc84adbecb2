"""Weights of words and shorter prompts."""

import itertools

from gateway.dialects.midjourney.shortening import is_function_word, shorter, surprises_of, weights_of
from gateway.operations.text import Logprob, TokenLogprob


def test_shorter_prompts_keep_the_words_that_matter_in_their_order() -> None:
    words = ["a", "very", "red", "circle", "on", "a", "blue", "background"]
    weights = [0.0, 0.1, 0.9, 1.0, 0.05, 0.0, 0.8, 0.5]
    texts = shorter(words, weights)
    assert all(len(a.split()) > len(b.split()) for a, b in itertools.pairwise(texts))
    assert texts[0] == "very red circle on blue background" and texts[-1] == "red circle"
    assert shorter(["one"], [1.0]) == ["one"]


def test_words_weigh_by_their_surprise_and_by_what_depends_on_them() -> None:
    # The second word is expected, the third one is not needed by the others.
    unexpected, expected, superfluous = weights_of([4.0, 0.1, 4.0], [-2.0, -6.0, 8.0])
    assert unexpected == 1.0 and expected < 0.05 and 0 < superfluous < 0.2
    assert weights_of([0.0], [1.0]) == [0.0] and weights_of([1.0], [1e6]) == [1.0]


def test_surprises_are_those_of_the_tokens_of_a_word() -> None:
    def token(text: str, logprob: float | None, is_hidden: bool = False) -> TokenLogprob:
        return TokenLogprob(Logprob(text, logprob, text.encode()), is_prompt=True, is_hidden=is_hidden)

    tokens = [
        *(token("<s>", None, is_hidden=True), token("A", -9.0), token(" picture of", -2.0), token(" ré", -1.0)),
        *(token("d", -0.5), token(" cir", -0.25), token("cle", -0.125)),
    ]
    assert surprises_of(tokens, ["réd", "circle"]) == [1.5, 0.375]
    assert surprises_of(tokens[:3], ["a much longer text", "circle"]) == [0.0, 0.0]


def test_function_words() -> None:
    assert is_function_word("The") and is_function_word("of,") and not is_function_word("red")
