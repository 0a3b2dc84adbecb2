"""Prompts as token ids, all of one length, as diffusers' pipelines make them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.diffusion.pipeline_config import TokenizerConfig
from backends.serving.prompt_length import text_prefix
from backends.serving.tokenizer import load_tokenizer

_MAX_TEXT_CHARS = 8_192
"""Characters; of longer texts only the beginning is tokenised, for the rest is too long anyhow."""


class PaddedTokenizer:
    """One text encoder's tokenizer. May be used from any thread."""

    def __init__(self, folder: Path, file: TokenizerConfig) -> None:
        """Read it from the version folder. Raises `FileNotFoundError` or `ValueError`."""
        tokenizer = load_tokenizer(folder / file.folder)
        self.max_length = file.max_length
        self._untruncated = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.enable_truncation(file.max_length)
        pad = tokenizer.id_to_token(file.pad_id)
        if pad is None:
            raise ValueError(f"The tokenizer in {file.folder} has no token {file.pad_id} to pad with.")
        tokenizer.enable_padding(length=file.max_length, pad_id=file.pad_id, pad_token=pad)
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[bool]]:
        """Token ids int64[texts, max_length], and for each text whether something had to be left out."""
        encodings = self._tokenizer.encode_batch([self._shorten(text) for text in texts])
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        return ids, [bool(encoding.overflowing) for encoding in encodings]

    def _shorten(self, text: str) -> str:
        """A text, or enough of the beginning of a long one to be too long all the same."""
        return (
            text
            if len(text) <= _MAX_TEXT_CHARS
            else text_prefix(self._untruncated, text, 2 * self.max_length, lambda: False)
        )
