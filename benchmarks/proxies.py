"""Our gateway and LiteLLM's proxy doing the same work: one core each, the same client, models that cost little.

LiteLLM is installed from PyPI into an environment of its own, in the cache folder, and stands in front of an
OpenAI-compatible stub; the gateway stands in front of a scripted Triton that says the same. Round by round both take
turns. Ratios are medians of the rounds' ratios.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks import alone
from benchmarks.flows import Flow, body, flow
from benchmarks.scripted import MODEL
from benchmarks.tables import Bar, Column, Plot, Table
from tritonic.ports import free_ports

VERSION = "1.106.2"
AT_ONCE, TOKENS, STREAMS, REQUESTS = 16, 64, 48, 300
_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
"""


def installed(cache: Path) -> Path:
    """The command `litellm`, installed where it is not yet. Raises `CalledProcessError`."""
    home = cache / "peers" / f"litellm-{VERSION}"
    command = home / "bin" / "litellm"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        wanted = f"litellm[proxy]=={VERSION}"
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
        subprocess.run(pip, check=True)
    return command


@contextlib.contextmanager
def _child(command: list[str | Path], cores: set[int], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | env)
    os.sched_setaffinity(process.pid, cores)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} does not answer:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def litellm(cache: Path, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy on the first core, in front of the stub on the others; gives its URL."""
    first, *others = sorted(os.sched_getaffinity(0))
    rest = set(others) or {first}
    stub, port = free_ports(2)
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, url=f"http://127.0.0.1:{stub}"))
    command = [installed(cache), "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with contextlib.ExitStack() as stack:
        behind = [sys.executable, "-m", "benchmarks.stub", "--port", str(stub)]
        process = stack.enter_context(_child(behind, rest, folder / "stub.log"))
        _wait(f"http://127.0.0.1:{stub}/v1/models", process, folder / "stub.log")
        log = folder / "litellm.log"
        quiet = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "NO_PROXY": "*",
        }
        process = stack.enter_context(_child(command, {first}, log, **quiet))
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/health/liveliness", process, log)
        yield url


def run(cache: Path, folder: Path, rounds: int) -> list[Table]:
    """Start both, measure, and return the table."""
    rates: dict[str, dict[str, list[float]]] = {}
    with litellm(cache, folder) as theirs, alone.front() as ours:
        for number in range(rounds + 1):
            for name, url in (("ours", ours.url), ("LiteLLM", theirs))[:: 1 if number % 2 else -1]:
                whole = asyncio.run(flow(url, body(MODEL, 1, stream=False), AT_ONCE, REQUESTS))
                streamed = asyncio.run(flow(url, body(MODEL, TOKENS, stream=True), AT_ONCE, STREAMS))
                if number:
                    for what, rate in _rates(whole, streamed).items():
                        rates.setdefault(what, {}).setdefault(name, []).append(rate)
    return [_table(rates)]


def _rates(whole: Flow, streamed: Flow) -> dict[str, float]:
    for seen, wanted in ((whole, REQUESTS), (streamed, STREAMS * TOKENS)):
        assert not seen.faults, seen.faults[:3]
        assert seen.tokens == wanted, f"{seen.tokens} of {wanted} tokens came"
    return {"requests/s, whole": REQUESTS / whole.seconds, "tokens/s, streamed": streamed.tokens / streamed.seconds}


def _table(rates: dict[str, dict[str, list[float]]]) -> Table:
    columns = (Column("at once, one core"), Column("ours"), Column("LiteLLM"), Column("ratio", digits=1))
    rows, bars = [], []
    for what, each in rates.items():
        ratio = statistics.median(a / b for a, b in zip(each["ours"], each["LiteLLM"], strict=True))
        ours, theirs = (statistics.median(each[name]) for name in ("ours", "LiteLLM"))
        rows.append((what, ours, theirs, ratio))
        bars.append(Bar(f"LiteLLM's proxy, times its {what}", ratio, 5, digits=1))
    return Table(
        f"{AT_ONCE} at once, one core",
        columns,
        rows,
        plots=(Plot(columns[0].name, ("ours", "LiteLLM"), kind="bars"),),
        bars=tuple(bars),
        versions={"LiteLLM": VERSION},
        details={"rounds": rates},
    )
