"""Separates the caller's texts from the template's in a rendered prompt (`gateway.prompting.special_tokens`).

Before rendering, the first character of a special token, mostly `<`, is replaced in the caller's texts by a character
of Unicode's private use areas that occurs nowhere else in the request. One character stands for one, so that texts keep
their lengths and their white space. Words that the template itself searches for (`</think>`) stay as they are. In the
rendered prompt, every special token was written by the template. One that appears only when the characters have been
restored was not, however the template composed it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from gateway.errors import InvalidRequest
from gateway.prompting.special_tokens import SpecialTokenGuard

ZERO_WIDTH_SPACE = "\u200b"
"""Breaks up a special token. A zero-width space changes the least in what a model reads."""

# Fonts use the beginning of the first area for symbols, which documents contain: its end is tried first.
_PRIVATE_USE = (
    range(0xEE00, 0xF000),
    range(0xE000, 0xEE00),
    range(0xF000, 0xF900),
    range(0xF0000, 0xFFFFE),
    range(0x100000, 0x10FFFE),
)
# Beyond this many special tokens between two of the template, a break follows every masked character instead.
_MAX_BREAKS = 4096


class TextMasker:
    """Masks the texts of one request before they are rendered, and unmasks them afterwards."""

    def __init__(self, guard: SpecialTokenGuard, texts: Sequence[str]) -> None:
        """`texts` are all texts of the caller. Raises `InvalidRequest` if no unused character is left for masks."""
        self._guard = guard
        characters = (*guard.masked, *guard.letters)
        free = _unused_characters((*texts, guard.source))
        self._pairs = [(character, next(free)) for character in characters]
        masked = str.maketrans(dict(self._pairs[: len(guard.masked)]))
        self._letters = dict(self._pairs[len(guard.masked) :])
        self._marks = self._pairs[: len(guard.masked)]
        self._exempt_words = [(needle.translate(masked), needle) for needle in guard.exempt_words]
        self._exempt_words_in_answers = [(needle.translate(masked), needle) for needle in guard.exempt_words_in_answers]

    def text(self, text: str, *, answer: bool = False) -> str:
        """Return a text of the caller with its characters masked. `answer`: it is an earlier answer of the model."""
        masked = text
        for character, mask in self._marks:
            masked = masked.replace(character, mask)
        if masked is not text:
            for hidden, needle in self._exempt_words_in_answers if answer else self._exempt_words:
                if needle in text:
                    masked = masked.replace(hidden, needle)
        if self._guard.words:
            masked = self._guard.words.sub(lambda word: self._letters[word[0][0]] + word[0][1:], masked)
        return masked

    def value(self, value: Any) -> Any:
        """Return a JSON value of the caller with all strings masked, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(member) for key, member in value.items()}
        return [self.value(member) for member in value] if isinstance(value, list | tuple) else value

    def restore(self, text: str) -> str:
        """Replace the masks in `text` by the characters that they stand for."""
        for character, mask in self._pairs:
            text = text.replace(mask, character)
        return text

    def unmask(self, rendered: str, *, spans: bool) -> tuple[str, list[tuple[int, int]]]:
        """Return the prompt, and the spans in which special tokens are text: offsets of first and last character + 1.

        Without `spans` the list is empty, and a zero-width space breaks up each special token in the caller's texts.
        Turn markers that are not tokens of the tokenizer are always broken up.
        """
        text = self.restore(rendered)
        if text == rendered:
            return rendered, []
        guard, breaks = self._guard, self._guard.break_patterns[spans]
        pieces: list[str] = []
        found: list[tuple[int, int]] = []
        at = size = 0
        for start, end in _token_spans(guard.tokens, rendered):
            # Every special token between two of the template was written by the caller.
            gap = text[at:start]
            if breaks and breaks.search(gap):
                gap = self._insert_breaks(breaks, gap, rendered[at:start])
            if spans and (first := guard.tokenizer_tokens.search(gap + text[start:end])) and first.start() < len(gap):
                found.append((size + first.start(), size + len(gap)))
            pieces += (gap, text[start:end])
            size += len(gap) + end - start
            at = end
        return "".join(pieces), found

    def _insert_breaks(self, breaks: re.Pattern[str], text: str, rendered: str) -> str:
        if next(islice(breaks.finditer(text), _MAX_BREAKS, None), None) is None:
            return breaks.sub(rf"\g<0>{ZERO_WIDTH_SPACE}", text)
        for character, mask in self._pairs:
            rendered = rendered.replace(mask, character + ZERO_WIDTH_SPACE)
        return rendered


def _token_spans(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of all matches, and an empty span at the end of the text."""
    for match in pattern.finditer(text):
        yield match.span()
    yield len(text), len(text)


def _unused_characters(texts: Sequence[str]) -> Iterator[str]:
    """Yield characters of the private use areas that occur in none of the texts.

    Raises `InvalidRequest` when there are no more.
    """
    taken: set[str] | None = None
    for character in (chr(code) for codes in _PRIVATE_USE for code in codes):
        if taken is None and any(character in text for text in texts):
            taken = set().union(*texts)
        if taken is None or character not in taken:
            yield character
    raise InvalidRequest(
        "The messages contain every character of Unicode's private use areas; at least one must be unused.",
        param="messages",
    )
