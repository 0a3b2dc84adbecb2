"""The text encoders of a pipeline."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends.diffusion.components import Array, Components, run_in_batches
from backends.diffusion.padded_tokenizer import PaddedTokenizer
from backends.diffusion.pipeline_config import PipelineConfig
from backends.serving.errors import ContextLengthExceeded


class TextEncoders:
    """All text encoders of a pipeline, by their index in it. May be used from any thread."""

    def __init__(self, folder: Path, config: PipelineConfig, components: Components) -> None:
        """Load the tokenizers from the version folder. Raises `FileNotFoundError` or `ValueError`."""
        self._tokenizers = [PaddedTokenizer(folder, tokenizer) for tokenizer in config.tokenizers]
        self._names = config.text_encoders
        self._components = components
        self._max_batch = config.max_batch

    def __len__(self) -> int:
        return len(self._names)

    def check_length(self, text: str, param: str) -> None:
        """Raise `ContextLengthExceeded`, naming `param`, if the text is too long for every encoder."""
        if all(tokenizer.encode([text]).truncated[0] for tokenizer in self._tokenizers):
            max_length = max(tokenizer.max_length for tokenizer in self._tokenizers)
            raise ContextLengthExceeded(f"This has more than the {max_length} tokens that the model reads.", param)

    def encode(self, index: int, texts: Sequence[str], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the named outputs of an encoder for texts, each cut to the length that the encoder takes."""
        inputs = {"input_ids": self._tokenizers[index].encode(texts).ids}
        return run_in_batches(self._components, self._names[index], inputs, outputs, self._max_batch)

    def encode_masked(self, index: int, texts: Sequence[str]) -> Array:
        """Return the states of an encoder that takes a mask, [texts, tokens, width], with zeros beyond each text."""
        tokens = self._tokenizers[index].encode(texts)
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
        found = run_in_batches(self._components, self._names[index], inputs, ["hidden_states"], self._max_batch)
        states: Array = np.where(tokens.mask[..., None] > 0, found["hidden_states"], np.float32(0))
        return states
