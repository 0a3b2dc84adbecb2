"""TensorRT-RTX in the place of TensorRT: it has the same Python API, and its builder needs no GPU and no driver.

`make tensorrt-rtx` installs it into a folder of its own, and `TRITONIC_TENSORRT_RTX` may name another.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import tensorrt_plan

FOLDER = Path(os.environ.get("TRITONIC_TENSORRT_RTX") or Path(__file__).parents[3] / ".tensorrt-rtx")

needs_tensorrt_rtx = pytest.mark.skipif(
    not (FOLDER / "tensorrt_rtx").is_dir(), reason=f"TensorRT-RTX is not in {FOLDER}: make tensorrt-rtx"
)


def use_tensorrt_rtx(patch: pytest.MonkeyPatch, devices: Path) -> Any:
    """Let `import tensorrt` give TensorRT-RTX, and `devices` hold a GPU; return the module. It chooses kernels fast."""
    patch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("tensorrt_rtx")
    patch.setitem(sys.modules, "tensorrt", module)
    (devices / "nvidia0").touch()
    patch.setattr(tensorrt_plan, "DEVICES", devices)
    patch.setattr(tensorrt_plan, "OPTIMIZATION_LEVEL", 0)
    return module
