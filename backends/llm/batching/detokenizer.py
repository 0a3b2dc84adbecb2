"""Tokens to text, a token at a time."""

from tokenizers import Tokenizer

from backends.llm.engine import Tokens

_REPLACEMENT = "\ufffd"
# Tokens of the prompt that a decoder may need to place the first space (SentencePiece drops a leading one).
_CONTEXT = 6
# A character has at most four bytes, so at most three tokens at the end can be an incomplete one: what is still broken
# before them, after some patience, never was a character.
_INCOMPLETE = 3
_PATIENCE = 8
# Tokens that are kept although they have been shown.
_KEPT = 1024


class Detokenizer:
    """Gives the text of each token as soon as it is whole; special tokens are hidden unless they are wanted.

    A token may end inside a character. What is decoded from a little before it shows this by a replacement character
    at its end, and is held until the character is complete. The method is that of Text Generation Inference and vLLM;
    unlike `tokenizers.decoders.DecodeStream` it can be flushed.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Tokens, *, special: bool = False) -> None:
        """`special` shows special tokens, too."""
        self._tokenizer = tokenizer
        self._special = special
        self._tokens: list[int] = [int(token) for token in prompt[-_CONTEXT:]]
        self._start = 0
        self._shown = len(self._tokens)
        self._before = self._decode(self._tokens)

    def feed(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._start :])
        if not text.endswith(_REPLACEMENT):
            return self._advance(text, len(self._tokens)) if len(text) > len(self._before) else ""
        if len(self._tokens) - self._shown < _PATIENCE:
            return ""
        settled = len(self._tokens) - _INCOMPLETE
        return self._advance(self._decode(self._tokens[self._start : settled]), settled)

    def flush(self) -> str:
        """What is left at the end: an incomplete character becomes a replacement character."""
        return self._advance(self._decode(self._tokens[self._start :]), len(self._tokens))

    def _advance(self, text: str, shown: int) -> str:
        """Show `text`, which the tokens up to `shown` make together with the text before."""
        fresh = text[len(self._before) :]
        self._start, self._shown = self._shown, shown
        self._before = self._decode(self._tokens[self._start : self._shown])
        if self._start > _KEPT:
            del self._tokens[: self._start]
            self._start, self._shown = 0, self._shown - self._start
        return fresh

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not self._special))
