"""A buffer for parsing a text while it streams.

A grammar is a generator over a `TextBuffer`: it yields pieces, and `None` where it has read everything and needs more.
So a grammar is written as if the whole text were there; its state is its position in the code. The text between `mark`
and `rewind` can be read again; keeping it costs time linear in its length, however it arrives.
"""

import re
from collections.abc import Generator
from typing import TypeAlias, TypeVar

Result = TypeVar("Result")
Output = TypeVar("Output")
Parse: TypeAlias = Generator[Output | None, None, Result]
Read: TypeAlias = Generator[None, None, Result]

WHITESPACE = re.compile(r"[ \t\r\n]*")


class TextBuffer:
    """A streamed text: the part that has arrived and is not read yet, and the part since `mark`.

    `at` is the read position in `text`. `ended` is set once the whole text has arrived.
    """

    __slots__ = ("_mark_at", "_marked", "_read_since_mark", "at", "ended", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._read_since_mark: list[str] = []
        self._mark_at = 0
        self._marked = False

    def push(self, text: str) -> None:
        """Append a text that arrived."""
        if self._marked:
            self._read_since_mark.append(self.text[self._mark_at : self.at])
            self._mark_at = 0
        self.text = self.text[self.at :] + text
        self.at = 0

    def mark(self) -> None:
        """Remember this position, and no earlier one."""
        self._read_since_mark = []
        self._mark_at = self.at
        self._marked = True

    def release(self) -> None:
        """Forget the marked position: the text since is final."""
        self._read_since_mark = []
        self._marked = False

    def rewind(self) -> None:
        """Go back to the marked position, and forget it."""
        if self._read_since_mark:
            self.text = "".join(self._read_since_mark) + self.text[self._mark_at :]
            self._mark_at = 0
        self.at = self._mark_at
        self.release()

    def has_more(self) -> Read[bool]:
        """Wait for a character to read; false at the end of the text."""
        while self.at == len(self.text):
            if self.ended:
                return False
            yield
        return True

    def peek(self) -> Read[str]:
        """Return the next character without reading it; empty at the end of the text."""
        return self.text[self.at] if (yield from self.has_more()) else ""

    def read_one(self, characters: str, parts: list[str] | None = None) -> Read[bool]:
        """Read the next character if it is one of `characters`, and append it to `parts`."""
        if not (yield from self.has_more()) or self.text[self.at] not in characters:
            return False
        if parts is not None:
            parts.append(self.text[self.at])
        self.at += 1
        return True

    def read_word(self, word: str, parts: list[str] | None = None) -> Read[bool]:
        """Read `word`, as far as it is there; false unless all of it is."""
        for character in word:
            if not (yield from self.read_one(character, parts)):
                return False
        return True

    def read_run(self, pattern: re.Pattern[str], parts: list[str] | None = None) -> Read[bool]:
        """Read the longest match of `pattern`, a repeated character class; false where it is empty."""
        found = False
        while (yield from self.has_more()):
            end = _end(pattern, self.text, self.at)
            if end == self.at:
                break
            found = True
            if parts is not None:
                parts.append(self.text[self.at : end])
            self.at = end
            if end < len(self.text):
                break
        return found

    def skip_whitespace(self, parts: list[str] | None = None) -> Read[None]:
        """Read white space."""
        yield from self.read_run(WHITESPACE, parts)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
