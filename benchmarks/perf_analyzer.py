"""Runs NVIDIA's perf_analyzer, which sends requests to Triton models over gRPC, and reads its response times.

The program ships in the wheel tritonclient 2.41.0 on PyPI. It needs libcudart (PyPI: nvidia-cuda-runtime-cu12) and
Debian's libb64, also on machines without a GPU. The wheels are downloaded into the cache folder once. libb64 comes from
the system, or from Debian's or Ubuntu's packages.

`python -m benchmarks.perf_analyzer [ARGUMENT …]` runs the program, for example from benchmarks/profiles/run:

    PERF_ANALYZER="python -m benchmarks.perf_analyzer" benchmarks/profiles/run chat -u HOST:8001 -m MODEL
"""

import ctypes
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput import single_token_words
from benchmarks.timings import ResponseTiming
from builders import config_pbtxt
from builders.packaged_files import cache_folder

NEW_TOKENS = 64
PROMPTS, PROMPT_WORDS = 64, 100
VERSION = "2.41.0"
LIBB64 = "libb64.so.0d"
WHEELS = (f"tritonclient=={VERSION}", "nvidia-cuda-runtime-cu12==12.9.79")


Executable = tuple[Path, dict[str, str]]
"""The path of the binary, and the environment variables that it needs."""


def install(cache: Path) -> Executable:
    """Return perf_analyzer. The first call downloads it into `cache`.

    Raises `RuntimeError` if libb64 is not installed and cannot be downloaded, and `CalledProcessError` if pip cannot
    download the wheels.
    """
    home = cache / f"perf_analyzer-{VERSION}"
    binary = home / f"tritonclient-{VERSION}.data/data/bin/perf_analyzer"
    if not (home / "complete").exists():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", home, *WHEELS], check=True)
        for wheel in home.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(home)
        if not _loads(LIBB64):
            _unpack_libb64(home)
        binary.chmod(0o755)
        (home / "complete").touch()
    libraries = [home / "nvidia/cuda_runtime/lib", *(path.parent for path in home.glob("usr/lib/*/libb64.so*"))]
    return binary, {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}


def _loads(library: str) -> bool:
    """Return True if the dynamic linker finds the library under this name."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _unpack_libb64(home: Path) -> None:
    download = None
    if shutil.which("apt-get") and shutil.which("dpkg"):
        download = subprocess.run(["apt-get", "download", "-q", "libb64-0d"], cwd=home, capture_output=True)
    packages = list(home.glob("libb64*.deb"))
    if download is None or download.returncode or not packages:
        raise RuntimeError(f"perf_analyzer needs {LIBB64}: install it (Debian, Ubuntu: apt-get install libb64-0d).")
    for package in packages:
        subprocess.run(["dpkg", "-x", package, home], check=True)


def make_prompts(tokenizer_file: Path) -> list[str]:
    """Return `PROMPTS` texts of `PROMPT_WORDS` words. Each word is a single token."""
    words, rng = [text for _, text in single_token_words(tokenizer_file)], random.Random(7)
    return ["".join(rng.choices(words, k=PROMPT_WORDS)) for _ in range(PROMPTS)]


def render_prompts(folder: Path, prompts: Sequence[str]) -> list[str]:
    """Return the prompts that the gateway renders for the model in `folder`: a chat of one user message for each."""
    from gateway.model_card.card import parse_text
    from gateway.operations.chat import Chat, Message
    from gateway.prompting.chat_prompt import build_completion

    config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    chats = [Chat(model=folder.name, messages=(Message(role="user", content=text),)) for text in prompts]
    return [str(build_completion(chat, parse_text(parameters))[0].prompt) for chat in chats]


WINDOWS = 3
"""The fewest measurement windows of perf_analyzer. It ends after them, because `-s` accepts any variation as stable."""


class TooSlow(RuntimeError):
    """The machine is too slow for the measurement: no request, or too few, ended within its time."""


def measure(
    program: Executable,
    options: Sequence[str | Path | int],
    requests: Sequence[Mapping[str, Any]] | None,
    concurrency: int,
    seconds: float,
    tokens: int = 1,
) -> list[ResponseTiming]:
    """Keep `concurrency` requests in flight for about `seconds`, and return the timings of their responses.

    Each response counts as `tokens` tokens. Without `requests` all inputs are zero. Raises `RuntimeError` with the
    output of perf_analyzer if it fails, and `TooSlow` if no request ended within a window.
    """
    binary, environment = program
    with tempfile.TemporaryDirectory() as folder:
        input_file, export_file = Path(folder) / "data.json", Path(folder) / "profile.json"
        input_file.write_text(json.dumps({"data": requests}))
        command = [binary, *options, "--input-data", input_file if requests else "zero"]
        command += ["--concurrency-range", concurrency, "-p", math.ceil(1000 * seconds / WINDOWS)]
        command += ["-s", 100000, "-r", WINDOWS, "--profile-export-file", export_file]
        completed = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300 + 3 * seconds
        )
        if "No valid requests recorded" in completed.stdout + completed.stderr:
            raise TooSlow(f"No request of {concurrency} ended within a window of {seconds / WINDOWS:.0f} s.")
        if completed.returncode or not export_file.exists():
            raise RuntimeError(f"perf_analyzer failed: {(completed.stderr or completed.stdout)[-3000:]}")
        records = json.loads(export_file.read_text())["experiments"][0]["requests"]
    return [
        ResponseTiming(record["timestamp"] / 1e9, tuple(time / 1e9 for time in record["response_timestamps"]), tokens)
        for record in records
        if record["response_timestamps"]
    ]


def main() -> None:
    """Replace this process by perf_analyzer with the same arguments."""
    binary, environment = install(cache_folder())
    os.execve(binary, ["perf_analyzer", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
