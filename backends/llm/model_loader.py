"""From a model's version folder to a running engine."""

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
    """A running engine; `bos` begins a sequence, where the checkpoint has such a token, and any of `eos` ends one.

    `sight` is there for models that are shown pictures.
    """

    engine: Engine
    bos: int | None
    eos: frozenset[int] = frozenset()
    vision_processor: "VisionProcessor | None" = None


def load_model(folder: Path, tokenizer: Tokenizer, options: Options) -> LoadedModel:
    """Start the engine that the options name. Raises what that engine raises for broken files."""
    loaded = importlib.import_module(ENGINE_LOADERS[options.engine]).load_engine(folder, tokenizer, options)
    assert isinstance(loaded, LoadedModel)
    return loaded
