"""Incremental detokenization: text from tokens, one token at a time, with no partial characters."""

from tokenizers import Tokenizer

from backends.llm.engine import TokenIds

_REPLACEMENT = "\ufffd"
_CONTEXT_TOKENS = 6
"""Tokens of the prompt that are decoded before the answer, to place its first space (SentencePiece drops a leading
one)."""
_MAX_INCOMPLETE_TOKENS = 3
"""A character has at most four bytes, so at most the last three tokens can be an incomplete one."""
_MAX_HELD_TOKENS = 8
"""Tokens without complete text after which all but the last `_MAX_INCOMPLETE_TOKENS` count as invalid bytes."""
_MAX_KEPT_TOKENS = 1024
"""Tokens that stay in the list after their text was returned; longer lists are cut, so that they stay bounded."""


class Detokenizer:
    """Returns the text of each token as soon as it is complete. Special tokens are hidden by default.

    A token may end inside a character. Decoding from a few tokens before it then yields text that ends with a
    replacement character; it is held back until the character is complete. Text Generation Inference and vLLM use the
    same method. Unlike `tokenizers.decoders.DecodeStream`, it can be flushed.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: TokenIds, *, show_special_tokens: bool = False) -> None:
        """`prompt` is int64[n]; `show_special_tokens` includes special tokens in the text."""
        self._tokenizer = tokenizer
        self._shows_special_tokens = show_special_tokens
        self._tokens: list[int] = [int(token) for token in prompt[-_CONTEXT_TOKENS:]]
        self._prefix_offset = 0
        self._read_offset = len(self._tokens)
        self._prefix_text = self._decode(self._tokens)

    def feed(self, token: int) -> str:
        """Return the text that `token` completes; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._prefix_offset :])
        if not text.endswith(_REPLACEMENT):
            return self._advance(text, len(self._tokens)) if len(text) > len(self._prefix_text) else ""
        if len(self._tokens) - self._read_offset < _MAX_HELD_TOKENS:
            return ""
        num_complete = len(self._tokens) - _MAX_INCOMPLETE_TOKENS
        return self._advance(self._decode(self._tokens[self._prefix_offset : num_complete]), num_complete)

    def flush(self) -> str:
        """Return the text held back at the end. An incomplete character becomes a replacement character."""
        return self._advance(self._decode(self._tokens[self._prefix_offset :]), len(self._tokens))

    def _advance(self, text: str, num_shown: int) -> str:
        """Return the text that `text` adds to the text before; `text` is decoded from the tokens up to `num_shown`."""
        new_text = text[len(self._prefix_text) :]
        self._prefix_offset, self._read_offset = self._read_offset, num_shown
        self._prefix_text = self._decode(self._tokens[self._prefix_offset : self._read_offset])
        if self._prefix_offset > _MAX_KEPT_TOKENS:
            del self._tokens[: self._prefix_offset]
            self._prefix_offset, self._read_offset = 0, self._read_offset - self._prefix_offset
        return new_text

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not self._shows_special_tokens))
