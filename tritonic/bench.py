"""`tritonic bench`: find the benchmarks, which lie in a checkout and not in the package, and hand over to them."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tritonic.errors import TritonicError

# By module, the package that pip installs.
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
    """The benchmarks, or what they need, are not here; the message says where to get them."""


def find_checkout() -> Path:
    """The folder that holds `benchmarks`: where this program lies, or the current one. Raises BenchError."""
    for folder in (Path(__file__).resolve().parents[1], Path.cwd()):
        if (folder / "benchmarks" / "registry.py").is_file():
            return folder
    raise BenchError(
        "The benchmarks are not here: they lie in the project's folder `benchmarks`, which the package leaves out.\n"
        "Clone the project, and run `make bench`, or `tritonic bench` in its folder."
    )


def missing_packages() -> list[str]:
    """The packages that the benchmarks need and that are not installed."""
    return sorted(package for module, package in PACKAGE_BY_MODULE.items() if importlib.util.find_spec(module) is None)


def bench(arguments: Sequence[str]) -> int:
    """Run the benchmarks with these arguments; their exit status. Raises BenchError."""
    root = find_checkout()
    if "-h" not in arguments and "--help" not in arguments and (lacking := missing_packages()):
        raise BenchError(
            f"The benchmarks need {', '.join(lacking)}:\n"
            f"pip install -e '{root}[embedded,build,bench]' -c {root / 'constraints.txt'}"
        )
    # Also for the processes that they start.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(root))
    return int(importlib.import_module("benchmarks.__main__").main(list(arguments)))
