"""The process that `builders.subprocess_step` starts: `python -I -u subprocess_main.py '<request as JSON>'`.

The request names `parent` (process id of the build), `root` (folder for `sys.path`, or null), `module` (a dotted name,
or the path of a file where `root` is null), `function`, `arguments` (an object) and `result` (a file for the function's
result, written as JSON). This file imports only the standard library: an isolated step must find none of our packages
in `sys.modules`, because the exporter of text models has a package `builders` too.
"""

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Call the function that the request in the first argument names, and write its result."""
    request = json.loads(sys.argv[1])
    exit_with_parent(request["parent"])
    warnings.filterwarnings("ignore")
    # Exporters make millions of small objects. At the default thresholds, garbage collection takes a fifth of the time.
    gc.set_threshold(50_000, 20, 20)
    function = getattr(_load(request), request["function"])
    result = function(**request["arguments"])
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")


def _load(request: dict[str, Any]) -> ModuleType:
    # `-I` keeps the folder that holds our packages off `sys.path`, unless they are installed.
    if request["root"] is not None:
        sys.path.insert(0, request["root"])
        return importlib.import_module(request["module"])
    spec = importlib.util.spec_from_file_location("step", request["module"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exit_with_parent(parent: int) -> None:
    """Have Linux kill this process when the build that started it dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit("the build that started this step is gone")


if __name__ == "__main__":
    main()
