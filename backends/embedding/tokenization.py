"""From what a request asks to lists of tokens."""

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
"""The names that checkpoints give to the prompt for a purpose; sentence-transformers looks for the same."""

_MAX_UNSLICED_CHARS = 65_536
"""Characters; longer texts are looked at in slices first."""

_MAX_BATCH_BYTES = 262_144
"""Bytes of texts that are tokenised at once, in some tens of milliseconds; then it is asked who still wants them."""

_MIN_TEXT_COST_BYTES = 64
"""Bytes that any text counts for beyond its own."""

IntegerArray = npt.NDArray[np.integer[Any]]


class InputTokenizer:
    """Tokenises with the checkpoint's own tokenizer. All methods may be called from any thread."""

    def __init__(self, tokenizer: Tokenizer, options: Options, vocab_size: int) -> None:
        """Take a tokenizer that neither cuts nor pads."""
        self._tokenizer = tokenizer
        self._options = options
        self._vocab_size = vocab_size
        self._num_special_tokens = tokenizer.num_special_tokens_to_add(is_pair=False)
        # Lower case may take fewer bytes than what it is made of.
        self._max_token_bytes = None if options.lowercase else max_token_bytes(tokenizer)

    def encode(
        self,
        documents: Sequence[bytes],
        purpose: str | None = None,
        *,
        cut: int | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[TokenIds]:
        """Tokens of UTF-8 texts: int64[tokens] each, special tokens and the prompt for `purpose` included.

        Texts of more than `cut` tokens lose their ends, and keep the special tokens behind them. With None, those of
        more than the context are refused. Raises `InvalidValue`, `ContextLengthExceeded`, or `Cancelled` where
        `is_cancelled` says so.
        """
        if not documents:
            raise InvalidValue("There must be one text at least.", "text")
        if cut is not None and cut <= self._num_special_tokens:
            raise InvalidValue(
                f"Every text has {self._num_special_tokens} special tokens: this must be "
                f"{self._num_special_tokens + 1} at least, not {cut}.",
                "truncate_prompt_tokens",
            )
        prompt = self._prompt(purpose)
        found: list[TokenIds] = []
        for start, stop in _batches(documents):
            if is_cancelled():
                raise Cancelled("The request was cancelled.")
            texts = [
                self._prepare_text(number, documents[number], prompt, cut, is_cancelled)
                for number in range(start, stop)
            ]
            # The call for batches lets go of Python's lock, so that runs go on meanwhile.
            encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=cut is None)
            if cut is not None:
                encoded = [self._truncate(encoding, cut) for encoding in encoded]
            found += self._check_lengths([np.array(encoding.ids, np.int64) for encoding in encoded], "text", start)
        return found

    def _truncate(self, encoding: Encoding, tokens: int) -> Encoding:
        """Add the special tokens to as much of the beginning as leaves room for them."""
        keep = tokens - self._num_special_tokens
        # What is cut off is kept beside it, in pieces as long as what is left: thousands, unless it is halved first.
        while len(encoding) > 2 * keep:
            encoding.truncate(len(encoding) // 2 + 1)
        encoding.truncate(keep)
        return self._tokenizer.post_process(encoding)

    def _prepare_text(
        self, number: int, document: bytes, prompt: str, cut: int | None, is_cancelled: Callable[[], bool]
    ) -> str:
        """What is to be tokenised of a document. One that is far too long is refused, or cut, untokenised."""
        limit = self._options.context_length
        if self._max_token_bytes and cut is None and (least := -(-len(document) // self._max_token_bytes)) > limit:
            raise self._too_long(number, f"at least {least}", "text")
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"Input {number} is not UTF-8: {error.reason} at byte {error.start}."
            raise InvalidValue(reason, "text") from None
        text = prompt + (text.lower() if self._options.lowercase else text)
        if len(text) <= _MAX_UNSLICED_CHARS:
            return text
        if cut is not None:  # with a margin, for the tokens beside the cut may be others
            return text_prefix(self._tokenizer, text, 2 * limit, is_cancelled)
        if count := token_count_above(self._tokenizer, text, 2 * limit, is_cancelled):
            raise self._too_long(number, f"at least {count}", "text")
        return text

    def split(self, token_ids: IntegerArray, counts: IntegerArray | None) -> list[TokenIds]:
        """Cut lists of ids that came one after the other: int64[tokens] each. Raises `InvalidValue`."""
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
        self, token_ids: IntegerArray, counts: IntegerArray | None, *, cut: int | None = None
    ) -> list[TokenIds]:
        """Token ids as a client gave them, `cut` as texts are: int64[tokens] each.

        Raises `InvalidValue` or `ContextLengthExceeded`.
        """
        lists = self.split(token_ids, counts)
        if cut is not None:
            lists = [tokens[:cut] for tokens in lists]
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
    """Bounds of slices of some documents, each of `_BATCH` bytes or one document; short ones cost more than bytes."""
    start = size = 0
    for number, document in enumerate(documents):
        cost = len(document) + _MIN_TEXT_COST_BYTES
        if start < number and size + cost > _MAX_BATCH_BYTES:
            yield start, number
            start, size = number, 0
        size += cost
    yield start, len(documents)
