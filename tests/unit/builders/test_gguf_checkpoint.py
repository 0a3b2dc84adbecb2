"""A GGUF file in the form of llama.cpp's converter is converted back to its checkpoint."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from builders.checkpoint import Checkpoint
from builders.errors import SourceUnavailable, UnsupportedModel
from builders.llm.gguf_checkpoint import convert
from tests.unit.builders.tiny_llama import TEMPLATE

HIDDEN, HEADS, KV_HEADS, WIDE, LAYERS = 32, 4, 2, 64, 2
TOKENS = ["<|im_start|>", "<|im_end|>", *"abĠ0123456789", "ĠĠ", "12", "ab"]
TEMPLATE_BYTES = TEMPLATE.encode()


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Order rows as llama.cpp's convert_hf_to_gguf.py does."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    size = HIDDEN // HEADS
    found = {"model.embed_tokens.weight": weight(len(TOKENS), HIDDEN), "model.norm.weight": weight(HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        found |= {
            prefix + "input_layernorm.weight": weight(HIDDEN),
            prefix + "self_attn.q_proj.weight": weight(HIDDEN, HIDDEN),
            prefix + "self_attn.k_proj.weight": weight(KV_HEADS * size, HIDDEN),
            prefix + "self_attn.v_proj.weight": weight(KV_HEADS * size, HIDDEN),
            prefix + "self_attn.o_proj.weight": weight(HIDDEN, HIDDEN),
            prefix + "post_attention_layernorm.weight": weight(HIDDEN),
            prefix + "mlp.gate_proj.weight": weight(WIDE, HIDDEN),
            prefix + "mlp.up_proj.weight": weight(WIDE, HIDDEN),
            prefix + "mlp.down_proj.weight": weight(HIDDEN, WIDE),
        }
    return found


def write(path: Path, weights: dict[str, np.ndarray], architecture: str = "llama") -> Path:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(["Ġ Ġ", "1 2", "a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    for name, weight in weights.items():
        if "q_proj" in name or "k_proj" in name:
            weight = permute(weight, HEADS if "q_proj" in name else KV_HEADS)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def converted(original: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    convert(write(folder / "tiny.gguf", original), folder / "checkpoint")
    return folder / "checkpoint"


def test_every_weight_comes_back(converted: Path, original: dict[str, np.ndarray]) -> None:
    found = load_file(converted / "model.safetensors")
    assert found.keys() == original.keys()
    for name, weight in original.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    assert Checkpoint(converted).num_parameters() == sum(weight.size for weight in original.values())


def test_the_config_has_the_values_of_the_file(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["hidden_size"], config["num_hidden_layers"], config["head_dim"]) == (HIDDEN, LAYERS, HIDDEN // HEADS)
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 100000.0
    assert config["tie_word_embeddings"] is True


def test_transformers_reads_it(converted: Path, original: dict[str, np.ndarray]) -> None:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(converted, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    np.testing.assert_array_equal(model.lm_head.weight.detach().numpy(), original["model.embed_tokens.weight"])


def test_digits_are_single_tokens_and_spaces_before_them_stay_together(converted: Path) -> None:
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert tokenizer.encode("ab  12<|im_end|>").tokens == ["ab", "ĠĠ", "1", "2", "<|im_end|>"]


def test_template_and_special_tokens(converted: Path) -> None:
    checkpoint = Checkpoint(converted)
    assert (converted / "chat_template.jinja").read_bytes() == TEMPLATE_BYTES
    assert checkpoint.chat_template() == TEMPLATE
    assert checkpoint.special_tokens() == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert checkpoint.end_token_ids() == [1]


def test_another_architecture_is_refused(tmp_path: Path, original: dict[str, np.ndarray]) -> None:
    with pytest.raises(UnsupportedModel, match="'qwen2'"):
        convert(write(tmp_path / "other.gguf", original, "qwen2"), tmp_path / "checkpoint")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(SourceUnavailable, match=r"bad\.gguf is not a readable GGUF file"):
        convert(tmp_path / "bad.gguf", tmp_path / "checkpoint")
