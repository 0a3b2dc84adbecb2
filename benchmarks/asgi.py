"""The gateway under uvicorn, Granian and Hypercorn, and as 1, 2 and 4 workers, in front of a scripted Triton.

Granian and Hypercorn are installed from PyPI into the cache folder, with the pinned versions of what we share with
them. All run the same application on the first core; the scripted model and the client, which are not measured, share
the others. Round by round they take turns. CPU time is that of the server's processes, of streams that are saturated
and of such with a token every 50 ms: what is put together where a server is late flatters it only in the first.

Several workers on one core say nothing about several cores. What is measured of them is what sharing costs: the CPU
time of a token at a pace that one worker can keep. Where streams are saturated, one worker sends tokens together that
have come meanwhile, several have less to put together, and the difference would be that and no price of sharing.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import disconnects
from benchmarks.peer_programs import cpu_seconds, running_process, versions, wait_until_ready
from benchmarks.scripted_triton import MODEL, run_scripted_triton
from benchmarks.tables import Column, Table, Value
from benchmarks.timed_streams import chat_body, run_streams
from tritonic.ports import free_ports

PACKAGES = {"granian": "2.8.7", "hypercorn": "0.18.0"}
SERVERS = ("uvicorn", "granian", "hypercorn")
WORKERS = (1, 2, 4)
STREAMS, TOKENS, ANSWERS = 64, 128, 128
ALL_CORES = os.sched_getaffinity(0)
PACE = 0.05
"""Seconds between the tokens of each stream, for workers and for the servers' second look."""
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_SHARED = ("h11", "h2")
"""What is installed with them and is in our environment, too: of one version for all."""
AT_ONCE, REQUESTS = 16, 600
FIRSTS = 100
_FIGURES = (
    Column("CPU", "µs/token", 1),
    Column("CPU without streaming", "ms/request", 2),
    Column("first token", "ms", 2),
    Column("memory", "MB"),
)


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    url: str
    process: psutil.Process

    def megabytes(self) -> float:
        """Memory, where what several processes share counts once."""
        processes = (self.process, *self.process.children(recursive=True))
        return sum(each.memory_full_info().pss for each in processes) / 1e6


def installed(cache: Path) -> Path:
    """A folder with the packages, installed where they are not yet. Raises `CalledProcessError`."""
    pinned = {name: pin for name, pin in _pins().items() if name in _SHARED}
    home = cache / "peers" / "-".join(("servers", *(f"{each}-{of}" for each, of in {**PACKAGES, **pinned}.items())))
    if not (home / "complete").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(home)]
        pip += ["--constraint", str(CONSTRAINTS)]
        subprocess.run([*pip, *(f"{name}=={version}" for name, version in PACKAGES.items())], check=True)
        (home / "complete").touch()
    return home


def _pins() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


@contextlib.contextmanager
def server(name: str, triton: str, packages: Path, folder: Path, workers: int = 1) -> Iterator[Server]:
    """Run the gateway under a server, on the first core."""
    port, state = free_ports(1)[0], folder / f"{name}-{workers}"
    told = {"TRITON_URLS": triton, "STATE": str(state), "WORKERS": str(workers), "LOG_LEVEL": "warning"}
    environment = {f"TRITONIC_{key}": value for key, value in told.items()}
    if name in PACKAGES:
        environment["PYTHONPATH"] = str(packages)
    command = [sys.executable, "-m", "benchmarks.asgi_launch", name, str(port)]
    log = state.with_suffix(".log")
    url = f"http://127.0.0.1:{port}"
    with running_process(command, log, {min(ALL_CORES)}, environment) as process:
        wait_until_ready(f"{url}/health/ready", process, log)
        yield Server(url, process)


def run(cache: Path, rounds: int) -> list[Table]:
    """Measure everything, and return the tables."""
    packages = installed(cache)
    with tempfile.TemporaryDirectory() as name, _client_apart() as others:
        folder = Path(name)
        with run_scripted_triton(cores=others) as triton, contextlib.ExitStack() as stack:
            by_name = {each: stack.enter_context(server(each, triton, packages, folder)) for each in SERVERS}
            servers = _measured(by_name, rounds)
        with run_scripted_triton(PACE, cores=others) as triton, contextlib.ExitStack() as stack:
            by_name = {each: stack.enter_context(server(each, triton, packages, folder)) for each in SERVERS}
            paced = _measured(by_name, rounds, spread=PACE * TOKENS, loads=LOADS[:1])
        with run_scripted_triton(PACE, cores=others) as triton, contextlib.ExitStack() as stack:
            by_size = {
                str(size): stack.enter_context(server("uvicorn", triton, packages, folder, size)) for size in WORKERS
            }
            sizes = _measured(by_size, rounds, spread=PACE * TOKENS)
        return [_servers(servers, paced, versions(packages)), _manners(packages, folder, others), _sizes(sizes)]


@contextlib.contextmanager
def _client_apart() -> Iterator[set[int]]:
    """Keep this process off the first core; gives the others, where there are any."""
    rest = ALL_CORES - {min(ALL_CORES)} or ALL_CORES
    os.sched_setaffinity(0, rest)
    try:
        yield rest
    finally:
        os.sched_setaffinity(0, ALL_CORES)


Rounds = Mapping[str, Mapping[str, Sequence[float]]]
"""For each way its figures, by the names of `_FIGURES`, of all rounds."""


Load = tuple[str, bool, int, int, int]
"""The figure, whether it is streamed, tokens, how many at once, and how many in all."""
LOADS: tuple[Load, ...] = (
    ("CPU", True, TOKENS, STREAMS, ANSWERS),
    ("CPU without streaming", False, 1, AT_ONCE, REQUESTS),
    ("first token", True, 1, 1, FIRSTS),
)


def _measured(
    ways: Mapping[str, Server],
    rounds: int,
    spread: float = 0.0,
    loads: Sequence[Load] = LOADS,
) -> Rounds:
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
    for number in range(rounds + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            figures = _once(ways[name], spread, loads)
            if number:  # the first round warms up
                for what, value in figures.items():
                    found[name].setdefault(what, []).append(value)
    return found


def _once(to: Server, spread: float, loads: Sequence[Load]) -> dict[str, float]:
    found: dict[str, float] = {}
    for what, stream, tokens, at_once, requests in loads:
        before, slowly = cpu_seconds(to.process), spread if at_once == STREAMS else 0.0
        seen = asyncio.run(run_streams(to.url, chat_body(MODEL, tokens, stream=stream), at_once, requests, slowly))
        cpu = cpu_seconds(to.process) - before
        assert not seen.errors, seen.errors[:3]
        assert seen.tokens == tokens * requests, f"{seen.tokens} of {tokens * requests} tokens came"
        if what == "CPU":
            found[what] = 1e6 * cpu / seen.tokens
        elif what == "first token":
            found[what] = 1e3 * statistics.median(seen.first_token_seconds)
        else:
            found[what] = 1e3 * cpu / requests
    found["memory"] = to.megabytes()
    return found


def _rows(found: Rounds) -> list[list[Value]]:
    names = [column.name for column in _FIGURES]
    return [[way, *(statistics.median(figures[name]) for name in names)] for way, figures in found.items()]


def _ratio(found: Rounds, way: str, base: str) -> float:
    """The median of the rounds' ratios of CPU time a token."""
    return statistics.median(a / b for a, b in zip(found[way]["CPU"], found[base]["CPU"], strict=True))


def _servers(found: Rounds, paced: Rounds, installed: Mapping[str, str]) -> Table:
    rows = []
    for row in _rows(found):
        way = str(row[0])
        ratios = [_ratio(rounds, way, "uvicorn") for rounds in (found, paced)]
        rows.append([*row, ratios[0], statistics.median(paced[way]["CPU"]), ratios[1]])
    return Table(
        "The gateway under three servers",
        (
            Column("server"),
            *_FIGURES,
            Column("CPU a token, to uvicorn's", digits=2),
            Column("CPU at a pace", "µs/token", 1),
            Column("that, to uvicorn's", digits=2),
        ),
        rows,
        (
            f"CPU a token: {STREAMS} streams, saturated; at a pace: as many with a token every {1000 * PACE:.0f} ms. "
            "First token: one request at a time, median.",
        ),
        versions=PACKAGES,
        details={"rounds": found, "rounds at a pace": paced, "installed": dict(installed)},
    )


def _sizes(found: Rounds) -> Table:
    rows = [[int(str(row[0])), *row[1:], _ratio(found, str(row[0]), "1")] for row in _rows(found)]
    return Table(
        "The gateway as several workers, all on one core",
        (Column("workers"), *_FIGURES, Column("CPU a token, to one worker's", digits=2)),
        rows,
        (f"CPU a token: {STREAMS} streams, a token every {1000 * PACE:.0f} ms. Says nothing of several cores.",),
        details={"rounds": found},
    )


def _manners(packages: Path, folder: Path, others: set[int]) -> Table:
    rows: list[list[Value]] = []
    with run_scripted_triton(0.1, cores=others) as slow, run_scripted_triton(cores=others) as fast:
        for name in SERVERS:
            with server(name, slow, packages, folder) as to:
                gone = [disconnects.disconnect_seconds(to.url, stream=stream) for stream in (True, False)]
                taken, answer = disconnects.endless_header(to.url)
                drained = disconnects.finishes_after_sigterm(to.url, to.process, 30)
            with server(name, fast, packages, folder) as to:
                rate, grown = disconnects.slow_reader_cost(to.url, to.process)
            told = ["no" if each is None else f"{1000 * each:.0f} ms" for each in gone]
            label = "uvicorn, as tritonic sets it up" if name == "uvicorn" else name
            rows.append([label, *told, rate, grown, taken / 1024, answer, "yes" if drained else "no"])
    columns = (
        Column("server"),
        Column("a stream whose client hangs up ends within"),
        Column("a request without streaming"),
        Column("taken for who reads nothing, after ten seconds", "tokens/s"),
        Column("memory for that", "MB", 1),
        Column("header taken", "KiB"),
        Column("answer to it"),
        Column("finishes a stream after SIGTERM"),
    )
    return Table("How they treat clients", columns, rows, versions=PACKAGES)
