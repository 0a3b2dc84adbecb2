"""Whisper's tokens and their texts."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from backends.serving.tokenizer import load_tokenizer
from backends.transcription.model_config import ModelConfig

SECONDS_PER_TIMESTAMP = 0.02


class WhisperTokens:
    """Encodes prompts and decodes tokens. All methods may be called from any thread."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Load `tokenizer.json` of a version folder. Raises `FileNotFoundError` or `ValueError`."""
        self.special = config.tokens
        self.languages = dict(config.languages)
        self.codes = {token: code for code, token in config.languages.items()}
        decoder = load_tokenizer(folder)
        # The special tokens are left out, so that a caller cannot write them into a prompt.
        document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        document.update(added_tokens=[], post_processor=None)
        self._encoder = Tokenizer.from_str(json.dumps(document))
        names = {character: byte for byte, character in _byte_characters().items()}
        self._bytes = [
            bytes(names[character] for character in name if character in names)
            for name in map(decoder.id_to_token, range(self.special.end_of_text))
            if name is not None
        ]
        if len(self._bytes) != self.special.end_of_text:
            raise ValueError(f"The tokenizer in {folder} has {len(self._bytes)} words before the end-of-text token.")
        self.language_ids = np.array(sorted(self.codes), np.int64)

    @property
    def is_multilingual(self) -> bool:
        """True if the checkpoint has language tokens and task tokens."""
        return bool(self.languages)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; the names of special tokens in it are plain text."""
        ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of UTF-8 that a token stands for; special tokens have none."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens and timestamps."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", "replace")

    def is_text(self, token: int) -> bool:
        """Return whether a token stands for text."""
        return token < self.special.end_of_text

    def prompt(self, previous: Sequence[int]) -> list[int]:
        """Return the tokens up to the start of the transcript: those of the text before, and the start itself."""
        start = [self.special.start_of_transcript]
        return [self.special.previous, *previous, *start] if previous else start

    def task_tokens(self, language: str, task: str) -> list[int]:
        """Return the tokens after the start of the transcript, which choose what is written.

        `no_timestamps` is never among them, also where nobody asked for times: without timestamps, Whisper ends some
        windows after their first words (docs/sound.md).
        """
        if not self.is_multilingual:
            return []
        return [
            self.languages[language],
            self.special.translate if task == "translate" else self.special.transcribe,
        ]


def _byte_characters() -> dict[int, str]:
    """Return the character that GPT-2's vocabulary writes for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in characters]
    return characters | {byte: chr(256 + number) for number, byte in enumerate(others)}
