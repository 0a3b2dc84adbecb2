"""`tritonic bench`: run the benchmarks. They are in a checkout of the project, not in the installed package."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tritonic.errors import TritonicError

# The modules that the benchmarks import, and the pip package of each.
PACKAGE_BY_MODULE = {
    "aiohttp": "aiohttp",
    "gguf": "gguf",
    "matplotlib": "matplotlib",
    "psutil": "psutil",
    "pytriton": "nvidia-pytriton",
    "safetensors": "safetensors",
    "sentence_transformers": "sentence-transformers",
    "tokenizers": "tokenizers",
    "xllamacpp": "xllamacpp",
}


class BenchError(TritonicError):
    """The benchmarks or their packages are not installed; the message says how to get them."""


def find_checkout() -> Path:
    """Return the folder that holds `benchmarks`: this checkout, else the current folder. Raises BenchError."""
    for folder in (Path(__file__).resolve().parents[1], Path.cwd()):
        if (folder / "benchmarks" / "registry.py").is_file():
            return folder
    raise BenchError(
        "The benchmarks are not installed: the project's folder `benchmarks`, which the package leaves out, has them.\n"
        "Clone the project, and run `make bench`, or `tritonic bench` in its folder."
    )


def missing_packages() -> list[str]:
    """Return the pip packages that the benchmarks need and that are not installed, by name."""
    return sorted(package for module, package in PACKAGE_BY_MODULE.items() if importlib.util.find_spec(module) is None)


def bench(arguments: Sequence[str]) -> int:
    """Run the benchmarks with these arguments and return their exit status. Raises BenchError."""
    root = find_checkout()
    if "-h" not in arguments and "--help" not in arguments and (missing := missing_packages()):
        raise BenchError(
            f"The benchmarks need {', '.join(missing)}:\n"
            f"pip install -e '{root}[embedded,build,bench]' -c {root / 'constraints.txt'}"
        )
    # The variable is for the processes that the benchmarks start.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(root))
    return int(importlib.import_module("benchmarks.__main__").main(list(arguments)))
