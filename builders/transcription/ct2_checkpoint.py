"""Convert a Whisper in CTranslate2's format into a folder in Hugging Face's layout, with the same numbers.

CTranslate2 (https://github.com/OpenNMT/CTranslate2, `python/ctranslate2/specs/model_spec.py`) writes a list of named
tensors, in which query, key and value of a self-attention are one matrix.
"""

import json
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from builders.errors import SourceUnavailable, UnsupportedModel

CONVERSION_VERSION = 1
"""Increase it when this module writes different files for the same input: models are then rebuilt."""

Weights = dict[str, npt.NDArray[Any]]

_SPECIFICATION = "WhisperSpec"
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_HEAD_SIZE = 64
"""Size of an attention head in every Whisper; the format does not store it."""
_FIRST_MULTILINGUAL_VOCABULARY = 51865

LINEAR_LAYERS = {"ffn/linear_0": "fc1", "ffn/linear_1": "fc2", "self_attention/linear_1": "self_attn.out_proj"}
CROSS_LINEAR_LAYERS = {"attention/linear_0": "encoder_attn.q_proj", "attention/linear_2": "encoder_attn.out_proj"}
NORMS = {"self_attention/layer_norm": "self_attn_layer_norm", "ffn/layer_norm": "final_layer_norm"}
CROSS_NORMS = {"attention/layer_norm": "encoder_attn_layer_norm"}
"""Names of a layer's tensors: CTranslate2's on the left, Hugging Face's on the right."""


def convert(model_file: Path, config_file: Path, tokenizer_file: Path, folder: Path) -> None:
    """Write config, generation config, safetensors and tokenizer into `folder`.

    `config_file` is CTranslate2's `config.json`, which has the alignment heads and the suppressed tokens. Raises
    UnsupportedModel for another architecture or for quantised weights, SourceUnavailable for a damaged file.
    """
    weights = read_weights(model_file)
    settings = json.loads(config_file.read_bytes())
    tokens = {token["content"]: token["id"] for token in json.loads(tokenizer_file.read_bytes())["added_tokens"]}
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(weights, tokens)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation_config(config, settings, tokens))
    _write_json(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": config["num_mel_bins"],
            "sampling_rate": 16000,
            "hop_length": 160,
            "n_fft": 400,
            "chunk_length": 30,
            "padding_value": 0.0,
        },
    )
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    _write_weights(weights, config, folder / "model.safetensors")


def read_weights(path: Path) -> Weights:
    """Read the tensors of a `model.bin`. Raises UnsupportedModel, SourceUnavailable."""
    try:
        with path.open("rb") as file:
            version, specification = _number(file, "I"), _text(file)
            revision, count = _number(file, "I"), _number(file, "I")
            if (version, specification, revision) != (6, _SPECIFICATION, 3):
                raise UnsupportedModel(
                    f"{path.name} is CTranslate2's {specification} {revision} in format {version}; only "
                    f"{_SPECIFICATION} 3 in format 6 can be converted."
                )
            weights = dict(_tensor(file) for _ in range(count))
            for _ in range(_number(file, "I")):
                alias, name = _text(file), _text(file)
                weights[alias] = weights[name]
            if file.read(1):
                raise ValueError("there is more after the last tensor")
    except (OSError, ValueError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise SourceUnavailable(f"{path.name} is not a readable CTranslate2 model: {error}") from error
    if any(array.dtype == np.int8 and array.ndim > 1 for array in weights.values()):
        raise UnsupportedModel(f"{path.name} holds quantised weights. Convert from fp16 or fp32.")
    return weights


def _number(file: BinaryIO, form: str) -> int:
    (value,) = struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))
    return int(value)


def _text(file: BinaryIO) -> str:
    length = _number(file, "H")
    data = file.read(length)
    if len(data) != length or not data.endswith(b"\0"):
        raise ValueError("a name is cut off")
    return data[:-1].decode()


def _tensor(file: BinaryIO) -> tuple[str, npt.NDArray[Any]]:
    name = _text(file)
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    dtype = _DTYPES[_number(file, "B")]
    data = file.read(_number(file, "I"))
    return name, np.frombuffer(data, dtype).reshape(shape)


def _count_layers(weights: Weights, side: str) -> int:
    return sum(f"{side}/layer_{number}/ffn/linear_0/weight" in weights for number in range(1000))


def _config(weights: Weights, tokens: dict[str, int]) -> dict[str, Any]:
    vocab_size, width = weights["decoder/embeddings/weight"].shape
    heads = width // _HEAD_SIZE
    feed_forward = weights["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    end, start = tokens["<|endoftext|>"], tokens["<|startoftranscript|>"]
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": vocab_size,
        "d_model": width,
        "encoder_layers": _count_layers(weights, "encoder"),
        "decoder_layers": _count_layers(weights, "decoder"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": feed_forward,
        "decoder_ffn_dim": feed_forward,
        "num_mel_bins": weights["encoder/conv1/weight"].shape[1],
        "max_source_positions": weights["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": weights["decoder/position_encodings/encodings"].shape[0],
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
        "dtype": "float16",
    }


def _generation_config(config: dict[str, Any], settings: dict[str, Any], tokens: dict[str, int]) -> dict[str, Any]:
    multilingual = config["vocab_size"] >= _FIRST_MULTILINGUAL_VOCABULARY
    found: dict[str, Any] = {name: config[name] for name in config if name.endswith("_token_id")}
    found |= {
        "alignment_heads": settings.get("alignment_heads"),
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
        "is_multilingual": multilingual,
        "max_length": config["max_target_positions"],
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
    }
    if multilingual:
        languages = {text: number for text, number in tokens.items() if number in set(settings.get("lang_ids", ()))}
        found["lang_to_id"] = languages
        found["task_to_id"] = {name: tokens[f"<|{name}|>"] for name in ("transcribe", "translate")}
    return {name: value for name, value in found.items() if value is not None}


def _write_weights(weights: Weights, config: dict[str, Any], path: Path) -> None:
    from safetensors.numpy import save_file

    tensors: Weights = {"model.decoder.embed_tokens.weight": weights["decoder/embeddings/weight"]}
    for part in ("conv1", "conv2"):
        _copy_linear(weights, f"encoder/{part}", tensors, f"model.encoder.{part}")
    for side in ("encoder", "decoder"):
        model = f"model.{side}"
        tensors[f"{model}.embed_positions.weight"] = weights[f"{side}/position_encodings/encodings"]
        _copy_norm(weights, f"{side}/layer_norm", tensors, f"{model}.layer_norm")
        for number in range(config[f"{side}_layers"]):
            layer, target = f"{side}/layer_{number}", f"{model}.layers.{number}"
            _split(weights, f"{layer}/self_attention/linear_0", tensors, f"{target}.self_attn", "qkv")
            linear, norms = LINEAR_LAYERS, NORMS
            if side == "decoder":
                _split(weights, f"{layer}/attention/linear_1", tensors, f"{target}.encoder_attn", "kv")
                linear, norms = LINEAR_LAYERS | CROSS_LINEAR_LAYERS, NORMS | CROSS_NORMS
            for name, theirs in linear.items():
                _copy_linear(weights, f"{layer}/{name}", tensors, f"{target}.{theirs}")
            for name, theirs in norms.items():
                _copy_norm(weights, f"{layer}/{name}", tensors, f"{target}.{theirs}")
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata={"format": "pt"})


def _copy_linear(weights: Weights, name: str, tensors: Weights, target: str) -> None:
    tensors[f"{target}.weight"] = weights[f"{name}/weight"]
    tensors[f"{target}.bias"] = weights[f"{name}/bias"]


def _copy_norm(weights: Weights, name: str, tensors: Weights, target: str) -> None:
    tensors[f"{target}.weight"], tensors[f"{target}.bias"] = weights[f"{name}/gamma"], weights[f"{name}/beta"]


def _split(weights: Weights, name: str, tensors: Weights, target: str, parts: str) -> None:
    """Split a matrix into the projections that `parts` names. Keys have no bias in a Whisper."""
    matrices, biases = (np.split(weights[f"{name}/{kind}"], len(parts)) for kind in ("weight", "bias"))
    for part, weight, bias in zip(parts, matrices, biases, strict=True):
        tensors[f"{target}.{part}_proj.weight"] = weight
        if part != "k":
            tensors[f"{target}.{part}_proj.bias"] = bias


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
