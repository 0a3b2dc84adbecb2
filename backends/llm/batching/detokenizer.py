"""Tokens to text, a token at a time."""

from tokenizers import Tokenizer

from backends.llm.engine import TokenIds

_REPLACEMENT = "\ufffd"
# Tokens of the prompt that a decoder may need to place the first space (SentencePiece drops a leading one).
_CONTEXT_TOKENS = 6
# A character has at most four bytes, so at most three tokens at the end can be an incomplete one: what is still broken
# before them, after some patience, never was a character.
_MAX_INCOMPLETE_TOKENS = 3
_MAX_HELD_TOKENS = 8
# Tokens that are kept although they have been shown.
_MAX_KEPT_TOKENS = 1024


class Detokenizer:
    """Gives the text of each token as soon as it is whole; special tokens are hidden unless they are wanted.

    A token may end inside a character. What is decoded from a little before it shows this by a replacement character
    at its end, and is held until the character is complete. The method is that of Text Generation Inference and vLLM;
    unlike `tokenizers.decoders.DecodeStream` it can be flushed.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: TokenIds, *, special: bool = False) -> None:
        """`special` shows special tokens, too."""
        self._tokenizer = tokenizer
        self._shows_special_tokens = special
        self._tokens: list[int] = [int(token) for token in prompt[-_CONTEXT_TOKENS:]]
        self._prefix_offset = 0
        self._read_offset = len(self._tokens)
        self._prefix_text = self._decode(self._tokens)

    def feed(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._prefix_offset :])
        if not text.endswith(_REPLACEMENT):
            return self._advance(text, len(self._tokens)) if len(text) > len(self._prefix_text) else ""
        if len(self._tokens) - self._read_offset < _MAX_HELD_TOKENS:
            return ""
        settled = len(self._tokens) - _MAX_INCOMPLETE_TOKENS
        return self._advance(self._decode(self._tokens[self._prefix_offset : settled]), settled)

    def flush(self) -> str:
        """What is left at the end: an incomplete character becomes a replacement character."""
        return self._advance(self._decode(self._tokens[self._prefix_offset :]), len(self._tokens))

    def _advance(self, text: str, shown: int) -> str:
        """Show `text`, which the tokens up to `shown` make together with the text before."""
        fresh = text[len(self._prefix_text) :]
        self._prefix_offset, self._read_offset = self._read_offset, shown
        self._prefix_text = self._decode(self._tokens[self._prefix_offset : self._read_offset])
        if self._prefix_offset > _MAX_KEPT_TOKENS:
            del self._tokens[: self._prefix_offset]
            self._prefix_offset, self._read_offset = 0, self._read_offset - self._prefix_offset
        return fresh

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not self._shows_special_tokens))
