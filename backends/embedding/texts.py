"""From what a request asks to lists of tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.embedding.encoder import Tokens
from backends.embedding.options import Options
from backends.serving.errors import ContextLengthExceeded, InvalidValue
from backends.serving.prompt_length import too_many_tokens

PURPOSES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The names that checkpoints give to the prompt for a purpose; sentence-transformers looks for the same."""

_LONG = 65_536
"""Characters; longer texts are looked at in slices first."""

Integers = npt.NDArray[np.integer[Any]]


class Texts:
    """Tokenises with the checkpoint's own tokenizer. All methods may be called from any thread."""

    def __init__(self, tokenizer: Tokenizer, options: Options, vocab_size: int) -> None:
        """Take a tokenizer that neither cuts nor pads."""
        self._tokenizer = tokenizer
        self._options = options
        self._vocab_size = vocab_size
        self._cutting = Tokenizer.from_str(tokenizer.to_str())
        self._cutting.enable_truncation(options.context_length)

    def encode(
        self,
        documents: Sequence[bytes],
        purpose: str | None = None,
        *,
        truncate: bool = False,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Tokens]:
        """Tokens of UTF-8 texts: int64[tokens] each, special tokens and the prompt for `purpose` included.

        Raises `InvalidValue`, `ContextLengthExceeded`, or `Cancelled` where `is_cancelled` says so.
        """
        if not documents:
            raise InvalidValue("There must be one text at least.", "text")
        prompt = self._prompt(purpose)
        texts = []
        for number, document in enumerate(documents):
            try:
                text = document.decode("utf-8")
            except UnicodeDecodeError as error:
                reason = f"Input {number} is not UTF-8: {error.reason} at byte {error.start}."
                raise InvalidValue(reason, "text") from None
            text = prompt + (text.lower() if self._options.lowercase else text)
            if len(text) > _LONG and not truncate:
                limit = 2 * self._options.context_length
                if count := too_many_tokens(self._tokenizer, text, limit, is_cancelled):
                    raise self._too_long(number, f"at least {count}", "text")
            texts.append(text)
        # The call for batches lets go of Python's lock, so that runs go on meanwhile.
        encoded = (self._cutting if truncate else self._tokenizer).encode_batch_fast(texts)
        found = [np.array(encoding.ids, np.int64) for encoding in encoded]
        return self._checked(found, "text")

    def split(self, token_ids: Integers, counts: Integers | None) -> list[Tokens]:
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

    def check(self, token_ids: Integers, counts: Integers | None, *, truncate: bool = False) -> list[Tokens]:
        """Token ids as a client gave them: int64[tokens] each. Raises `InvalidValue` or `ContextLengthExceeded`."""
        lists = self.split(token_ids, counts)
        if truncate:
            lists = [tokens[: self._options.context_length] for tokens in lists]
        return self._checked(lists, "token_ids")

    def _prompt(self, purpose: str | None) -> str:
        if purpose is None:
            return self._options.prompts.get(self._options.default_prompt or "", "")
        if purpose not in PURPOSES:
            raise InvalidValue(f"This must be one of {', '.join(PURPOSES)}, not {purpose[:100]!r}.", "purpose")
        names = [name for name in PURPOSES[purpose] if name in self._options.prompts]
        return self._options.prompts[names[0]] if names else ""

    def _checked(self, lists: list[Tokens], name: str) -> list[Tokens]:
        for number, tokens in enumerate(lists):
            if not len(tokens):
                raise InvalidValue(f"Input {number} has no tokens.", name)
            if len(tokens) > self._options.context_length:
                raise self._too_long(number, len(tokens), name)
        return lists

    def _too_long(self, number: int, num_tokens: int | str, name: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"Input {number} has {num_tokens} tokens; the model takes {self._options.context_length}.", name
        )
