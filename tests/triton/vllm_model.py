"""The default chat model on vLLM: the folder that the builder makes, with another engine and a checkpoint beside it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders import recipe
from builders.build import resolve_source
from builders.progress import NullProgress
from tests.triton.model_copies import change_config
from tritonic.wheel import MODEL_ENVIRONMENT

ENVIRONMENT = Path(__file__).parents[2] / ".venv-vllm"
COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""The files that the backend reads beside the engine's own."""
ENGINE_ARGUMENTS = {
    # In bfloat16, a token's neighbours in a batch decide between two that are nearly as likely.
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 768 * 2**20,
}


def fetch_checkpoint(folder: Path) -> Path:
    """Return the checkpoint that the builder makes of its package, in a folder within `folder`."""
    return resolve_source(recipe.load(recipe.DEFAULT_LLM_RECIPE)).fetch(folder, NullProgress()).folder


@contextmanager
def environment() -> Iterator[None]:
    """Have Tritons run models in the environment of `make test-vllm`, with threads that wait without spinning."""
    if not (ENVIRONMENT / "bin" / "python3").exists():
        raise RuntimeError("vLLM is not installed: make test-vllm")
    variables = {
        MODEL_ENVIRONMENT: str(ENVIRONMENT),
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Spinning threads of two models, or of a model and of its callers, take the cores from one another.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def version() -> str:
    """Return the version of vLLM that is installed."""
    (found,) = ENVIRONMENT.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    return found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")


def make_model(built: Path, checkpoint: Path, folder: Path, **parameters: object) -> Path:
    """Write a model for vLLM into `folder`, from `built`, the same model for onnxruntime. Return the folder.

    `parameters` replace those of its config.pbtxt.
    """
    (folder / "1").mkdir(parents=True)
    for name in COPIED_FILES:
        if (built / "1" / name).is_file():
            shutil.copyfile(built / "1" / name, folder / "1" / name)
    (folder / "1" / "model.json").write_text(json.dumps({"model": str(checkpoint), **ENGINE_ARGUMENTS}))
    shutil.copyfile(built / "BUILD.json", folder / "BUILD.json")
    change_config(built, folder, folder.name, (), **{"engine": "vllm", "precision": "fp32", **parameters})
    return folder
