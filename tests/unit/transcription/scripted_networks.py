"""Networks without weights that behave as Whisper's: what they say depends on the sound and on the tokens they see.

Their caches hold the token and its position, so a wrong mask, a row in the wrong slot or a lost token fails an
assertion or changes the text.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.transcription.cross_cache import CrossCache
from backends.transcription.log_mel import Floats
from backends.transcription.model_config import ModelConfig, SpecialTokens
from backends.transcription.networks import Ids
from backends.transcription.self_cache import Array, SelfCache, Tensor, attention_mask
from backends.transcription.tokens import WhisperTokens
from backends.transcription.voice_activity import FRAME

LANGUAGES = {"en": 258, "de": 259, "zh": 260}
SPECIAL = SpecialTokens(
    start_of_transcript=257,
    end_of_text=256,
    transcribe=262,
    translate=261,
    no_speech=264,
    no_timestamps=265,
    previous=263,
    timestamp_begin=266,
)
VOCABULARY = SPECIAL.timestamp_begin + 1501
END = SPECIAL.end_of_text
CONFIG = ModelConfig(
    num_mels=2,
    vocab_size=VOCABULARY,
    num_layers=2,
    num_heads=1,
    head_size=1,
    max_positions=1500,
    max_tokens=448,
    languages=LANGUAGES,
    tokens=SPECIAL,
    suppress=(),
    suppress_at_begin=(END,),
)


def make_tokens(folder: Path, config: ModelConfig = CONFIG) -> WhisperTokens:
    """Whisper's tokenizer with one token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|startoftranscript|>"])
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    assert json.loads(tokenizer.to_str())["added_tokens"]
    return WhisperTokens(folder, config)


class Wrapped:
    """A tensor as onnxruntime wraps it."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def numpy(self) -> Array:
        return self._array.copy()


@dataclass
class Script:
    """What a window says: likely tokens at each place, as token to probability; the end of the text follows them."""

    text: Sequence[dict[int, float]]
    language: str = "en"
    no_speech: float = 0.01


@dataclass
class ScriptedNetworks:
    """`scripts` by the loudness of the window in thousandths."""

    scripts: dict[int, Script]
    gate: threading.Event = field(default_factory=threading.Event)
    encoded: list[list[int]] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    """The windows of each run that read one token a row."""
    prompts: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def to_tensor(self, array: Array) -> Tensor:
        return Wrapped(array)

    def encode(self, mel: Floats, cross: CrossCache, first: int) -> None:
        assert self.gate.wait(60)
        self.encoded.append([round(float(window[0, 0]) * 1000) for window in mel])
        assert mel.shape[2] == 2 * cross.positions
        for arrays in cross.views(first, len(mel)):
            for array in arrays:
                array[:] = mel[:, 0, 0][:, None, None, None]

    def _window(self, cross: CrossCache, slot: int) -> int:
        found = {float(array.min()) for arrays in cross.views(slot, 1) for array in arrays}
        found |= {float(array.max()) for arrays in cross.views(slot, 1) for array in arrays}
        (loudness,) = found
        return round(loudness * 1000)

    def decode(
        self, ids: Ids, positions: Ids, counts: Sequence[int], past: SelfCache | None, cross: CrossCache, first: int
    ) -> tuple[Floats, SelfCache]:
        num_rows, new = ids.shape
        layers = range(CONFIG.num_layers)
        valid = past.valid if past else np.zeros((num_rows, 0), bool)
        mask = attention_mask(valid, counts)
        keys = [ids.astype(np.float32)[:, None, None, :]] * len(layers)
        values = [positions.astype(np.float32)[:, None, :, None]] * len(layers)
        if past:
            keys = [np.concatenate([past.keys[layer].numpy(), keys[layer]], -1) for layer in layers]
            values = [np.concatenate([past.values[layer].numpy(), values[layer]], -2) for layer in layers]
        windows = [self._window(cross, first + row) for row in range(num_rows)]
        logits = np.zeros((num_rows, VOCABULARY), np.float32)
        for row in range(num_rows):
            if not counts[row]:
                continue
            seen = mask[row, 0, -1] == 0
            for layer in layers:
                assert values[layer][row, 0, seen, 0].tolist() == list(range(int(seen.sum())))
                assert keys[layer][row, 0, 0, seen].tolist() == keys[0][row, 0, 0, seen].tolist()
            logits[row] = self._logits(windows[row], keys[0][row, 0, 0, seen].astype(int).tolist())
        if new == 1 and past:
            self.steps.append(windows)
        new_valid = np.arange(new) >= new - np.array(counts)[:, None]
        cache = SelfCache([*map(Wrapped, keys)], [*map(Wrapped, values)], np.concatenate([valid, new_valid], 1))
        return logits, cache

    def _logits(self, window: int, seen: list[int]) -> Floats:
        script = self.scripts[window]
        probabilities = np.full(VOCABULARY, 1e-9)
        start = seen.index(SPECIAL.start_of_transcript)
        read = seen[start + 1 :]
        if not read:
            self.prompts.append(seen)
            probabilities[LANGUAGES[script.language]] = 1 - script.no_speech
            probabilities[SPECIAL.no_speech] = script.no_speech
        else:
            assert read[0] in LANGUAGES.values() and read[1] in (SPECIAL.transcribe, SPECIAL.translate)
            written = read[2:]
            texts = script.text
            if not any(token >= SPECIAL.timestamp_begin for choices in texts for token in choices):
                texts = [at(0), *texts]
            for token, probability in (texts[len(written)] if len(written) < len(texts) else {END: 1.0}).items():
                probabilities[token] = probability
        return np.log(probabilities).astype(np.float32)

    def align(self, ids: Ids, cross: CrossCache, slot: int) -> Floats:
        """Each text token is heard for five positions, one after the other; timestamps follow the text before them."""
        attention = np.full((2, len(ids), cross.positions), 1e-3, np.float32)
        start = int(np.flatnonzero(ids >= SPECIAL.timestamp_begin)[0])
        heard = 0
        for number in range(start, len(ids)):
            is_text = number + 1 < len(ids) and ids[number + 1] < END
            length = 5 if is_text else 1
            attention[:, number, heard : heard + length] = 1.0
            heard += length
        attention[:, -1, heard:] = 1.0  # the rest is silence
        return attention


class LoudnessDetector:
    """Finds speech wherever there is any sound."""

    def probabilities(self, audio: Floats) -> Iterator[Floats]:
        frames = np.pad(audio, (0, -len(audio) % FRAME)).reshape(-1, FRAME)
        yield (np.abs(frames).max(axis=1) > 0).astype(np.float32)


def says(text: str, probability: float = 0.9) -> list[dict[int, float]]:
    """A text without doubt: one token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    (piece,) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return [{alphabet.index(character): probability} for character in piece[0]]


def at(seconds: float) -> dict[int, float]:
    """The timestamp token of a time in the window."""
    return {SPECIAL.timestamp_begin + round(seconds / 0.02): 0.9}
