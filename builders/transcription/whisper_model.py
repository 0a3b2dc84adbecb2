"""Read the shape and the tokens of a Whisper from its configuration files, without torch."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from builders.checkpoint import Checkpoint, read_json
from builders.errors import SourceUnavailable, UnsupportedModel

SAMPLE_RATE, FFT_SIZE, HOP_LENGTH = 16_000, 400, 160
"""The only log-mel spectrogram of Whisper: samples a second, samples of a window, samples between two frames."""

TOKENS = {
    "start_of_transcript": ("<|startoftranscript|>",),
    "end_of_text": ("<|endoftext|>",),
    "transcribe": ("<|transcribe|>",),
    "translate": ("<|translate|>",),
    "no_speech": ("<|nospeech|>", "<|nocaptions|>"),
    "no_timestamps": ("<|notimestamps|>",),
    "previous": ("<|startofprev|>",),
    "start_of_lm": ("<|startoflm|>",),
}
"""Special tokens of Whisper, by their names in `model.json`. Some have two spellings."""

CONFIG_SIZES = (
    "vocab_size",
    "d_model",
    "num_mel_bins",
    "encoder_layers",
    "encoder_attention_heads",
    "decoder_layers",
    "decoder_attention_heads",
    "max_source_positions",
    "max_target_positions",
)
"""Numbers that `config.json` must have."""

_NEVER_WRITTEN = ("start_of_transcript", "transcribe", "translate", "no_speech", "previous", "start_of_lm")
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_FIRST_MULTILINGUAL_VOCABULARY = 51865
_SPACE = 220
"""Token of a single space in both vocabularies, which the published models do not write first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperModel:
    """The facts about a Whisper that the backend needs; `model.json` has these fields and `precision`."""

    num_mels: int
    vocab_size: int
    num_layers: int
    """Layers of the decoder."""
    num_heads: int
    """Heads of each attention of the decoder."""
    head_size: int
    max_positions: int
    """Positions of the encoder's output, 50 a second."""
    max_tokens: int
    """Tokens of the decoder, prompt included."""
    alignment_heads: list[tuple[int, int]]
    """Layer and head of the cross-attentions that follow the spoken words."""
    languages: dict[str, int]
    """Language codes with their tokens, in the order of the vocabulary."""
    tokens: dict[str, int]
    """Special tokens by the names of `TOKENS`, and `timestamp_begin`, the token of 0.00 seconds."""
    suppress: list[int]
    """Tokens that are never written."""
    suppress_at_begin: list[int]
    """Tokens that are not written first."""
    multilingual: bool

    def to_json(self, precision: str) -> dict[str, Any]:
        """Return the contents of `model.json`."""
        return asdict(self) | {"precision": precision}


def check_config(config: dict[str, Any]) -> None:
    """Check by `config.json` alone that this is a Whisper that can be built. Raises UnsupportedModel."""
    if config.get("model_type") != "whisper":
        raise UnsupportedModel(
            f"Transcription models are built from Whisper; this is a {config.get('model_type') or 'nameless'!r} model."
        )
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
        raise UnsupportedModel("This Whisper has another activation, or scaled embeddings. No published one has.")


def read(checkpoint: Checkpoint) -> WhisperModel:
    """Read a folder in Hugging Face's layout. Raises SourceUnavailable, UnsupportedModel."""
    config = checkpoint.config()
    check_config(config)
    if missing := [name for name in CONFIG_SIZES if not isinstance(config.get(name), int)]:
        raise SourceUnavailable(f"{checkpoint.folder}/config.json names no {', '.join(missing)}.")
    generation = config | read_json(checkpoint.folder / "generation_config.json")
    _check_spectrogram(read_json(checkpoint.folder / "preprocessor_config.json"), config)
    tokens, languages = _tokens(checkpoint)
    multilingual = bool(generation.get("is_multilingual", config["vocab_size"] >= _FIRST_MULTILINGUAL_VOCABULARY))
    if not multilingual:
        languages = {"en": languages.get("en", tokens["start_of_transcript"] + 1)}
    heads = config["decoder_attention_heads"]
    return WhisperModel(
        num_mels=config["num_mel_bins"],
        vocab_size=config["vocab_size"],
        num_layers=config["decoder_layers"],
        num_heads=heads,
        head_size=config["d_model"] // heads,
        max_positions=config["max_source_positions"],
        max_tokens=config["max_target_positions"],
        alignment_heads=_alignment_heads(generation.get("alignment_heads"), config["decoder_layers"], heads),
        languages=languages,
        tokens=tokens,
        suppress=sorted({*_ids(generation.get("suppress_tokens")), *(tokens[name] for name in _NEVER_WRITTEN)}),
        suppress_at_begin=_ids(generation.get("begin_suppress_tokens")) or [_SPACE, tokens["end_of_text"]],
        multilingual=multilingual,
    )


def _check_spectrogram(preprocessor: dict[str, Any], config: dict[str, Any]) -> None:
    wanted = {
        "sampling_rate": SAMPLE_RATE,
        "n_fft": FFT_SIZE,
        "hop_length": HOP_LENGTH,
        "feature_size": config["num_mel_bins"],
    }
    for name, value in wanted.items():
        if preprocessor.get(name, value) != value:
            raise UnsupportedModel(
                f"The {name} of this Whisper is {preprocessor[name]}; the backend computes with {value}."
            )


def _tokens(checkpoint: Checkpoint) -> tuple[dict[str, int], dict[str, int]]:
    """Return the special tokens and the tokens of the languages, from `tokenizer.json`."""
    path = checkpoint.folder / "tokenizer.json"
    if not path.is_file():
        raise SourceUnavailable(f"{checkpoint.folder} has no tokenizer.json. Copy it from the source of the weights.")
    added = {token["content"]: int(token["id"]) for token in read_json(path).get("added_tokens", [])}
    tokens = {
        name: next((added[text] for text in spellings if text in added), -1) for name, spellings in TOKENS.items()
    }
    if missing := [TOKENS[name][0] for name, identifier in tokens.items() if identifier < 0]:
        raise SourceUnavailable(f"{path} lacks tokens of Whisper: {', '.join(missing)}.")
    tokens["timestamp_begin"] = tokens["no_timestamps"] + 1
    languages = {
        found[1]: identifier
        for text, identifier in sorted(added.items(), key=lambda item: item[1])
        if (found := _LANGUAGE.fullmatch(text)) and identifier > tokens["start_of_transcript"]
    }
    return tokens, languages


def _alignment_heads(declared: Any, layers: int, heads: int) -> list[tuple[int, int]]:
    """Return the declared heads, or else all heads of the upper half, as openai-whisper does.

    A distilled model may declare those of its teacher, in layers that it lacks.
    """
    found = [(int(layer), int(head)) for layer, head in declared or ()]
    if found and all(layer < layers and head < heads for layer, head in found):
        return found
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]


def _ids(value: Any) -> list[int]:
    return [int(item) for item in value if int(item) >= 0] if isinstance(value, list) else []
