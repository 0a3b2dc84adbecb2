"""An environment whose Python finds a stand-in for ModelOpt, with its published names."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.llm.quantization import quantize

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


def export_tensorrt_llm_checkpoint(
    model, decoder_type, dtype, export_dir, inference_tensor_parallel=0, inference_pipeline_parallel=1
):
    import numpy as np
    from tests.unit.builders import quantized_checkpoints as store

    folder = Path(export_dir)
    for rank in range(inference_tensor_parallel * inference_pipeline_parallel):
        store.write_safetensors(folder, {{"transformer.ln_f.weight": ("F32", np.ones(4, np.float32))}})
        (folder / "model.safetensors").rename(folder / f"rank{{rank}}.safetensors")
    base = 1.0 if FAULT == "rope" else model.config.to_dict()["rope_parameters"]["rope_theta"]
    config = {{"decoder_type": decoder_type, "dtype": str(dtype), "rotary_base": base, "calls": calls}}
    (folder / "config.json").write_text(json.dumps(config))
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
