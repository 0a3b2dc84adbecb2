"""Make tiny Whisper folders with random weights, and the same weights in CTranslate2's format."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

MAX_POSITIONS = 100
SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|yue|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
TIMESTAMPS = tuple(f"<|{number / 50:.2f}|>" for number in range(MAX_POSITIONS + 1))
VOCAB_SIZE = 256 + len(SPECIALS) + len(TIMESTAMPS)
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "num_mel_bins": 80,
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_source_positions": MAX_POSITIONS,
    "max_target_positions": 96,
    "decoder_start_token_id": 257,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}


def make_whisper(folder: Path, generation: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """Write a folder in Hugging Face's layout; `sizes` change those of `SIZES`."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(5)
    model = WhisperForConditionalGeneration(WhisperConfig(**SIZES | sizes, init_std=0.1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases are nought and norms are one otherwise
                parameter.add_(torch.randn_like(parameter) / 10)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    defaults = {
        "is_multilingual": True,
        "suppress_tokens": [3, 5],
        "begin_suppress_tokens": [220, 256],
        "alignment_heads": [[0, 1], [1, 0]],
    }
    write(folder / "generation_config.json", defaults | (generation or {}))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def make_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.add_tokens(list(TIMESTAMPS))
    return tokenizer


def write_ct2(path: Path, tensors: dict[str, Any], aliases: dict[str, str]) -> None:
    """Write tensors as CTranslate2 does: `python/ctranslate2/specs/model_spec.py`, format 6."""
    numbers = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}
    content = struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, array in tensors.items():
        content += _text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += struct.pack("<BI", numbers[array.dtype], array.nbytes) + array.tobytes()
    content += struct.pack("<I", len(aliases)) + b"".join(_text(a) + _text(b) for a, b in aliases.items())
    path.write_bytes(content)


def ct2_tensors(folder: Path) -> dict[str, Any]:
    """Return the weights of a folder with CTranslate2's names and fused matrices, in fp16."""
    from safetensors.numpy import load_file

    weights = {name: array.astype(np.float16) for name, array in load_file(folder / "model.safetensors").items()}
    found = {"decoder/embeddings/weight": weights["model.decoder.embed_tokens.weight"]}

    def linear(target: str, *sources: str) -> None:
        found[f"{target}/weight"] = np.concatenate([weights[f"{source}.weight"] for source in sources])
        none = np.zeros(weights[f"{sources[0]}.weight"].shape[0], np.float16)
        found[f"{target}/bias"] = np.concatenate([weights.get(f"{source}.bias", none) for source in sources])

    def norm(target: str, source: str) -> None:
        found[f"{target}/gamma"], found[f"{target}/beta"] = weights[f"{source}.weight"], weights[f"{source}.bias"]

    for part in ("conv1", "conv2"):
        linear(f"encoder/{part}", f"model.encoder.{part}")
    for side in ("encoder", "decoder"):
        found[f"{side}/position_encodings/encodings"] = weights[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for number in range(SIZES[f"{side}_layers"]):
            ours, theirs = f"model.{side}.layers.{number}", f"{side}/layer_{number}"
            linear(f"{theirs}/self_attention/linear_0", *(f"{ours}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            if side == "decoder":
                linear(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj")
                linear(f"{theirs}/attention/linear_1", *(f"{ours}.encoder_attn.{part}_proj" for part in "kv"))
                linear(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
                norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
    return found


def _text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
