"""The step that runs ModelOpt, in a Python of its own, with a stand-in for ModelOpt that has its published names."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.build import build
from builders.errors import ExportFailed, MissingDependency, VerificationFailed
from builders.llm.quantization import quantize
from builders.recipe import Recipe
from tests.unit.builders.modelopt_stand_in import modelopt

Recipes = Callable[..., Recipe]

__all__ = ["modelopt"]


def test_without_modelopt_a_build_names_the_command_that_installs_it(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(target="vllm", precision="checkpoint", checkpoint_quantization="fp8")
    with pytest.raises(MissingDependency, match=r"nvidia-modelopt.*pip install nvidia-modelopt==.*transformers==4"):
        build(recipe, tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


def test_an_environment_without_modelopt_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(quantize.PYTHON_VARIABLE, str(tmp_path / "no-python"))
    assert not quantize.has_modelopt()
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    monkeypatch.setenv(quantize.PYTHON_VARIABLE, str(other))
    assert not quantize.has_modelopt()


@pytest.mark.exports
def test_a_quantized_model_is_built_and_compared(
    modelopt: Callable[..., Path], tiny_recipe: Recipes, tmp_path: Path
) -> None:
    modelopt()
    assert quantize.has_modelopt()
    recipe = tiny_recipe(target="vllm", precision="checkpoint", checkpoint_quantization="fp8", kv_cache_precision="fp8")
    built = build(recipe, tmp_path / "repository")
    checkpoint = built.folder / "1" / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_bytes())
    (settings,) = config["quantization_config"]["calls"]
    assert [entry["quantizer_name"] for entry in settings["quant_cfg"]] == ["*weight_quantizer", "*[kv]_bmm_quantizer"]
    assert (checkpoint / "tokenizer.json").is_file() and (checkpoint / "tokenizer_config.json").is_file()
    assert json.loads((built.folder / "1" / "model.json").read_bytes())["kv_cache_dtype"] == "fp8"
    assert (built.metrics["quantization"], built.metrics["quantized"]) == ("fp8", 14)
    assert 0 < built.metrics["worst"] < 0.05
    assert built.metrics["packages"]["nvidia-modelopt"] == "0.47.0"


@pytest.mark.exports
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("fails", ExportFailed, "no kernel for this layer"),
        ("wrong", VerificationFailed, "of its norm away from its source"),
        ("rope", VerificationFailed, "rotary embedding was lost"),
    ],
)
def test_a_failed_quantization_installs_nothing(
    fault: str,
    error: type[Exception],
    message: str,
    modelopt: Callable[..., Path],
    tiny_recipe: Recipes,
    tmp_path: Path,
) -> None:
    modelopt(fault)
    recipe = tiny_recipe(target="vllm", precision="checkpoint", checkpoint_quantization="fp8")
    with pytest.raises(error, match=message):
        build(recipe, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_calibration_texts_differ_in_language_and_form() -> None:
    texts = quantize.calibration_texts()
    assert len(texts) == len(set(texts)) == 32
    assert all(80 < len(text) < 2000 for text in texts)
    joined = "".join(texts)
    for sample in ("def merge_sorted", "SELECT", '{"order"', "的", "Die ", "<!doctype", "Assistant:"):
        assert sample in joined
