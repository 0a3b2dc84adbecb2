"""The grammar of prompts."""

import time
from fractions import Fraction

import pytest

from gateway.dialects.midjourney.prompts import PromptError, parse


def test_urls_text_and_parameters() -> None:
    prompt = parse(
        "https://a.example/1.png <https://b.example/2.png> a red  circle"
        " --ar 16:9 --s 250 —q .5 --tile --no blue, green"
    )
    assert prompt.images == ("https://a.example/1.png", "https://b.example/2.png")
    assert prompt.text == "a red  circle" and prompt.negative == "blue, green"
    expected = {"ar": Fraction(16, 9), "stylize": 250, "quality": 0.5, "tile": True, "no": "blue, green"}
    assert prompt.parameters == expected
    assert prompt.final.endswith("a red  circle --ar 16:9 --stylize 250 --quality 0.5 --tile --no blue, green")


@pytest.mark.parametrize(
    ("text", "positive", "negative", "weighted"),
    [
        ("hot:: dog", "hot, dog", "", False),
        ("hot::2 dog", "hot, dog", "", True),
        ("circle:: blue::-0.5", "circle", "blue", False),
        ("circle::1.5 square::1.5 --no red", "circle, square", "red", False),
        ("a b", "a b", "", False),
        ("well-known --seed 1", "well-known", "", False),
    ],
)
def test_weights(text: str, positive: str, negative: str, weighted: bool) -> None:
    prompt = parse(text)
    assert (prompt.text, prompt.negative, prompt.has_weights) == (positive, negative, weighted)


@pytest.mark.parametrize(
    "text",
    [
        *("x --ar 1", "x --ar 0:1", "x --ar 100:1", "x --seed -1", "x --seed 1.5", "x --q 3", "x --stop 5"),
        *("x --iw nan", "x --iw 4", "x --no", "x --v six", "x --tile 5", "x --unknown", "x --raw --foo bar"),
        "http://a.example " * 17,
    ],
)
def test_invalid_parameters(text: str) -> None:
    with pytest.raises(PromptError):
        parse(text)


def test_long_numbers_take_linear_time() -> None:
    began = time.thread_time()
    parse("x::" + "1" * 15_990 + "-")
    assert time.thread_time() - began < 1, "a search that goes back over the digits takes minutes"


def test_a_comma_after_a_picture_is_none_of_its_url() -> None:
    assert parse("https://a/x.png, https://b/y.png, a circle").images == ("https://a/x.png", "https://b/y.png")
