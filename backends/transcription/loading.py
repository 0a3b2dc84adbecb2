"""Loading of a transcription model from its version folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.transcription.batch import DecoderBatch
from backends.transcription.log_mel import load_log_mel
from backends.transcription.model_config import ModelConfig, read_model_config
from backends.transcription.networks import OrtNetworks
from backends.transcription.options import Options, read_options
from backends.transcription.request_frontend import TranscriptionFrontend
from backends.transcription.scheduler import TranscriptionScheduler
from backends.transcription.stats import Stats
from backends.transcription.tokens import WhisperTokens
from backends.transcription.voice_activity import SileroDetector

POSITIONS_PER_SECOND = 50
_SILENCE_SECONDS = 2.0
"""Silence after the sound of a window that is read with half of the positions."""


def load_frontend(folder: Path, parameters: Mapping[str, Mapping[str, Any]]) -> TranscriptionFrontend:
    """Return a frontend for the model in `folder`. `parameters` are those of `config.pbtxt`.

    Raises `FileNotFoundError`, `ValueError` with a sentence for people, or what onnxruntime raises.
    """
    options = read_options(parameters)
    config = restrict_languages(read_model_config(folder), options)
    tokens = WhisperTokens(folder, config)
    log_mel = load_log_mel(folder)
    networks = OrtNetworks(folder, config, options.num_threads)
    stats = Stats()

    def make_batch(positions: int) -> DecoderBatch:
        return DecoderBatch(networks, config, tokens, log_mel, positions, options.max_rows, stats)

    scheduler = TranscriptionScheduler(
        make_batch, lambda seconds: choose_positions(config, seconds), options.max_rows, stats
    )
    return TranscriptionFrontend(scheduler, SileroDetector(folder), tokens, options)


def restrict_languages(config: ModelConfig, options: Options) -> ModelConfig:
    """Return the configuration with the languages that the parameter `languages` allows: no other is detected.

    Raises `ValueError` if the checkpoint has none of them.
    """
    if options.languages is None:
        return config
    languages = {code: token for code, token in config.languages.items() if code in options.languages}
    if not languages and (config.languages or "en" not in options.languages):
        raise ValueError("The parameter languages holds no language of the checkpoint.")
    return replace(config, languages=languages)


def choose_positions(config: ModelConfig, seconds: float) -> int:
    """Return the number of encoder positions for a window of so many seconds.

    Whisper was trained on 30 s. Half of them take less than half of the time, and cost no words where 2 s of silence
    are left; with less than 15 s in all, or less silence, it repeats itself.
    """
    half = config.max_positions // 2
    return half if seconds + _SILENCE_SECONDS <= half / POSITIONS_PER_SECOND else config.max_positions
