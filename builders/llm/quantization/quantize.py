"""Quantise a checkpoint with ModelOpt in a process of its own, and verify the result."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from builders import subprocess_step
from builders.checkpoint import Checkpoint
from builders.errors import MissingDependency, NotEnoughSpace, VerificationFailed
from builders.llm.quantization.compare import check_rope, compare_checkpoints
from builders.llm.recipe import LLMRecipe
from builders.llm.targets import CheckpointQuantization
from builders.progress import Progress

PYTHON_VARIABLE = "TRITONIC_QUANTIZATION_PYTHON"
"""Environment variable with the Python of an environment that has ModelOpt. Default: the one that runs the build."""

PACKAGES = "nvidia-modelopt==0.47.0 transformers==4.57.3 torch==2.13.0 accelerate requests"
REMEDY = (
    "It wants an older transformers than the builders, so install it into an environment of its own: "
    f"python3 -m venv modelopt && modelopt/bin/pip install {PACKAGES}, then set {PYTHON_VARIABLE}=modelopt/bin/python."
)

CONFIGS: dict[CheckpointQuantization, str] = {
    "fp8": "FP8_DEFAULT_CFG",
    "nvfp4": "NVFP4_DEFAULT_CFG",
    "int4_awq": "INT4_AWQ_CFG",
    "w4a8_awq": "W4A8_AWQ_BETA_CFG",
    "int8_sq": "INT8_SMOOTHQUANT_CFG",
}
"""ModelOpt's names of its configurations."""


def check(recipe: LLMRecipe, parameters: int) -> None:
    """Raise MissingDependency without ModelOpt, NotEnoughSpace if the model does not fit into the memory in 16 bits."""
    if not has_modelopt():
        raise MissingDependency("nvidia-modelopt", REMEDY)
    needed, total = 2 * parameters, psutil.virtual_memory().total
    if needed > total:
        raise NotEnoughSpace(
            f"The model has {parameters / 1e9:.1f} billion parameters, so quantizing it needs {needed / 1e9:.0f} GB of "
            f"memory, and this machine has {total / 1e9:.0f} GB."
        )


def python() -> str:
    """Return the Python that runs ModelOpt."""
    return os.environ.get(PYTHON_VARIABLE) or sys.executable


def has_modelopt() -> bool:
    """Return whether the Python that runs ModelOpt has it."""
    if python() == sys.executable:
        return importlib.util.find_spec("modelopt") is not None
    if shutil.which(python()) is None:
        return False
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('modelopt') is None)"
    return subprocess.run([python(), "-I", "-c", look], capture_output=True, timeout=60, check=False).returncode == 0


def calibration_texts() -> list[str]:
    """Return the texts with which scales are measured: prose, code and data in several languages."""
    text = Path(__file__).with_name("calibration.txt").read_text(encoding="utf-8")
    return [part.strip() for part in text.split("\n%%\n") if part.strip()]


def quantize_checkpoint(
    checkpoint: Checkpoint,
    recipe: LLMRecipe,
    scratch: Path,
    progress: Progress,
    tensorrt_llm: dict[str, Any] | None = None,
) -> tuple[Path, dict[str, str]]:
    """Return the folder of the quantised checkpoint, below `scratch`, and the versions of the packages that wrote it.

    Raises ExportFailed.

    With `tensorrt_llm`, see `modelopt_step.quantize`, it has the layout of TensorRT-LLM.
    """
    folder = scratch / "quantized"
    texts = calibration_texts()
    quantization = recipe.checkpoint_quantization
    versions: dict[str, str] = subprocess_step.run(
        f"{__package__}.modelopt_step:quantize",
        {
            "source": str(checkpoint.folder),
            "output": str(folder),
            "config": CONFIGS[quantization] if quantization is not None else None,
            "fp8_kv_cache": recipe.kv_cache_precision == "fp8",
            "texts": texts,
            "tensorrt_llm": tensorrt_llm,
            "dtype": "float16" if recipe.precision == "fp16" else "auto",
        },
        "ModelOpt",
        lambda line: _report(line, len(texts), progress),
        isolated=True,
        python=python(),
    )
    return folder, versions


def verify(
    checkpoint: Checkpoint, quantized: Checkpoint, kind: CheckpointQuantization, progress: Progress
) -> dict[str, Any]:
    """Compare a quantised checkpoint in Hugging Face's layout with its source; return the figures.

    Raises VerificationFailed.
    """
    config = quantized.config()
    if "quantization_config" not in config and not (quantized.folder / "hf_quant_config.json").is_file():
        raise VerificationFailed("The quantized checkpoint does not say how it is quantized; nothing was installed.")
    check_rope(checkpoint.config(), config)
    errors = compare_checkpoints(
        checkpoint.folder,
        quantized.folder,
        kind,
        model_type=str(config.get("model_type", "")),
        on_tensor=lambda done, all: progress.update(f"comparing tensor {done + 1} of {all}", done / all),
    )
    return {"quantization": kind, **asdict(errors)}


def _report(line: str, texts: int, progress: Progress) -> None:
    if line.startswith("calibrating with text "):
        progress.update(line, 0.8 * int(line.split()[3]) / texts)
    elif line.startswith(("loading", "writing")):
        progress.update(line)
