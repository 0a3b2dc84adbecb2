"""The file `model.json` of a transcription model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN_NAMES = (
    "start_of_transcript",
    "end_of_text",
    "transcribe",
    "translate",
    "no_speech",
    "no_timestamps",
    "previous",
    "timestamp_begin",
)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids of Whisper's special tokens. Timestamps are the ids from `timestamp_begin` on, 0.02 s each."""

    start_of_transcript: int
    end_of_text: int
    transcribe: int
    translate: int
    no_speech: int
    no_timestamps: int
    previous: int
    timestamp_begin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The sizes of a checkpoint, its special tokens, and the tokens that it must not write.

    `languages` are the language tokens by ISO-639 code; an English-only checkpoint has none. `max_positions` is the
    number of encoder positions of 30 s, `max_tokens` the longest sequence of the decoder, prompt included.
    """

    num_mels: int
    vocab_size: int
    num_layers: int
    num_heads: int
    head_size: int
    max_positions: int
    max_tokens: int
    languages: Mapping[str, int]
    tokens: SpecialTokens
    suppress: tuple[int, ...]
    suppress_at_begin: tuple[int, ...]


def read_model_config(folder: Path) -> ModelConfig:
    """Read `model.json` of a version folder. Raises `FileNotFoundError`, or `ValueError` with a sentence."""
    path = folder / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        tokens = SpecialTokens(**{name: int(values["tokens"][name]) for name in TOKEN_NAMES})
        languages = {str(code): int(token) for code, token in values["languages"].items()}
        sizes = ("num_mels", "vocab_size", "num_layers", "num_heads", "head_size", "max_positions", "max_tokens")
        return ModelConfig(
            **{name: int(values[name]) for name in sizes},
            languages=languages if values["multilingual"] else {},
            tokens=tokens,
            suppress=tuple(map(int, values["suppress"])),
            suppress_at_begin=tuple(map(int, values["suppress_at_begin"])),
        )
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]!r}.") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
