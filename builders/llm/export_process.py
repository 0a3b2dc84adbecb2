"""Run onnxruntime-genai's model builder in a process of its own: `python -I export_process.py '<JSON>'`.

Apart from the build because it prints, may take all memory, and imports packages by names (`builders`, `quantization`)
that are ours too: `-I` keeps our folders off `sys.path`, and the exporter's own folder goes first.
"""

import ctypes
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Export what the JSON object in the first argument asks for; see `builders.llm.export_step.export`."""
    request = json.loads(sys.argv[1])
    exit_with_parent(request["parent"])
    package = importlib.util.find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        raise SystemExit("onnxruntime-genai is not installed")
    sys.path.insert(0, str(Path(package.origin).parent / "models"))
    from builder import create_model, parse_extra_options  # type: ignore[import-not-found]

    where = (None, request["input"], request["output"], request["precision"], request["device"], request["cache"])
    options = parse_extra_options(*where, request["options"])
    # Code that lies beside the weights is not run.
    create_model(*where, **{**options, "hf_remote": False})


def exit_with_parent(parent: int) -> None:
    """Have Linux kill this process when the build that started it dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit("the build that started this export is gone")


if __name__ == "__main__":
    main()
