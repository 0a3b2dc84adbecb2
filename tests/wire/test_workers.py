"""A gateway with two worker processes: what they share."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes.decentralgpt_node import ComputingNode
from tests.fakes.scripted_model import DrawImages, Echo, Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAST = [
    ScriptedModel("hello", (Say("Hello", "stop"),)),
    ScriptedModel("slow", (Say("a"), Pause(1.5), Say("b", "stop"))),
    ScriptedModel("silent", (Say("a"), Pause(60))),
    ScriptedModel("echo", (Echo(16, pause=0.001),)),
    ScriptedModel("painter", (DrawImages(2, pause=0.05),), is_image_model=True),
]


@dataclass(slots=True)
class WorkerGateway:
    """A gateway with several workers."""

    process: GatewayProcess
    triton: FakeTriton
    log: Path

    @property
    def parent(self) -> psutil.Process:
        return psutil.Process(self.process.child.pid)

    def workers(self) -> dict[int, psutil.Process]:
        """Return the running workers, by process id."""
        children = self.parent.children()
        return {each.pid: each for each in children if each.status() != psutil.STATUS_ZOMBIE}

    @contextlib.asynccontextmanager
    async def each(self) -> AsyncIterator[list[httpx.AsyncClient]]:
        """Run one client for each worker, whose connection stays with that worker."""
        async with contextlib.AsyncExitStack() as stack:
            found: dict[int, httpx.AsyncClient] = {}
            for _ in range(100):
                limits = httpx.Limits(max_connections=1)
                http = httpx.AsyncClient(base_url=self.process.url, limits=limits, timeout=20, trust_env=False)
                await stack.enter_async_context(http)
                await http.get("/health/live")
                found.setdefault(self.answering(http), http)
                if len(found) == 2:
                    break
            assert len(found) == 2, "the kernel gave one worker a hundred connections"
            yield [found[pid] for pid in sorted(found)]

    def answering(self, http: httpx.AsyncClient) -> int:
        """Return the process at the other end of a client's only connection."""
        (connection,) = http._transport._pool.connections  # type: ignore[attr-defined]
        mine = connection._connection._network_stream.get_extra_info("client_addr")
        for pid, worker in self.workers().items():
            if any(tuple(each.raddr or ()) == tuple(mine) for each in worker.net_connections("tcp")):
                return pid
        raise AssertionError("no worker has this connection")

    async def until(self, check: Any, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.02)


async def metric(http: httpx.AsyncClient, name: str) -> float:
    """Return the sum of all series of a metric."""
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@contextlib.asynccontextmanager
async def run_workers(
    folder: Path, models: Iterable[ScriptedModel] = CAST, **settings: Any
) -> AsyncIterator[WorkerGateway]:
    """Run a gateway of two workers in front of a scripted Triton."""
    triton = await FakeTriton(models).start()
    options = {"workers": 2, "discovery_interval": 0.1, **settings}
    environment = {f"TRITONIC_{name.upper()}": str(value) for name, value in options.items()}
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        process = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.url, folder / "gateway.log")
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        await asyncio.to_thread(process.start)
        running = WorkerGateway(process, triton, folder / "gateway.log")
        await asyncio.to_thread(process.wait_live)
        async with running.each() as each:
            for http in each:
                while (await http.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.05)
        yield running
    finally:
        await asyncio.to_thread(process.stop)
        await triton.stop()


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


async def ask(http: httpx.AsyncClient, model: str = "hello") -> str:
    answer = await http.post("/v1/chat/completions", json=chat(model))
    return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


async def test_a_gateway_of_two_workers(tmp_path: Path) -> None:
    async with run_workers(tmp_path) as running:
        async with running.each() as (first, second):
            # Each worker shows the sum of both workers' metrics.
            for http, times in ((first, 3), (second, 4)):
                for _ in range(times):
                    assert await ask(http) == "Hello"
            for http in (first, second):
                assert await metric(http, "tritonic_tokens_out_total") == 7
                assert await metric(http, "tritonic_time_to_first_token_seconds_count") == 7
                assert await metric(http, "tritonic_in_flight") == 0

            # A picture that one draws, the other hands out.
            body = {"model": "painter", "prompt": "An otter", "response_format": "url"}
            answer = (await first.post("/v1/images/generations", json=body)).raise_for_status().json()
            file = await second.get(answer["data"][0]["url"])
            assert (file.status_code, file.headers["content-type"]) == (200, "image/png")

            # A worker that is killed in the midst of a request takes nothing with it but that.
            killed_worker, other_worker = running.answering(first), running.answering(second)
            async with first.stream("POST", "/v1/chat/completions", json=chat("silent", stream=True)) as stream:
                lines = stream.aiter_lines()
                while '"a"' not in await anext(lines):
                    pass
                assert await metric(second, "tritonic_in_flight") == 1
                os.kill(killed_worker, signal.SIGKILL)
                with pytest.raises(httpx.TransportError):
                    [line async for line in lines]
            assert await ask(second) == "Hello"
            await running.until(lambda: len(running.workers()) == 2 and killed_worker not in running.workers())
            assert other_worker in running.workers()
            assert await metric(second, "tritonic_in_flight") == 0
            assert await metric(second, "tritonic_time_to_first_token_seconds_count") == 9

        # Its place is taken, and its totals go on.
        async with running.each() as (first, second):
            assert await ask(first) == await ask(second) == "Hello"
            assert await metric(first, "tritonic_time_to_first_token_seconds_count") == 11
        log = running.log.read_text()
        assert "worker is gone" in log and "was killed by signal 9" in log

        # Asked to stop, both finish what they have under way, and take nothing new.
        async with running.each() as (first, second):
            open_answers = [asyncio.create_task(ask(http, "slow")) for http in (first, second)]
            await running.until(lambda: running.triton.active == 2)
            processes = [running.parent, *running.workers().values()]
            running.parent.terminate()
            assert await asyncio.gather(*open_answers) == ["ab", "ab"]
        assert await asyncio.to_thread(running.process.child.wait, 10) == 128 + signal.SIGTERM
        assert not any(process.is_running() for process in processes)


async def test_connections_wait_while_a_worker_restarts(tmp_path: Path) -> None:
    async with run_workers(tmp_path) as running:
        async with running.each() as (first, _):
            os.kill(running.answering(first), signal.SIGKILL)
        async with httpx.AsyncClient(base_url=running.process.url, timeout=20, trust_env=False) as http:
            headers = {"connection": "close"}
            answers = await asyncio.gather(*(http.get("/health/live", headers=headers) for _ in range(32)))
        assert Counter(answer.status_code for answer in answers) == {200: 32}


async def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    """The supervisor is stopped, so that only the workers themselves can notice."""
    async with run_workers(tmp_path) as running:
        workers = running.workers().values()
        os.kill(running.process.child.session, signal.SIGSTOP)
        try:
            running.parent.kill()
            await running.until(lambda: all(each.status() == psutil.STATUS_ZOMBIE for each in workers))
        finally:
            os.kill(running.process.child.session, signal.SIGCONT)


async def test_only_one_worker_registers_at_the_node(tmp_path: Path) -> None:
    node = await ComputingNode().start()
    try:
        async with run_workers(tmp_path, node_url=node.url, project="P", cid="c") as running:
            await node.until(lambda n: len(n.registered) == len(CAST), 15)
            await asyncio.sleep(0.5)
            registrations = Counter(body["model"] for verb, body in node.calls if verb == "register")
            assert registrations == {model.name: 1 for model in CAST}
            # When it is gone, the other one takes over, and nothing was unregistered meanwhile.
            lines = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
            pids = {line["worker"]: line["pid"] for line in lines if line["event"] == "worker started"}
            (number,) = {line["worker"] for line in lines if line["event"] == "registered"}
            speaking = pids[number]
            os.kill(speaking, signal.SIGKILL)
            await node.until(lambda n: sum(verb == "register" for verb, _ in n.calls) == 2 * len(CAST), 15)
            assert not any(verb == "unregister" for verb, _ in node.calls)
            assert len(node.registered) == len(CAST)
        assert node.registered == {}, "the gateway left and did not say so"
    finally:
        await node.stop()
