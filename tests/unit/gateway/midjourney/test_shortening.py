"""Weights of words and shorter prompts."""

import itertools

import pytest

from gateway.dialects.midjourney.shortening import relative, shorter


def test_shorter_prompts_keep_the_words_that_matter_in_their_order() -> None:
    words = ["a", "very", "red", "circle", "on", "a", "blue", "background"]
    weights = [0.0, 0.1, 0.9, 1.0, 0.05, 0.0, 0.8, 0.5]
    texts = shorter(words, weights)
    assert all(len(a.split()) > len(b.split()) for a, b in itertools.pairwise(texts))
    assert texts[0] == "very red circle on blue background" and texts[-1] == "red circle"
    assert shorter(["one"], [1.0]) == ["one"]


@pytest.mark.parametrize(
    ("changes", "weights"),
    [((2.0, 1.0, -3.0), [1.0, 0.5, 0.0]), ((-1.0, -2.0), [0.0, 0.0]), ((0.0,), [0.0])],
)
def test_weights_are_parts_of_the_largest_gain(changes: tuple[float, ...], weights: list[float]) -> None:
    assert relative(changes) == weights
