"""Tokenisation of the inputs of a request."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from backends.embedding.encoder import TokenIds
from backends.embedding.options import Options
from backends.serving.errors import Cancelled, ContextLengthExceeded, InvalidValue
from backends.serving.prompt_length import max_token_bytes, text_prefix, token_count_above

PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The names under which checkpoints store the prompt of a purpose, as sentence-transformers looks them up."""

_MAX_UNSLICED_CHARS = 65_536
"""Length in characters above which a text is first measured in slices."""

_MAX_BATCH_BYTES = 262_144
"""Bytes of texts tokenised between two checks for a disconnect; they take some tens of milliseconds."""

_MIN_TEXT_COST_BYTES = 64
"""Bytes by which the cost of tokenising a text exceeds its length."""

IntegerArray = npt.NDArray[np.integer[Any]]


class InputTokenizer:
    """Tokenises with the checkpoint's tokenizer. All methods may be called from any thread."""

    def __init__(self, tokenizer: Tokenizer, options: Options, vocab_size: int) -> None:
        """`tokenizer` neither truncates nor pads."""
        self._tokenizer = tokenizer
        self._options = options
        self._vocab_size = vocab_size
        self._num_special_tokens = tokenizer.num_special_tokens_to_add(is_pair=False)
        # A text may have fewer bytes in lower case.
        self._max_token_bytes = None if options.lowercase else max_token_bytes(tokenizer)

    def encode(
        self,
        documents: Sequence[bytes],
        purpose: str | None = None,
        *,
        max_tokens: int | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[TokenIds]:
        """Tokenise UTF-8 texts: int64[tokens] for each, with special tokens and the prompt for `purpose`.

        A text of more than `max_tokens` loses its end but not the special tokens after it. Without `max_tokens` a text
        that is longer than the context is refused. Raises `InvalidValue`, `ContextLengthExceeded`, or `Cancelled` once
        `is_cancelled` returns true.
        """
        if not documents:
            raise InvalidValue("There must be one text at least.", "text")
        if max_tokens is not None and max_tokens <= self._num_special_tokens:
            raise InvalidValue(
                f"Every text has {self._num_special_tokens} special tokens: this must be "
                f"{self._num_special_tokens + 1} at least, not {max_tokens}.",
                "truncate_prompt_tokens",
            )
        prompt = self._prompt(purpose)
        tokens: list[TokenIds] = []
        for start, stop in _batches(documents):
            if is_cancelled():
                raise Cancelled("The request was cancelled.")
            texts = [
                self._prepare_text(number, documents[number], prompt, max_tokens, is_cancelled)
                for number in range(start, stop)
            ]
            # The batch call releases Python's global lock, so that the network runs meanwhile.
            encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=max_tokens is None)
            if max_tokens is not None:
                encoded = [self._truncate(encoding, max_tokens) for encoding in encoded]
            tokens += self._check_lengths([np.array(encoding.ids, np.int64) for encoding in encoded], "text", start)
        return tokens

    def _truncate(self, encoding: Encoding, max_tokens: int) -> Encoding:
        """Cut an encoding so that it has at most `max_tokens` with its special tokens, and add these."""
        keep = max_tokens - self._num_special_tokens
        # The library stores the cut-off part in pieces of the remaining length: thousands unless halved repeatedly.
        while len(encoding) > 2 * keep:
            encoding.truncate(len(encoding) // 2 + 1)
        encoding.truncate(keep)
        return self._tokenizer.post_process(encoding)

    def _prepare_text(
        self, number: int, document: bytes, prompt: str, max_tokens: int | None, is_cancelled: Callable[[], bool]
    ) -> str:
        """Return the text to tokenise. A document that is far too long is refused or cut without tokenising it all."""
        limit = self._options.context_length
        if self._max_token_bytes and max_tokens is None:
            min_count = -(-len(document) // self._max_token_bytes)
            if min_count > limit:
                raise self._too_long(number, f"at least {min_count}", "text")
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"Input {number} is not UTF-8: {error.reason} at byte {error.start}."
            raise InvalidValue(reason, "text") from None
        text = prompt + (text.lower() if self._options.lowercase else text)
        if len(text) <= _MAX_UNSLICED_CHARS:
            return text
        if max_tokens is not None:  # with a margin, because the tokens next to a cut may differ
            return text_prefix(self._tokenizer, text, 2 * limit, is_cancelled)
        if count := token_count_above(self._tokenizer, text, 2 * limit, is_cancelled):
            raise self._too_long(number, f"at least {count}", "text")
        return text

    def split(self, token_ids: IntegerArray, counts: IntegerArray | None) -> list[TokenIds]:
        """Split concatenated token ids into inputs of `counts` tokens: int64[tokens] each. Raises `InvalidValue`."""
        tokens = token_ids.reshape(-1).astype(np.int64)
        if counts is None:
            lists = [tokens]
        else:
            lengths = counts.reshape(-1).astype(np.int64)
            if not len(lengths) or (lengths < 0).any() or int(lengths.sum()) != len(tokens):
                raise InvalidValue(
                    f"The counts must add up to the number of token ids, which is {len(tokens)}.", "token_counts"
                )
            lists = np.split(tokens, np.cumsum(lengths)[:-1])
        wrong = tokens[(tokens < 0) | (tokens >= self._vocab_size)]
        if len(wrong):
            raise InvalidValue(f"The token {wrong[0]} is outside the vocabulary of {self._vocab_size}.", "token_ids")
        return lists

    def validate_token_ids(
        self, token_ids: IntegerArray, counts: IntegerArray | None, *, max_tokens: int | None = None
    ) -> list[TokenIds]:
        """Return a client's token ids, int64[tokens] for each input, cut to `max_tokens`.

        Raises `InvalidValue` or `ContextLengthExceeded`.
        """
        lists = self.split(token_ids, counts)
        if max_tokens is not None:
            lists = [tokens[:max_tokens] for tokens in lists]
        return self._check_lengths(lists, "token_ids")

    def _prompt(self, purpose: str | None) -> str:
        if purpose is None:
            return self._options.prompts.get(self._options.default_prompt or "", "")
        if purpose not in PROMPT_NAMES:
            raise InvalidValue(f"This must be one of {', '.join(PROMPT_NAMES)}, not {purpose[:100]!r}.", "purpose")
        names = [name for name in PROMPT_NAMES[purpose] if name in self._options.prompts]
        return self._options.prompts[names[0]] if names else ""

    def _check_lengths(self, lists: list[TokenIds], name: str, first: int = 0) -> list[TokenIds]:
        for number, tokens in enumerate(lists, first):
            if not len(tokens):
                raise InvalidValue(f"Input {number} has no tokens.", name)
            if len(tokens) > self._options.context_length:
                raise self._too_long(number, len(tokens), name)
        return lists

    def _too_long(self, number: int, num_tokens: int | str, name: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"Input {number} has {num_tokens} tokens; the model takes {self._options.context_length}.", name
        )


def _batches(documents: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of slices of `documents`, each of at most `_MAX_BATCH_BYTES` of cost or of one document."""
    start = size = 0
    for number, document in enumerate(documents):
        cost = len(document) + _MIN_TEXT_COST_BYTES
        if start < number and size + cost > _MAX_BATCH_BYTES:
            yield start, number
            start, size = number, 0
        size += cost
    yield start, len(documents)
