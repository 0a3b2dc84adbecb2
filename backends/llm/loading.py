"""From a model's version folder to a running engine."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from backends.llm.engine import Engine
from backends.llm.options import ENGINES, Options

if TYPE_CHECKING:
    from backends.llm.vision.sight import Sight


@dataclass(frozen=True, slots=True)
class Loaded:
    """A running engine; `bos` begins a sequence, where the checkpoint has such a token, and any of `eos` ends one.

    `sight` is there for models that are shown pictures.
    """

    engine: Engine
    bos: int | None
    eos: frozenset[int] = frozenset()
    sight: "Sight | None" = None


def load(folder: Path, tokenizer: Tokenizer, options: Options) -> Loaded:
    """Start the engine that the options name. Raises what that engine raises for broken files."""
    loaded = importlib.import_module(ENGINES[options.engine]).load_engine(folder, tokenizer, options)
    assert isinstance(loaded, Loaded)
    return loaded
