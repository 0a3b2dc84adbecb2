"""Chats through the gateway next to NVIDIA's perf_analyzer, which asks the same Triton model over gRPC.

python -m benchmarks gateway

Both keep a number of streams open all the time (a request that ends is followed by the next), for the same seconds, in
turns. Each request generates 64 tokens, greedy, without an end. Both send the same 64 prompts again and again, which a
round before the measured ones has sent already: perf_analyzer cannot be kept from repeating itself, and the engine
remembers the beginnings of prompts. Tokens/s are those of the requests that ended after the warm-up.

perf_analyzer ships in the wheel tritonclient 2.41.0 on PyPI; it wants libcudart (PyPI: nvidia-cuda-runtime-cu12) and
Debian's libb64, also where there is no GPU. They are loaded into the cache once.
"""

import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.serving import Serving, serving
from benchmarks.throughput import whole_words

STREAMS = (1, 16)
SECONDS, WARM_UP = 20.0, 3.0
NEW_TOKENS = 64
PROMPTS, PROMPT_WORDS = 64, 100
WHEELS = ("tritonclient==2.41.0", "nvidia-cuda-runtime-cu12==12.9.79")


def program(cache: Path) -> tuple[Path, dict[str, str]]:
    """Where perf_analyzer is, and the environment that it needs; loaded where it is not there yet."""
    home = cache / "perf_analyzer-2.41.0"
    binary = home / "tritonclient-2.41.0.data/data/bin/perf_analyzer"
    if not (home / "complete").exists():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", home, *WHEELS], check=True)
        for wheel in home.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(home)
        subprocess.run(["apt-get", "download", "-q", "libb64-0d"], cwd=home, check=True, stdout=subprocess.DEVNULL)
        for package in home.glob("libb64*.deb"):
            subprocess.run(["dpkg", "-x", package, home], check=True)
        binary.chmod(0o755)
        (home / "complete").touch()
    libraries = [home / "nvidia/cuda_runtime/lib", *(path.parent for path in home.glob("usr/lib/*/libb64.so*"))]
    return binary, {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}


def make_prompts(tokenizer_file: Path) -> list[str]:
    """Texts of words that stay single tokens."""
    words, chance = [text for _, text in whole_words(tokenizer_file)], random.Random(7)
    return ["".join(chance.choices(words, k=PROMPT_WORDS)) for _ in range(PROMPTS)]


def chatml(text: str) -> str:
    """What the default model's chat template makes of one message of the user's."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def direct(binary: tuple[Path, dict[str, str]], run: Serving, prompts: list[str], streams: int) -> float:
    """Tokens/s that perf_analyzer gets out of Triton."""
    sampling = json.dumps({"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True})
    data = [{"text_input": [chatml(prompt)], "sampling_parameters": [sampling], "stream": [True]} for prompt in prompts]
    with tempfile.TemporaryDirectory() as folder:
        asked, exported = Path(folder) / "data.json", Path(folder) / "profile.json"
        asked.write_text(json.dumps({"data": data}))
        command = [binary[0], "-m", run.model, "-u", run.triton_url, "-i", "grpc", "--streaming", "--async"]
        command += ["--input-data", asked, "--concurrency-range", streams, "--profile-export-file", exported]
        # One window of the wanted length; `-s` lets it be stable whatever it finds.
        command += ["-p", int(1000 * (SECONDS + WARM_UP)), "-s", 100000, "-r", 3, "--max-threads", 4]
        done = subprocess.run(list(map(str, command)), env=binary[1], capture_output=True, text=True, timeout=300)
        if done.returncode or not exported.exists():
            raise SystemExit(f"perf_analyzer failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        requests = json.loads(exported.read_text())["experiments"][0]["requests"]
    ends = sorted(request["response_timestamps"][-1] / 1e9 for request in requests)
    return _rate(ends, min(request["timestamp"] / 1e9 for request in requests))


def through_gateway(run: Serving, prompts: list[str], streams: int) -> float:
    """Tokens/s of chats through the gateway, streamed."""
    return asyncio.run(_through_gateway(run, prompts, streams))


async def _through_gateway(run: Serving, prompts: list[str], streams: int) -> float:
    start, ends = time.perf_counter(), []
    left = itertools.cycle(prompts)

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        for prompt in left:
            body: dict[str, Any] = {"model": run.model, "messages": [{"role": "user", "content": prompt}]}
            body |= {"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
            async with session.post(f"{run.gateway_url}/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
                last = b""
                async for line in response.content:
                    last = line.strip() or last
                assert last == b"data: [DONE]", last
            ends.append(time.perf_counter())
            if time.perf_counter() - start > SECONDS + WARM_UP:
                return

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(streams)))
    return _rate(sorted(ends), start)


def _rate(ends: list[float], start: float) -> float:
    """Tokens/s between the first and the last end within the measured seconds: whole requests in whole intervals."""
    inside = [end for end in ends if start + WARM_UP <= end <= start + WARM_UP + SECONDS]
    if len(inside) < 3:
        raise SystemExit("Too few requests ended; the machine is too slow for these seconds.")
    return (len(inside) - 1) * NEW_TOKENS / (inside[-1] - inside[0])


def run(repository: Path, model: str, rounds: int, cache: Path) -> str:
    """Measure, and return a table; each row's ratio is the median of the rounds' ratios."""
    binary = program(cache)
    prompts = make_prompts(repository / model / "1" / "tokenizer.json")
    ways = {"direct": partial(direct, binary), "gateway": through_gateway}
    lines = ["| streams | perf_analyzer, tokens/s | chats through the gateway | ratio | rounds |"]
    lines.append("|---:|---:|---:|---:|---|")
    with serving(repository, model) as run:
        for streams in STREAMS:
            figures: list[dict[str, float]] = []
            for number in range(rounds + 1):
                order = list(ways)[:: -1 if number % 2 else 1]
                found = {name: ways[name](run, prompts, streams) for name in order}
                figures += [found] if number else []
            ratios = [pair["gateway"] / pair["direct"] for pair in figures]
            cells = [statistics.median(pair[name] for pair in figures) for name in ways]
            lines.append(
                f"| {streams} | {cells[0]:.0f} | {cells[1]:.0f} | {statistics.median(ratios):.3f} "
                f"| {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"
            )
    return "\n".join(lines)
