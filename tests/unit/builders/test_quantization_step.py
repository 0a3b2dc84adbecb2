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

Recipes = Callable[..., Recipe]

PACKAGE = """
import json, sys
from pathlib import Path

sys.path.insert(0, {root!r})
calls = []
FAULT = {fault!r}

FP8_DEFAULT_CFG = {{"quant_cfg": [{{"quantizer_name": "*weight_quantizer"}}], "algorithm": "max"}}
FP8_KV_CFG = {{"quant_cfg": [{{"quantizer_name": "*[kv]_bmm_quantizer"}}]}}


def update_quant_cfg_with_kv_cache_quant(settings, added):
    return {{**settings, "quant_cfg": settings["quant_cfg"] + added}}


def quantize(model, settings, forward_loop):
    calls.append(settings)
    forward_loop(model)
    return model


def export_hf_checkpoint(model, export_dir):
    if FAULT == "fails":
        raise RuntimeError("no kernel for this layer")
    import numpy as np
    from tests.unit.builders import quantized_checkpoints as store

    tensors = {{}}
    for name, values in model.state_dict().items():
        array = values.float().numpy()
        if name.endswith("_proj.weight"):
            tensors |= store.fp8(name, array * (1.5 if FAULT == "wrong" else 1.0))
        elif name != "lm_head.weight":
            tensors[name] = ("F32", array)
        else:
            tensors[name] = ("BF16", store.to_bf16(array))
    store.write_safetensors(Path(export_dir), tensors)
    config = model.config.to_dict() | {{"quantization_config": {{"quant_algo": "FP8", "calls": calls}}}}
    if FAULT == "rope":
        config["rope_parameters"] = {{"rope_theta": 1.0, "rope_type": "default"}}
    (Path(export_dir) / "config.json").write_text(json.dumps(config, default=str))
"""


@pytest.fixture
def modelopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make an environment whose Python finds a stand-in for ModelOpt, and let the builds use it."""

    def make(fault: str = "") -> Path:
        root = Path(__file__).parents[3]
        site = tmp_path / "environment" / "site"
        for name in ("modelopt", "modelopt/torch", "modelopt/torch/quantization", "modelopt/torch/export"):
            (site / name).mkdir(parents=True, exist_ok=True)
            (site / name / "__init__.py").write_text("")
        (site / "modelopt" / "__init__.py").write_text('__version__ = "0.47.0"\n')
        (site / "modelopt" / "stand_in.py").write_text(PACKAGE.format(root=str(root), fault=fault))
        for name in ("quantization", "export"):
            (site / "modelopt" / "torch" / name / "__init__.py").write_text("from modelopt.stand_in import *\n")
        python = tmp_path / "environment" / "python"
        # The step runs with -I, which ignores PYTHONPATH: the wrapper puts the folder on the path.
        python.write_text(
            f"#!{sys.executable}\n"
            "import runpy, sys\n"
            f"sys.path.insert(0, {str(site)!r})\n"
            "arguments = [argument for argument in sys.argv[1:] if argument not in ('-I', '-u')]\n"
            "if arguments[0] == '-c':\n"
            "    exec(arguments[1])\n"
            "else:\n"
            "    sys.argv = arguments\n"
            "    runpy.run_path(arguments[0], run_name='__main__')\n"
        )
        python.chmod(0o755)
        monkeypatch.setenv(quantize.PYTHON_VARIABLE, str(python))
        return python

    return make


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
