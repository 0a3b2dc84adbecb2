"""Bounds on the number of tokens of a text that do not need the whole text tokenised."""

from collections.abc import Callable, Iterator

from tokenizers import Tokenizer, models, pre_tokenizers

from backends.serving.errors import Cancelled

_SLICE_CHARS = 65_536
"""Characters tokenised between two checks for a disconnect; they take some tens of milliseconds."""


def max_token_bytes(tokenizer: Tokenizer) -> int | None:
    """Return the most bytes of text that one token can stand for; None if there is no such bound.

    Only byte-level BPE has a bound: a normalizer may shorten a text, and other models have one token for all unknown
    words, however long.
    """
    model = tokenizer.model
    if tokenizer.normalizer is not None or not isinstance(model, models.BPE) or model.fuse_unk:
        return None
    if "ByteLevel" not in str(tokenizer.pre_tokenizer) or "Removed" in str(tokenizer.pre_tokenizer):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if model.unk_token is None and not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        return None  # a byte that has no token is dropped silently
    if any(token.lstrip or token.rstrip for token in tokenizer.get_added_tokens_decoder().values()):
        return None  # such a token absorbs all adjacent spaces
    # A byte of text is one character of a token's name, of one or two bytes; the name of a special token is its text.
    return max(len(name.encode()) for name in vocabulary)


def token_count_above(tokenizer: Tokenizer, text: str, limit: int, is_cancelled: Callable[[], bool]) -> int | None:
    """Count tokens slice by slice; return the count as soon as it exceeds `limit`, or None if it never does.

    A slice may end within a token, so the count is exact to a few tokens per slice. Raises `Cancelled`.
    """
    return next((count for count, _ in _cumulative_token_counts(tokenizer, text, is_cancelled) if count > limit), None)


def text_prefix(tokenizer: Tokenizer, text: str, limit: int, is_cancelled: Callable[[], bool]) -> str:
    """Return the shortest prefix of whole slices with more than `limit` tokens, or the whole text.

    Raises `Cancelled`.
    """
    counts = _cumulative_token_counts(tokenizer, text, is_cancelled)
    return text[: next((end for count, end in counts if count > limit), len(text))]


def _cumulative_token_counts(
    tokenizer: Tokenizer, text: str, is_cancelled: Callable[[], bool]
) -> Iterator[tuple[int, int]]:
    """Yield, for each slice, the number of tokens up to its end and the index of its end. Raises `Cancelled`."""
    count = end = 0
    for part in _slices(text):
        if is_cancelled():
            raise Cancelled("The request was cancelled.")
        # A batch of one: this call releases Python's global lock, and `encode` does not.
        (encoding,) = tokenizer.encode_batch_fast([part], add_special_tokens=False)
        count, end = count + len(encoding), end + len(part)
        yield count, end


def _slices(text: str) -> Iterator[str]:
    """Yield the slices of a text, cut before a space or line break if the second half of a slice has one."""
    start = 0
    while start < len(text):
        end = start + _SLICE_CHARS
        if end < len(text):
            half = start + _SLICE_CHARS // 2
            cut = max(text.rfind(" ", half, end), text.rfind("\n", half, end))
            end = cut if cut > 0 else end
        yield text[start:end]
        start = end
