"""Prevents duplicate keys in JSON objects, which a grammar cannot: it would have to remember all earlier keys.

The grammar itself allows each member that a schema names at most once. This module handles all other keys, in objects
that may have any. In a structural tag, other text may look like a key; it is treated as one.
"""

from llguidance import LLTokenizer

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_OPENERS, _CLOSERS = b"{[", b"}]"
_OUTSIDE, _VALUE, _KEY = range(3)


class QuoteTokens:
    """The tokens of a vocabulary with quotation marks: those in which a key may end."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        """Search the vocabulary, which takes 10 ms for 50,000 tokens."""
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
    """Tracks the keys of one answer, which is JSON as its grammar demands."""

    __slots__ = ("_escaped", "_expects_key", "_key", "_open_objects", "_quote_tokens", "_state", "_tokenizer")

    def __init__(self, tokenizer: LLTokenizer, quote_tokens: QuoteTokens) -> None:
        self._tokenizer = tokenizer
        self._quote_tokens = quote_tokens
        self._open_objects: list[set[bytes] | None] = []
        """The keys of each open object, outermost first; None for an array."""
        self._state = _OUTSIDE
        self._escaped = False
        self._expects_key = False
        """True if the next string is a key."""
        self._key = bytearray()

    def consume(self, token: int) -> None:
        """Advance by a token."""
        text = self._tokenizer.decode_bytes([token])
        self._open_objects, self._state, self._escaped, self._expects_key, self._key, _ = self._advance(
            text, self._open_objects, self._key
        )

    def without_duplicates(self, mask: bytes) -> bytes:
        """Return `mask`, a bit for each token that may come next, without the tokens that would repeat a key.

        Return it unchanged if no other token would be left.
        """
        banned = [
            token
            for text, token in self._quote_tokens.multi_quote_tokens
            if mask[token >> 3] >> (token & 7) & 1 and self._is_duplicate(text)
        ]
        seen = self._open_objects[-1] if self._open_objects else None
        if self._state == _KEY and seen:
            key = bytes(self._key)
            # One set lookup per token, however many keys there are: other answers of the structure wait meanwhile.
            banned += [token for end, token in self._quote_tokens.key_endings if key + end in seen]
        if not banned:
            return mask
        allowed = bytearray(mask)
        for token in banned:
            allowed[token >> 3] &= ~(1 << (token & 7))
        return bytes(allowed) if any(allowed) else mask

    def _is_duplicate(self, text: bytes) -> bool:
        return self._advance(text, list(self._open_objects), bytearray(self._key), is_trial=True)[-1]

    def _advance(
        self, text: bytes, open_objects: list[set[bytes] | None], key: bytearray, is_trial: bool = False
    ) -> tuple[list[set[bytes] | None], int, bool, bool, bytearray, bool]:
        state, escaped, expects_key, is_duplicate = self._state, self._escaped, self._expects_key, False
        new_keys: list[tuple[int, bytes]] = []
        for byte in text:
            if state:
                if escaped:
                    escaped = False
                elif byte == _BACKSLASH:
                    escaped = True
                elif byte == _QUOTE:
                    seen = open_objects[-1] if open_objects else None
                    if state == _KEY and seen is not None:
                        key_at_depth = (len(open_objects), bytes(key))
                        is_duplicate |= key_at_depth[1] in seen or key_at_depth in new_keys
                        if is_trial:
                            new_keys.append(key_at_depth)
                        else:
                            seen.add(key_at_depth[1])
                    state = _OUTSIDE
                    continue
                if state == _KEY:
                    key.append(byte)
            elif byte == _QUOTE:
                state, expects_key = (_KEY if expects_key else _VALUE), False
                key.clear()
            elif byte in _OPENERS:
                expects_key = byte == _OPENERS[0]
                new_keys = [key_at_depth for key_at_depth in new_keys if key_at_depth[0] <= len(open_objects)]
                open_objects.append(set() if expects_key else None)
            elif byte in _CLOSERS:
                expects_key = False
                if open_objects:
                    open_objects.pop()
            elif byte == _COMMA:
                expects_key = bool(open_objects) and open_objects[-1] is not None
        return open_objects, state, escaped, expects_key, key, is_duplicate
