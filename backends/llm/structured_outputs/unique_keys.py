"""That no key of an object is written twice, which no grammar can say: it would have to remember all that came before.

Names that a schema knows come at most once by the grammar. This looks after the others, in objects that may have any.
In a structural tag an answer may be another text instead: what looks like a key there is treated as one.
"""

from llguidance import LLTokenizer

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_OPENERS, _CLOSERS = b"{[", b"}]"
_OUTSIDE, _VALUE, _KEY = range(3)


class QuoteTokens:
    """The tokens of a vocabulary in which a key may end."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        """Takes 10 ms for 50,000 tokens."""
        quoted = []
        for token in range(tokenizer.vocab_size):
            text = tokenizer.decode_bytes([token])
            if _QUOTE in text:
                quoted.append((text, token))
        self.multi_quote_tokens = [(text, token) for text, token in quoted if text.count(_QUOTE) > 1]
        """Tokens of two quotation marks or more, in which a key may begin and end."""
        self.key_endings = [
            (text[:at], token) for text, token in quoted for at in range(len(text)) if text[at] == _QUOTE
        ]
        """For each quotation mark of a token: the bytes before it, which end a key, and the token."""


class UniqueKeyTracker:
    """The keys of an answer that grows: JSON, as its grammar demands."""

    __slots__ = ("_escaped", "_expects_key", "_key", "_open_objects", "_quote_tokens", "_state", "_tokenizer")

    def __init__(self, tokenizer: LLTokenizer, words: QuoteTokens) -> None:
        self._tokenizer = tokenizer
        self._quote_tokens = words
        self._open_objects: list[set[bytes] | None] = []
        """The keys of each object that is open, None for an array."""
        self._state = _OUTSIDE
        self._escaped = False
        self._expects_key = False
        """Whether the next string is a key."""
        self._key = bytearray()

    def consume(self, token: int) -> None:
        """Go on by a token."""
        text = self._tokenizer.decode_bytes([token])
        self._open_objects, self._state, self._escaped, self._expects_key, self._key, _ = self._advance(
            text, self._open_objects, self._key
        )

    def without_duplicates(self, mask: bytes) -> bytes:
        """Return a mask, a bit for each token that may come next, without those that would write a key again.

        Where nothing else could come, a key may be written again.
        """
        banned = [
            token
            for text, token in self._quote_tokens.multi_quote_tokens
            if mask[token >> 3] >> (token & 7) & 1 and self._is_duplicate(text)
        ]
        seen = self._open_objects[-1] if self._open_objects else None
        if self._state == _KEY and seen:
            key = bytes(self._key)
            # However many keys there are: other answers of the same structure wait meanwhile.
            banned += [token for end, token in self._quote_tokens.key_endings if key + end in seen]
        if not banned:
            return mask
        left = bytearray(mask)
        for token in banned:
            left[token >> 3] &= ~(1 << (token & 7))
        return bytes(left) if any(left) else mask

    def _is_duplicate(self, text: bytes) -> bool:
        return self._advance(text, list(self._open_objects), bytearray(self._key), trying=True)[-1]

    def _advance(
        self, text: bytes, opened: list[set[bytes] | None], key: bytearray, trying: bool = False
    ) -> tuple[list[set[bytes] | None], int, bool, bool, bytearray, bool]:
        place, escaped, expected, twice = self._state, self._escaped, self._expects_key, False
        tried: list[tuple[int, bytes]] = []
        for byte in text:
            if place:
                if escaped:
                    escaped = False
                elif byte == _BACKSLASH:
                    escaped = True
                elif byte == _QUOTE:
                    seen = opened[-1] if opened else None
                    if place == _KEY and seen is not None:
                        one = (len(opened), bytes(key))
                        twice |= one[1] in seen or one in tried
                        if trying:
                            tried.append(one)
                        else:
                            seen.add(one[1])
                    place = _OUTSIDE
                    continue
                if place == _KEY:
                    key.append(byte)
            elif byte == _QUOTE:
                place, expected = (_KEY if expected else _VALUE), False
                key.clear()
            elif byte in _OPENERS:
                expected = byte == _OPENERS[0]
                tried = [one for one in tried if one[0] <= len(opened)]
                opened.append(set() if expected else None)
            elif byte in _CLOSERS:
                expected = False
                if opened:
                    opened.pop()
            elif byte == _COMMA:
                expected = bool(opened) and opened[-1] is not None
        return opened, place, escaped, expected, key, twice
