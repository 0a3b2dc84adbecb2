"""Load a model: start the engine that its options name, from the files in its version folder."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from backends.llm.engine import Engine
from backends.llm.engines import ENGINES
from backends.llm.image_processor import ImageProcessor
from backends.llm.options import Options


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A running engine and its special tokens.

    `bos` begins a sequence, and is None if the checkpoint has no such token; each of `eos` ends one. `vision_processor`
    is None unless the model accepts images.
    """

    engine: Engine
    bos: int | None
    eos: frozenset[int] = frozenset()
    vision_processor: ImageProcessor | None = None


def load_model(folder: Path, tokenizer: Tokenizer, options: Options) -> LoadedModel:
    """Start the engine `options.engine`. Raises what that engine's loader raises for missing or broken files."""
    loaded = importlib.import_module(ENGINES[options.engine].module).load_engine(folder, tokenizer, options)
    assert isinstance(loaded, LoadedModel)
    return loaded
