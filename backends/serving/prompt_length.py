"""Which texts are too long for certain, found without tokenising them whole."""

from collections.abc import Callable, Iterator

from tokenizers import Tokenizer, models, pre_tokenizers

from backends.serving.errors import Cancelled

# Tokenising this many characters takes some tens of milliseconds, and a caller who went away is noticed as often.
_SLICE_CHARS = 65_536


def max_token_bytes(tokenizer: Tokenizer) -> int | None:
    """No token stands for more bytes of text than this; None where a token may stand for any number of them.

    Only byte-level BPE gives a bound: normalizers shrink a text, and elsewhere one token may stand for every unknown
    word of any length.
    """
    model = tokenizer.model
    if tokenizer.normalizer is not None or not isinstance(model, models.BPE) or model.fuse_unk:
        return None
    if "ByteLevel" not in str(tokenizer.pre_tokenizer) or "Removed" in str(tokenizer.pre_tokenizer):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if model.unk_token is None and not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        return None  # a byte without a token is dropped in silence
    if any(token.lstrip or token.rstrip for token in tokenizer.get_added_tokens_decoder().values()):
        return None  # such a token takes all the spaces beside it
    # A byte is one character of a token's name, and one or two bytes of it; the name of a special token is its text.
    return max(len(name.encode()) for name in vocabulary)


def token_count_above(tokenizer: Tokenizer, text: str, limit: int, is_cancelled: Callable[[], bool]) -> int | None:
    """Count tokens slice by slice: a number above `limit` as soon as there are more, or None.

    A cut may part a token, so the count is right to within a few tokens a slice. Raises `Cancelled`.
    """
    return next((count for count, _ in _cumulative_token_counts(tokenizer, text, is_cancelled) if count > limit), None)


def text_prefix(tokenizer: Tokenizer, text: str, limit: int, is_cancelled: Callable[[], bool]) -> str:
    """As much of the beginning of a text as has more than `limit` tokens, or the whole. Raises `Cancelled`."""
    counts = _cumulative_token_counts(tokenizer, text, is_cancelled)
    return text[: next((end for count, end in counts if count > limit), len(text))]


def _cumulative_token_counts(
    tokenizer: Tokenizer, text: str, is_cancelled: Callable[[], bool]
) -> Iterator[tuple[int, int]]:
    """How many tokens there are up to the end of each slice, and where it ends."""
    count = end = 0
    for part in _slices(text):
        if is_cancelled():
            raise Cancelled("The request was cancelled.")
        # A batch of one, because this call lets go of Python's lock and `encode` does not.
        (encoding,) = tokenizer.encode_batch_fast([part], add_special_tokens=False)
        count, end = count + len(encoding), end + len(part)
        yield count, end


def _slices(text: str) -> Iterator[str]:
    """Pieces of a text, cut before a space or a line break where there is one in the second half of a piece."""
    start = 0
    while start < len(text):
        end = start + _SLICE_CHARS
        if end < len(text):
            half = start + _SLICE_CHARS // 2
            cut = max(text.rfind(" ", half, end), text.rfind("\n", half, end))
            end = cut if cut > 0 else end
        yield text[start:end]
        start = end
