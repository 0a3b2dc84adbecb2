"""Tell what the caller wrote in a rendered prompt from what the template wrote (`gateway.prompting.special_tokens`).

Special tokens are told by their first character, mostly `<`. Where a caller's text has one, it is rendered with a
character of Unicode's private use in its place, which occurs nowhere else in the request. Each stands for one
character, so that texts keep their lengths and their white space. Words that the template itself looks for (`</think>`)
are left as they are. In what is rendered, a special token whose characters are as they should be was written by the
template; one that appears only when the characters have been put back was not, however it came together.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from gateway.errors import InvalidRequest
from gateway.prompting.special_tokens import SpecialTokenGuard

ZERO_WIDTH_SPACE = "\u200b"
"""A zero-width space is what changes least of what is read."""

# Documents hold some of the first ones: symbols of fonts.
_PRIVATE_USE = (
    range(0xEE00, 0xF000),
    range(0xE000, 0xEE00),
    range(0xF000, 0xF900),
    range(0xF0000, 0xFFFFE),
    range(0x100000, 0x10FFFE),
)
# Beyond so many special tokens between two of the template's, each of their first characters is broken off instead.
_MAX_BREAKS = 4096


class TextMasker:
    """The texts of one request, masked before they are rendered and unmasked afterwards."""

    def __init__(self, guard: SpecialTokenGuard, texts: Sequence[str]) -> None:
        """`texts` are all that the caller wrote. Raises `InvalidRequest` where no character is left to mask with."""
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
        """Return a text of the caller's as the template is given it; `answer` is one of the model's earlier ones."""
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
        """Return any JSON of the caller's likewise, the names of its members too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(member) for key, member in value.items()}
        return [self.value(member) for member in value] if isinstance(value, list | tuple) else value

    def restore(self, text: str) -> str:
        """Put the characters back that were masked."""
        for character, mask in self._pairs:
            text = text.replace(mask, character)
        return text

    def unmask(self, rendered: str, *, spans: bool) -> tuple[str, list[tuple[int, int]]]:
        """Return the prompt, and where in it special tokens must not be recognised: first and last character + 1.

        Without `spans` there are none: a break inside keeps each from being recognised, as it does in any case to marks
        of turns that are no tokens.
        """
        text = self.restore(rendered)
        if text == rendered:
            return rendered, []
        guard, breaks = self._guard, self._guard.break_patterns[spans]
        pieces: list[str] = []
        found: list[tuple[int, int]] = []
        at = size = 0
        for start, end in _token_spans(guard.tokens, rendered):
            # All that is found between two tokens of the template's was written by the caller.
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
    """Where a pattern is found, and the end of the text."""
    for match in pattern.finditer(text):
        yield match.span()
    yield len(text), len(text)


def _unused_characters(texts: Sequence[str]) -> Iterator[str]:
    """Characters of the private use that stand in none of the texts."""
    taken: set[str] | None = None
    for character in (chr(code) for codes in _PRIVATE_USE for code in codes):
        if taken is None and any(character in text for text in texts):
            taken = set().union(*texts)
        if taken is None or character not in taken:
            yield character
    raise InvalidRequest("The messages hold every character of Unicode's private use areas.", param="messages")
