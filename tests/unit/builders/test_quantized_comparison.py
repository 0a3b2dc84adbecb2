"""A quantised checkpoint is compared with its source, layer by layer after dequantising."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from builders.errors import SourceUnavailable, VerificationFailed
from builders.llm.quantization.compare import (
    BOUNDS,
    STORED_FORMATS,
    check_rope,
    compare_checkpoints,
    rope_parameters,
)
from builders.llm.quantization.dequantize import dequantized, fp4_values, int4_values
from builders.llm.quantization.tensors import E4M3, stored_tensors
from builders.llm.targets import CheckpointQuantization
from tests.unit.builders import quantized_checkpoints
from tests.unit.builders.quantized_checkpoints import Array, Tensors, int8, to_bf16, write_safetensors

LAYER = "model.layers.0"
KINDS: list[CheckpointQuantization] = ["fp8", "nvfp4", "int4_awq", "w4a8_awq", "int8_sq"]
HIDDEN, INNER = 128, 256

Quantize = Callable[[str, Array], Tensors]


def quantizer(kind: CheckpointQuantization) -> Quantize:
    quantize: Quantize = getattr(quantized_checkpoints, STORED_FORMATS[kind])
    return quantize


@pytest.fixture
def weights() -> dict[str, Array]:
    """The tensors of a small model with one layer, of which embedding and last matrix are one."""
    draw = np.random.default_rng(7)
    shapes = {
        f"{LAYER}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        f"{LAYER}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        f"{LAYER}.mlp.up_proj.weight": (INNER, HIDDEN),
        f"{LAYER}.mlp.down_proj.weight": (HIDDEN, INNER),
        "model.embed_tokens.weight": (300, HIDDEN),
    }
    found = {name: draw.standard_normal(shape).astype(np.float32) * 0.04 for name, shape in shapes.items()}
    for norm in ("input_layernorm", "post_attention_layernorm"):
        found[f"{LAYER}.{norm}.weight"] = draw.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
    return found


@pytest.fixture
def source(weights: dict[str, Array], tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "source", {name: ("F32", values) for name, values in weights.items()})
    return tmp_path / "source"


def quantized_tensors(weights: dict[str, Array], kind: CheckpointQuantization) -> Tensors:
    """Return the tensors of a checkpoint whose projections are quantised and whose others are in BF16."""
    tensors: Tensors = {}
    for name, values in weights.items():
        if name.endswith("_proj.weight"):
            tensors |= quantizer(kind)(name, values)
        else:
            tensors[name] = ("BF16", to_bf16(values))
    return tensors


def smoothed(weights: dict[str, Array]) -> tuple[dict[str, Array], Tensors]:
    """Smooth as AWQ does: norms take the factors of the matrices behind them, other matrices have them beside them."""
    draw = np.random.default_rng(8)
    changed, kept = dict(weights), Tensors()
    for norm, behind in (("input_layernorm", "self_attn.q_proj"), ("post_attention_layernorm", "mlp.up_proj")):
        factors = draw.uniform(0.5, 2, HIDDEN).astype(np.float32)
        changed[f"{LAYER}.{norm}.weight"] = weights[f"{LAYER}.{norm}.weight"] * factors
        changed[f"{LAYER}.{behind}.weight"] = weights[f"{LAYER}.{behind}.weight"] / factors
    for name, width in (("self_attn.o_proj", HIDDEN), ("mlp.down_proj", INNER)):
        factors = draw.uniform(0.5, 2, width).astype(np.float32)
        changed[f"{LAYER}.{name}.weight"] = weights[f"{LAYER}.{name}.weight"] / factors
        kept[f"{LAYER}.{name}.pre_quant_scale"] = ("BF16", to_bf16(factors))
    return changed, kept


def test_fp8_numbers_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(E4M3, theirs)


def test_bf16_and_fp16_are_read(tmp_path: Path) -> None:
    values = np.array([0.0, 1.0, -2.5, 3.1415927, 65280.0], np.float32)
    half, integer = values.astype(np.float16), np.array([-3], np.int8)
    write_safetensors(tmp_path, {"a": ("BF16", to_bf16(values)), "b": ("F16", half), "c": ("I8", integer)})
    tensors = stored_tensors(tmp_path)
    np.testing.assert_allclose(tensors["a"].read(), values, rtol=2**-8)
    np.testing.assert_allclose(tensors["b"].read(), values, rtol=2**-11)
    assert tensors["c"].read().tolist() == [-3.0]


def test_halves_of_bytes_are_in_modelopts_order() -> None:
    # ModelOpt packs row 2i into the lower half of row i, and column 2j into the lower half of column j.
    packed = np.array([[0x71, 0x8F]], np.uint8)
    assert int4_values(packed).tolist() == [[1, -1], [7, -8]]
    assert fp4_values(packed).tolist() == [[0.5, 6.0, -6.0, -0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_export_is_within_half_of_the_bound(
    kind: CheckpointQuantization, weights: dict[str, Array], source: Path, tmp_path: Path
) -> None:
    write_safetensors(tmp_path / "ours", quantized_tensors(weights, kind))
    calls: list[tuple[int, int]] = []
    errors = compare_checkpoints(source, tmp_path / "ours", kind, on_tensor=lambda done, all: calls.append((done, all)))
    bound = BOUNDS[STORED_FORMATS[kind]]
    assert errors.quantized == 4 and errors.worst_tensor.endswith("_proj.weight")
    assert bound / 8 < errors.mean <= errors.worst < bound * 0.7
    assert calls == [(number, 7) for number in range(7)]


@pytest.mark.parametrize("kind", ["int4_awq", "int8_sq"])
def test_smoothing_is_undone(
    kind: CheckpointQuantization, weights: dict[str, Array], source: Path, tmp_path: Path
) -> None:
    changed, kept = smoothed(weights)
    tensors = quantized_tensors(changed, kind)
    write_safetensors(tmp_path / "ours", tensors | kept)
    errors = compare_checkpoints(source, tmp_path / "ours", kind)
    assert errors.quantized == 4 and errors.worst < BOUNDS[STORED_FORMATS[kind]]
    write_safetensors(tmp_path / "without", tensors)
    with pytest.raises(VerificationFailed, match="of its norm away from its source"):
        compare_checkpoints(source, tmp_path / "without", kind)


def test_norms_with_one_added_are_undone_with_one_added(
    weights: dict[str, Array], source: Path, tmp_path: Path
) -> None:
    norm, matrix = f"{LAYER}.input_layernorm.weight", f"{LAYER}.self_attn.q_proj.weight"
    factors = np.linspace(0.5, 2, HIDDEN, dtype=np.float32)
    changed = weights | {norm: (weights[norm] + 1) * factors - 1, matrix: weights[matrix] / factors}
    write_safetensors(tmp_path / "ours", quantized_tensors(changed, "int4_awq"))
    assert compare_checkpoints(source, tmp_path / "ours", "int4_awq", model_type="gemma2").quantized == 4
    with pytest.raises(VerificationFailed, match="q_proj"):
        compare_checkpoints(source, tmp_path / "ours", "int4_awq", model_type="llama")


def transposed(values: Array) -> Array:
    return np.ascontiguousarray(values.T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault",
    [
        lambda values: values * np.float32(1.3),
        transposed,
        lambda values: values[::-1],
        lambda values: np.where(np.arange(len(values))[:, None] % 16 == 0, np.float32(1e-3), values),
    ],
    ids=["scaled", "transposed", "reversed", "rows-lost"],
)
def test_a_wrong_matrix_is_found(
    kind: CheckpointQuantization,
    fault: Callable[[Array], Array],
    weights: dict[str, Array],
    source: Path,
    tmp_path: Path,
) -> None:
    name = f"{LAYER}.self_attn.o_proj.weight"
    broken = weights | {name: np.ascontiguousarray(fault(weights[name]), dtype=np.float32)}
    write_safetensors(tmp_path / "ours", quantized_tensors(broken, kind))
    with pytest.raises(VerificationFailed, match=r"o_proj\.weight is .* away from its source"):
        compare_checkpoints(source, tmp_path / "ours", kind)


@pytest.mark.parametrize("kind", ["int4_awq", "nvfp4"])
def test_exchanged_halves_of_bytes_are_found(
    kind: CheckpointQuantization, weights: dict[str, Array], source: Path, tmp_path: Path
) -> None:
    tensors = quantized_tensors(weights, kind)
    name = f"{LAYER}.mlp.up_proj.weight"
    packed: npt.NDArray[np.uint8] = tensors[name][1].astype(np.uint8)
    tensors[name] = ("U8", (packed >> 4) | (packed << 4))
    write_safetensors(tmp_path / "ours", tensors)
    with pytest.raises(VerificationFailed, match="up_proj"):
        compare_checkpoints(source, tmp_path / "ours", kind)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(f"{LAYER}.mlp.up_proj.weight"), "lacks model.layers.0.mlp.up_proj"),
        (lambda tensors: tensors.pop(f"{LAYER}.mlp.up_proj.weight_scale"), "has no weight_scale"),
        (
            lambda tensors: tensors.update({f"{LAYER}.mlp.up_proj.weight_scale": ("F32", np.zeros(1, np.float32))}),
            "not finite and above zero",
        ),
        (
            lambda tensors: tensors.update({f"{LAYER}.mlp.up_proj.weight_scale": ("F32", np.ones(3, np.float32))}),
            r"have the shape \(3,\)",
        ),
        (
            lambda tensors: tensors.update(int8(f"{LAYER}.mlp.up_proj.weight", np.ones((256, 128), "f4"))),
            "stored as int8",
        ),
        (
            lambda tensors: tensors.update({"model.embed_tokens.weight": ("F32", np.ones((2, 2), np.float32))}),
            r"has the shape \(2, 2\)",
        ),
        (
            lambda tensors: tensors.update({"model.embed_tokens.weight": ("F32", np.ones((300, 128), np.float32))}),
            "tensors that are not quantized",
        ),
    ],
)
def test_a_broken_export_is_refused_with_its_fault(
    change: Callable[[Tensors], object], message: str, weights: dict[str, Array], source: Path, tmp_path: Path
) -> None:
    tensors = quantized_tensors(weights, "fp8")
    change(tensors)
    write_safetensors(tmp_path / "ours", tensors)
    with pytest.raises(VerificationFailed, match=message):
        compare_checkpoints(source, tmp_path / "ours", "fp8")


def test_a_layer_without_a_quantized_matrix_is_refused(weights: dict[str, Array], tmp_path: Path) -> None:
    both = weights | {name.replace("layers.0", "layers.1"): values for name, values in weights.items()}
    write_safetensors(tmp_path / "source", {name: ("F32", values) for name, values in both.items()})
    tensors = quantized_tensors(weights, "fp8")
    tensors |= {name: ("F32", values) for name, values in both.items() if "layers.1" in name}
    write_safetensors(tmp_path / "ours", tensors)
    with pytest.raises(VerificationFailed, match=r"Nothing was quantized in model\.layers\.1"):
        compare_checkpoints(tmp_path / "source", tmp_path / "ours", "fp8")


def test_scales_of_blocks_that_do_not_fit_are_refused(weights: dict[str, Array], tmp_path: Path) -> None:
    name = f"{LAYER}.mlp.up_proj.weight"
    tensors = quantized_checkpoints.int4(name, weights[name]) | {f"{name}_scale": ("F32", np.ones((256, 3), "f4"))}
    write_safetensors(tmp_path, tensors)
    with pytest.raises(VerificationFailed, match="no whole number of blocks"):
        dequantized(stored_tensors(tmp_path), name)


def test_files_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(SourceUnavailable, match="not a readable safetensors file"):
        stored_tensors(tmp_path)


LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("source_config", "quantized_config"),
    [
        ({"rope_theta": 500000.0, "rope_scaling": LLAMA_3}, {"rope_parameters": {"rope_theta": 500000, **LLAMA_3}}),
        ({"rope_theta": 1000000}, {"rope_theta": 1000000.0, "rope_scaling": None}),
        ({}, {"rope_theta": 10000.0}),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        ({"text_config": {"rope_theta": 5e5}}, {"rope_theta": 5e5}),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
            {"rope_parameters": {"sliding_attention": {}, "full_attention": {"rope_theta": 1000000}}},
        ),
    ],
)
def test_the_same_rotary_embedding_is_recognized_in_both_spellings(source_config: dict, quantized_config: dict) -> None:
    check_rope(source_config, quantized_config)
    assert rope_parameters(source_config) == rope_parameters(json.loads(json.dumps(quantized_config)))


@pytest.mark.parametrize(
    "lost",
    [
        {"rope_theta": 500000.0},
        {"rope_scaling": LLAMA_3},
        {},
        {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 500000.0, **LLAMA_3, "factor": 32.0}},
    ],
)
def test_a_lost_rotary_embedding_is_refused(lost: dict) -> None:
    with pytest.raises(VerificationFailed, match=r"rotary embedding was lost: .*500000.* transformers 4\.57\.3"):
        check_rope({"rope_theta": 500000.0, "rope_scaling": LLAMA_3}, lost)
