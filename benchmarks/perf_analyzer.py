"""NVIDIA's perf_analyzer, which asks Triton models over gRPC, and when it got its answers.

It ships in the wheel tritonclient 2.41.0 on PyPI; it wants libcudart (PyPI: nvidia-cuda-runtime-cu12) and libb64 as
Debian has it, also where there is no GPU. They are loaded into the cache once; libb64 is where the system has it, or
comes from Debian's or Ubuntu's packages.

python -m benchmarks.perf_analyzer [ARGUMENT …] runs it, for benchmarks/profiles/run:

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
from builders.packaged_gguf import cache_folder

NEW_TOKENS = 64
PROMPTS, PROMPT_WORDS = 64, 100
VERSION = "2.41.0"
LIBB64 = "libb64.so.0d"
WHEELS = (f"tritonclient=={VERSION}", "nvidia-cuda-runtime-cu12==12.9.79")


Executable = tuple[Path, dict[str, str]]
"""The binary, and the environment that it needs."""


def install(cache: Path) -> Executable:
    """Where perf_analyzer is, and the environment that it needs; loaded where it is not there yet.

    Raises `RuntimeError` where libb64 is neither there nor to be had, `CalledProcessError` where the wheels are not.
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
    """Whether the system has it, under the name that the binary asks for."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _unpack_libb64(home: Path) -> None:
    done = None
    if shutil.which("apt-get") and shutil.which("dpkg"):
        done = subprocess.run(["apt-get", "download", "-q", "libb64-0d"], cwd=home, capture_output=True)
    packages = list(home.glob("libb64*.deb"))
    if done is None or done.returncode or not packages:
        raise RuntimeError(f"perf_analyzer needs {LIBB64}: install it (Debian, Ubuntu: apt-get install libb64-0d).")
    for package in packages:
        subprocess.run(["dpkg", "-x", package, home], check=True)


def make_prompts(tokenizer_file: Path) -> list[str]:
    """Texts of words that stay single tokens."""
    words, chance = [text for _, text in single_token_words(tokenizer_file)], random.Random(7)
    return ["".join(chance.choices(words, k=PROMPT_WORDS)) for _ in range(PROMPTS)]


def render_prompts(folder: Path, prompts: Sequence[str]) -> list[str]:
    """What the gateway makes of each as one message of the user's, for the model in `folder`."""
    from gateway.model_card.card import parse_text
    from gateway.operations.chat import Chat, Message
    from gateway.prompting.chat_prompt import build_completion

    config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    chats = [Chat(model=folder.name, messages=(Message(role="user", content=text),)) for text in prompts]
    return [str(build_completion(chat, parse_text(parameters))[0].prompt) for chat in chats]


WINDOWS = 3
"""What perf_analyzer measures at least; it ends after them where it is told to call anything stable."""


class TooSlow(RuntimeError):
    """The machine did nothing of what was asked within the time."""


def measure(
    program: Executable,
    options: Sequence[str | Path | int],
    requests: Sequence[Mapping[str, Any]] | None,
    at_once: int,
    seconds: float,
    tokens: int = 1,
) -> list[ResponseTiming]:
    """Keep `at_once` requests open for about so many seconds, and return when their answers came.

    Each is worth so many tokens. Without `requests` all inputs are zero. Raises `RuntimeError` with what it
    said, and `TooSlow`.
    """
    binary, environment = program
    with tempfile.TemporaryDirectory() as folder:
        asked, exported = Path(folder) / "data.json", Path(folder) / "profile.json"
        asked.write_text(json.dumps({"data": requests}))
        command = [binary, *options, "--input-data", asked if requests else "zero", "--concurrency-range", at_once]
        command += ["-p", math.ceil(1000 * seconds / WINDOWS), "-s", 100000, "-r", WINDOWS]
        command += ["--profile-export-file", exported]
        ran = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300 + 3 * seconds
        )
        if "No valid requests recorded" in ran.stdout + ran.stderr:
            raise TooSlow(f"No request of {at_once} ended within a window of {seconds / WINDOWS:.0f} s.")
        if ran.returncode or not exported.exists():
            raise RuntimeError(f"perf_analyzer failed: {(ran.stderr or ran.stdout)[-3000:]}")
        found = json.loads(exported.read_text())["experiments"][0]["requests"]
    return [
        ResponseTiming(each["timestamp"] / 1e9, tuple(moment / 1e9 for moment in each["response_timestamps"]), tokens)
        for each in found
        if each["response_timestamps"]
    ]


def main() -> None:
    """Become perf_analyzer."""
    binary, environment = install(cache_folder())
    os.execve(binary, ["perf_analyzer", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
