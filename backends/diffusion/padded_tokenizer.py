"""Tokenisation of prompts to token ids of a fixed length, as in diffusers' pipelines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.diffusion.pipeline_config import TokenizerConfig
from backends.serving.prompt_length import text_prefix
from backends.serving.tokenizer import load_tokenizer

_MAX_TEXT_CHARS = 8_192
"""Length in characters above which only the beginning of a text is tokenised; it exceeds `max_length` anyway."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of texts: `ids` and `mask`, int64[texts, max_length]; the mask is 0 where a text is padded.

    `truncated` says for each text whether its end was cut off.
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]
    truncated: tuple[bool, ...]


class PaddedTokenizer:
    """One text encoder's tokenizer. May be used from any thread."""

    def __init__(self, folder: Path, config: TokenizerConfig) -> None:
        """Load the tokenizer from the version folder. Raises `FileNotFoundError` or `ValueError`."""
        tokenizer = load_tokenizer(folder / config.folder)
        self.max_length = config.max_length
        self._untruncated = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.enable_truncation(config.max_length)
        pad = tokenizer.id_to_token(config.pad_id)
        if pad is None:
            raise ValueError(f"The tokenizer in {config.folder} has no token {config.pad_id} to pad with.")
        tokenizer.enable_padding(length=config.max_length, pad_id=config.pad_id, pad_token=pad)
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of texts, each cut or padded to `max_length`."""
        encodings = self._tokenizer.encode_batch([self._shorten(text) for text in texts])
        return Tokens(
            ids=np.array([encoding.ids for encoding in encodings], np.int64),
            mask=np.array([encoding.attention_mask for encoding in encodings], np.int64),
            truncated=tuple(bool(encoding.overflowing) for encoding in encodings),
        )

    def _shorten(self, text: str) -> str:
        """Return the text, or a prefix of a long one that still exceeds `max_length` tokens."""
        return (
            text
            if len(text) <= _MAX_TEXT_CHARS
            else text_prefix(self._untruncated, text, 2 * self.max_length, lambda: False)
        )
