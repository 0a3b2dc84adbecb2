"""ModelOpt itself quantises a small Llama 3: run where TRITONIC_QUANTIZATION_PYTHON names a Python that has it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from builders import recipe
from builders.build import build
from builders.llm.quantization.quantize import PYTHON_VARIABLE
from tests.unit.builders import test_trtllm_build
from tests.unit.builders.shared_fixture import make_once
from tests.unit.builders.tiny_llama import make_checkpoint

pytestmark = [
    pytest.mark.exports,
    pytest.mark.skipif(PYTHON_VARIABLE not in os.environ, reason=f"{PYTHON_VARIABLE} names no Python with ModelOpt"),
]

ROPE = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
}


def make_llama_3(folder: Path) -> Path:
    """Write a Llama in BF16 with the rotary embedding of Llama 3, and its configuration as transformers 4 has it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_checkpoint(folder, seed=1)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=256,  # whole groups of 128
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.uniform_(0.5, 1.5)  # what smoothing is multiplied into
    model.save_pretrained(folder)
    written: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    for newer in ("rope_parameters", "dtype"):
        written.pop(newer, None)
    (folder / "config.json").write_text(json.dumps(written | ROPE | {"torch_dtype": "bfloat16"}))
    return folder


@pytest.fixture(scope="session")
def llama_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(tmp_path_factory, "llama-3", lambda folder: make_llama_3(folder / "llama-3"))


@pytest.mark.parametrize(
    ("target", "kind", "kv_cache", "error"),
    [
        ("vllm", "fp8", "fp8", 0.0266),
        ("vllm", "nvfp4", "auto", 0.0952),
        ("llmapi", "int4_awq", "auto", 0.1196),
        ("llmapi", "w4a8_awq", "auto", 0.1196),
    ],
)
def test_an_export_is_within_its_bounds(
    target: str, kind: str, kv_cache: str, error: float, llama_3: Path, tmp_path: Path
) -> None:
    made = recipe.make(
        name="m", source=str(llama_3), target=target, checkpoint_quantization=kind, kv_cache_precision=kv_cache
    )
    built = build(made, tmp_path / "repository")
    assert built.metrics["quantized"] == 14
    assert built.metrics["mean"] == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("kind", ["fp8", "nvfp4", "int4_awq", "int8_sq", None])
def test_a_checkpoint_for_engines_keeps_its_rotary_embedding(kind: str | None, llama_3: Path, tmp_path: Path) -> None:
    for model in test_trtllm_build.NUMBERS:
        (tmp_path / "templates" / model).mkdir(parents=True)
        (tmp_path / "templates" / model / "config.pbtxt").write_text(test_trtllm_build.template(model))
    made = recipe.make(
        name="m",
        source=str(llama_3),
        target="tensorrt_llm",
        checkpoint_quantization=kind,
        tensor_parallel=2,
        pipeline_parallel=2,
        templates=str(tmp_path / "templates"),
    )
    build(made, tmp_path / "repository")
    checkpoint = tmp_path / "repository" / "tensorrt_llm" / "1" / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_bytes())
    assert (config["rotary_base"], config["rotary_scaling"]["factor"]) == (500000, 8.0)
    assert len(list(checkpoint.glob("rank*.safetensors"))) == 4
