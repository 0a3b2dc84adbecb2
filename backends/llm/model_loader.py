"""Load a model: start the engine that its options name, from the files in its version folder."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from backends.llm.engine import Engine
from backends.llm.options import ENGINE_LOADERS, Options

if TYPE_CHECKING:
    from backends.llm.vision.processor import VisionProcessor


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A running engine and its special tokens.

    `bos` begins a sequence, and is None if the checkpoint has no such token; each of `eos` ends one. `vision_processor`
    is None unless the model accepts images.
    """

    engine: Engine
    bos: int | None
    eos: frozenset[int] = frozenset()
    vision_processor: "VisionProcessor | None" = None


def load_model(folder: Path, tokenizer: Tokenizer, options: Options) -> LoadedModel:
    """Start the engine `options.engine`. Raises what that engine's loader raises for missing or broken files."""
    loaded = importlib.import_module(ENGINE_LOADERS[options.engine]).load_engine(folder, tokenizer, options)
    assert isinstance(loaded, LoadedModel)
    return loaded
