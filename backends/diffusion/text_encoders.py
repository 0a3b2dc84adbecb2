"""Prompts through the text encoders."""

from collections.abc import Sequence
from pathlib import Path

from backends.diffusion.components import Array, Components, run_in_batches
from backends.diffusion.padded_tokenizer import PaddedTokenizer
from backends.diffusion.pipeline_config import PipelineConfig
from backends.serving.errors import ContextLengthExceeded


class TextEncoders:
    """All text encoders of a pipeline, by their place in it. May be used from any thread."""

    def __init__(self, folder: Path, description: PipelineConfig, components: Components) -> None:
        """Read the tokenizers. Raises `FileNotFoundError` or `ValueError`."""
        self._tokenizers = [PaddedTokenizer(folder, file) for file in description.tokenizers]
        self._names = description.text_encoders
        self._components = components
        self._max_batch = description.max_batch

    def __len__(self) -> int:
        return len(self._names)

    def check_length(self, text: str, param: str) -> None:
        """Raise `ContextLengthExceeded` where no encoder reads the text to its end."""
        if all(tokenizer.encode([text])[1][0] for tokenizer in self._tokenizers):
            most = max(tokenizer.max_length for tokenizer in self._tokenizers)
            raise ContextLengthExceeded(f"This has more than {most} tokens, of which the model reads no more.", param)

    def encode(self, place: int, texts: Sequence[str], outputs: Sequence[str]) -> dict[str, Array]:
        """Some outputs of an encoder for some texts, which are cut where they are too long for it."""
        ids, _ = self._tokenizers[place].encode(texts)
        return run_in_batches(self._components, self._names[place], {"input_ids": ids}, outputs, self._max_batch)
