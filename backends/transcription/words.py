"""Words: tokens joined at spaces, and punctuation joined with the word it belongs to, as openai-whisper does."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages that put no spaces between words: each character is a word."""
_OPENING = "\"'\u201c\u00bf([{-"
_CLOSING = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001"


@dataclass(slots=True)
class WordSpan:
    """A word and the tokens `first` to `last` - 1 that it consists of."""

    text: str
    first: int
    last: int


def split_words(tokens: Sequence[int], token_bytes: Callable[[int], bytes], language: str) -> list[WordSpan]:
    """Return the words of text tokens, punctuation included."""
    characters = _split_characters(tokens, token_bytes)
    words = characters if language in _WITHOUT_SPACES else _join_at_spaces(characters)
    return _merge_punctuation(words)


def _split_characters(tokens: Sequence[int], token_bytes: Callable[[int], bytes]) -> list[WordSpan]:
    """Return the shortest groups of tokens that end between two characters."""
    words: list[WordSpan] = []
    data, first = b"", 0
    for number, token in enumerate(tokens):
        data += token_bytes(token)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and number < len(tokens) - 1:
                continue  # the next token holds the rest of the character
            text = data.decode("utf-8", "replace")
        words.append(WordSpan(text, first, number + 1))
        data, first = b"", number + 1
    return words


def _join_at_spaces(characters: Sequence[WordSpan]) -> list[WordSpan]:
    words: list[WordSpan] = []
    for part in characters:
        is_punctuation = _consists_of(part.text.strip(), string.punctuation)
        if not words or part.text.startswith(" ") or is_punctuation:
            words.append(WordSpan(part.text, part.first, part.last))
        else:
            words[-1].text += part.text
            words[-1].last = part.last
    return words


def _merge_punctuation(words: list[WordSpan]) -> list[WordSpan]:
    """Join opening punctuation with the word after it, and closing punctuation with the word before it."""
    merged: list[WordSpan] = []
    for word in reversed(words):
        if merged and word.text.startswith(" ") and _consists_of(word.text.strip(), _OPENING):
            merged[-1].text = word.text + merged[-1].text
            merged[-1].first = word.first
        else:
            merged.append(word)
    merged.reverse()
    joined: list[WordSpan] = []
    for word in merged:
        if joined and not joined[-1].text.endswith(" ") and _consists_of(word.text, _CLOSING):
            joined[-1].text += word.text
            joined[-1].last = word.last
        else:
            joined.append(word)
    return joined


def _consists_of(text: str, characters: str) -> bool:
    return bool(text) and all(character in characters for character in text)
