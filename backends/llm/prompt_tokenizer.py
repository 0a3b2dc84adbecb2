"""Tokenization of prompts: text or token ids from a request, checked, to int64[n].

It knows the tokenizer, the vocabulary and the context length. It knows no chat templates: the gateway renders them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.llm.engine import TokenIds
from backends.llm.literal_tokenizer import LiteralSpans, LiteralTokenizer
from backends.serving.errors import ContextLengthExceeded, InvalidValue
from backends.serving.prompt_length import max_token_bytes, token_count_above

_SLICED_TEXT_BYTES = 65_536
"""Above this size, tokens are first counted slice by slice, so that a prompt far too long is refused early."""


class PromptTokenizer:
    """Tokenizes with the checkpoint's own tokenizer. All methods may be called from any thread."""

    def __init__(self, tokenizer: Tokenizer, *, bos: str | None, vocab_size: int, context_length: int) -> None:
        """`bos` is the text of the beginning-of-sequence token; None if the checkpoint's configuration names none."""
        self._tokenizer = tokenizer
        # A rendered chat template contains the beginning-of-sequence token already; a second one spoils the answer.
        self._bos = bos
        self._bos_texts = tuple(text.encode() for text in (bos, _added_prefix(tokenizer)) if text)
        self._vocab_size = vocab_size
        self._context_length = context_length
        self._longest_token = max_token_bytes(tokenizer)
        self._literal_tokenizer = LiteralTokenizer(tokenizer)

    def encode(
        self, document: bytes, is_cancelled: Callable[[], bool] = lambda: False, *, spans: LiteralSpans = ()
    ) -> TokenIds:
        """Tokenize UTF-8 text: int64[n].

        An empty text becomes the beginning-of-sequence token. Inside `spans`, special tokens are plain text. A text far
        too long for the context is refused before it is tokenized as a whole.

        Raises `InvalidValue` or `ContextLengthExceeded`, naming `text_input`, and `Cancelled` if `is_cancelled` returns
        true while a long text is being counted.
        """
        if self._longest_token and (least := -(-len(document) // self._longest_token)) >= self._context_length:
            raise self._too_long(f"at least {least}", "text_input")
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidValue(f"This is not UTF-8: {error.reason} at byte {error.start}.", "text_input") from None
        if not text:
            bos_id = self._tokenizer.token_to_id(self._bos) if self._bos else None
            if bos_id is None:
                raise InvalidValue("The prompt is empty, and this model has no token to begin with.", "text_input")
            return self._check_vocabulary(np.array([bos_id], np.int64), "text_input")
        if len(document) > _SLICED_TEXT_BYTES:
            count = token_count_above(self._tokenizer, text, 2 * self._context_length, is_cancelled)
            if count:
                raise self._too_long(f"at least {count}", "text_input")
        before_spans = document[: spans[0][0]] if spans else document
        has_bos = before_spans.startswith(self._bos_texts)
        if spans:
            tokens = self._literal_tokenizer.encode(document, spans, add_special_tokens=not has_bos)
        else:
            # A batch of one, because this call releases the GIL and `encode` does not: a long prompt would delay
            # every decode step that runs meanwhile.
            (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=not has_bos)
            tokens = np.array(encoding.ids, np.int64)
        if len(tokens) >= self._context_length:
            raise self._too_long(len(tokens), "text_input")
        if not len(tokens):
            raise InvalidValue("The prompt has no tokens.", "text_input")
        return self._check_vocabulary(tokens, "text_input")

    def validate_token_ids(self, token_ids: npt.NDArray[np.integer[Any]]) -> TokenIds:
        """Return the token ids of a request as int64[n]. Raises as `encode`, naming `token_ids`."""
        tokens = token_ids.reshape(-1).astype(np.int64)
        if not len(tokens):
            raise InvalidValue("The prompt is empty.", "token_ids")
        if len(tokens) >= self._context_length:
            raise self._too_long(len(tokens), "token_ids")
        return self._check_vocabulary(tokens, "token_ids")

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of a prompt that came as token ids, special tokens included."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False))

    def _check_vocabulary(self, tokens: TokenIds, name: str) -> TokenIds:
        wrong = tokens[(tokens < 0) | (tokens >= self._vocab_size)]
        if len(wrong):
            raise InvalidValue(f"The token {wrong[0]} is outside the vocabulary of {self._vocab_size}.", name)
        return tokens

    def _too_long(self, num_tokens: int | str, name: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"The prompt has {num_tokens} tokens; the context has room for {self._context_length}, "
            "one of them for the answer.",
            name,
        )


def _added_prefix(tokenizer: Tokenizer) -> str:
    """Return the special tokens that the tokenizer itself puts before a text; the checkpoint's configuration may omit
    or contradict them.
    """
    encoding = tokenizer.encode("a")
    first = next((i for i, special in enumerate(encoding.special_tokens_mask) if not special), 0)
    return "".join(encoding.tokens[:first])
