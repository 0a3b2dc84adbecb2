"""Literal spans: parts of a prompt, written by the caller, in which special tokens count as plain text.

So a user message cannot end its own turn or open another by spelling a special token.
"""

import secrets
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, models

from backends.llm.engine import TokenIds
from backends.serving.errors import InvalidValue

LiteralSpans: TypeAlias = tuple[tuple[int, int], ...]
"""(first byte, last byte + 1) of each span, in ascending order."""

_ZERO_WIDTH_SPACE = "\u200b"


def parse_literal_spans(values: npt.NDArray[np.integer[Any]], size: int) -> LiteralSpans:
    """Parse the input `literal_spans`, int[2n], for a text of `size` bytes. Empty spans are dropped.

    Raises `InvalidValue`, naming `literal_spans`.
    """
    bounds = values.reshape(-1).tolist()
    if len(bounds) % 2 or any(after < before for before, after in pairwise([0, *bounds, size])):
        raise InvalidValue(
            f"These must be pairs of a first byte and a last byte + 1, ascending, within text_input's {size} bytes.",
            "literal_spans",
        )
    return tuple((start, end) for start, end in zip(bounds[::2], bounds[1::2], strict=True) if start < end)


def split_at_spans(document: bytes, spans: LiteralSpans) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of a text in order, with true for the spans and false for the text between them."""
    at = 0
    for start, end in spans:
        yield document[at:start], False
        yield document[start:end], True
        at = end
    yield document[at:], False


def join_with_spans(parts: Iterable[tuple[bytes, bool]]) -> tuple[bytes, LiteralSpans]:
    """Join parts into one text, and return it with the spans: the reverse of `split_at_spans`."""
    document, spans, size = [], [], 0
    for part, literal in parts:
        if literal:
            spans.append((size, size + len(part)))
        document.append(part)
        size += len(part)
    return b"".join(document), tuple(spans)


class LiteralTokenizer:
    """Tokenizes a text as `tokenizer` does, but recognizes no special tokens inside its literal spans.

    It is a copy of the tokenizer that recognizes no special token by its own text, but has each under a secret name
    too, which no caller can guess. Outside the spans, special tokens are replaced by their secret names. So the text is
    still tokenized as a whole, and words next to a special token are split as usual. All methods may be called from any
    thread.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        # Some checkpoints have turn markers that they do not flag as special.
        tokens = {number: token for number, token in added.items() if token.special or _looks_special(token.content)}
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.add_special_tokens(
            [_copy_token(token, token.content, special=True) for token in tokens.values()]
        )
        self._tokenizer.encode_special_tokens = True
        secret = secrets.token_hex(16)
        names = {number: f"<|{secret}{i:06x}|>" for i, number in enumerate(tokens)}
        self._tokenizer.add_tokens([_copy_token(tokens[number], name, special=False) for number, name in names.items()])
        self._ids = np.arange(self._tokenizer.get_vocab_size(with_added_tokens=True), dtype=np.int64)
        for number, name in names.items():
            self._ids[self._tokenizer.token_to_id(name)] = number
        # Finds special tokens as tokenizers do: leftmost, longest, with the spaces that they strip.
        self._finder = Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        self._finder.add_tokens([_copy_token(token, token.content, special=False) for token in tokens.values()])
        self._secret_names = {self._finder.token_to_id(tokens[number].content): name for number, name in names.items()}
        # Special tokens that the base vocabulary contains as words too: their text has to be broken inside spans.
        self._vocabulary_words = [
            token.content
            for number, token in tokens.items()
            if number in self._tokenizer.encode(f"{token.content} {token.content}a", add_special_tokens=False).ids
        ]

    def encode(self, document: bytes, spans: LiteralSpans, *, add_special_tokens: bool) -> TokenIds:
        """Tokenize UTF-8 text: int64[n]. Raises `InvalidValue`, naming `literal_spans`, if a span cuts a character."""
        try:
            parts = [(part.decode("utf-8"), literal) for part, literal in split_at_spans(document, spans)]
        except UnicodeDecodeError:
            raise InvalidValue("A span begins or ends within a character.", "literal_spans") from None
        text = "".join(
            self._break_special_tokens(part) if literal else self._rename_special_tokens(part)
            for part, literal in parts
        )
        # A batch of one, because this call releases the GIL and `encode` does not.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        tokens: TokenIds = self._ids[np.array(encoding.ids, np.int64)]
        return tokens

    def _rename_special_tokens(self, text: str) -> str:
        (encoding,) = self._finder.encode_batch([text], add_special_tokens=False)
        pieces: list[str] = []
        at = 0
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if name := self._secret_names.get(number):
                pieces += (text[at:start], name)
                at = end
        return "".join((*pieces, text[at:]))

    def _break_special_tokens(self, text: str) -> str:
        for word in self._vocabulary_words:
            text = text.replace(word, word[:1] + _ZERO_WIDTH_SPACE + word[1:])
        return text


def _looks_special(content: str) -> bool:
    return content[:1] in ("<", "[") and content[-1:] in (">", "]") and not any(map(str.isspace, content))


def _copy_token(token: AddedToken, content: str, *, special: bool) -> AddedToken:
    return AddedToken(
        content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=special,
    )
