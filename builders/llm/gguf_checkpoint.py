"""Convert a Llama in a GGUF file into a folder in Hugging Face's layout, with dequantised fp32 weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. transformers reads such files too, but takes four
times as long, cannot save the result, and loses the rule of the SmolLM tokenizer that splits digits.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import SourceUnavailable, UnsupportedModel

CONVERSION_VERSION = 1
"""Increase it when this module writes different files for the same input: models are then rebuilt."""

# Names of a layer's tensors: GGUF's on the left, Hugging Face's on the right.
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL_TOKEN_TYPE = 3
"""GGUF's token type of a control token."""


def convert(gguf_file: Path, folder: Path) -> None:
    """Write config, generation config, fp32 safetensors, tokenizer and chat template of `gguf_file` into `folder`.

    Raises UnsupportedModel for another architecture or tokenizer, SourceUnavailable for a damaged file.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(gguf_file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise SourceUnavailable(f"{gguf_file.name} is not a readable GGUF file: {error}") from error
    _check(fields)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(fields, tied="output.weight" not in tensors)
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )
    _write_tokenizer(fields, folder)
    _write_weights(tensors, config, folder / "model.safetensors")


def _check(fields: dict[str, Any]) -> None:
    found = (
        fields.get("general.architecture"),
        fields.get("tokenizer.ggml.model"),
        fields.get("tokenizer.ggml.pre"),
    )
    if found != ("llama", "gpt2", "smollm"):
        raise UnsupportedModel(
            f"This GGUF file holds architecture {found[0]!r} with tokenizer {found[1]!r}/{found[2]!r}; "
            "only 'llama' with 'gpt2'/'smollm' can be converted. Use the model's Hugging Face folder instead."
        )


def _config(fields: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    heads = int(fields["llama.attention.head_count"])
    hidden = int(fields["llama.embedding_length"])
    theta = float(fields["llama.rope.freq_base"])
    eos = int(fields["tokenizer.ggml.eos_token_id"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": int(fields["llama.feed_forward_length"]),
        "num_hidden_layers": int(fields["llama.block_count"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(fields["llama.attention.head_count_kv"]),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": int(fields["llama.context_length"]),
        # GGUF stores a float32: its seven significant digits give the original value.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.7g}"),
        "rope_theta": theta,  # read by transformers 4
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},  # read by transformers 5
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": int(fields["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": eos,
        "pad_token_id": int(fields.get("tokenizer.ggml.padding_token_id", eos)),
        "dtype": "float32",
    }


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    """Write a byte-level BPE tokenizer that first splits off single digits, as SmolLM's own tokenizer.json does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == CONTROL_TOKEN_TYPE
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        f"{key}_token": tokens[int(fields[field])]
        for key, field in (
            ("bos", "tokenizer.ggml.bos_token_id"),
            ("eos", "tokenizer.ggml.eos_token_id"),
            ("pad", "tokenizer.ggml.padding_token_id"),
            ("unk", "tokenizer.ggml.unknown_token_id"),
        )
        if field in fields
    }
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": int(fields["llama.context_length"]),
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    if template := fields.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_bytes(template.encode("utf-8"))


def _write_weights(tensors: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    import gguf
    from safetensors.numpy import save_file

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for name, tensor in tensors.items():
        values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        parts = name.removesuffix(".weight").split(".")
        if parts[0] == "blk":
            _, layer, part = parts
            if part in heads:
                values = _unpermute(values, heads[part])
            weights[f"model.layers.{layer}.{LAYER_TENSORS[part]}.weight"] = np.ascontiguousarray(values)
        elif parts[0] in OUTER_TENSORS:
            weights[f"{OUTER_TENSORS[parts[0]]}.weight"] = np.ascontiguousarray(values)
        elif parts[0] != "rope_freqs":  # derived from the config
            raise UnsupportedModel(f"This GGUF file holds the tensor {name!r}, which a Llama does not have.")
    save_file(weights, path, metadata={"format": "pt"})


def _unpermute(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Restore the order of query or key rows [heads * size, hidden]; llama.cpp interleaves the halves of a head."""
    size = weight.shape[0] // heads
    return weight.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
