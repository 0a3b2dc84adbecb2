"""The processes that read files: what they can reach, how they end, and what becomes of those who wait for them."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import psutil
import pytest

from gateway.errors import InvalidRequest, Overloaded
from gateway.media.decoders.child_process import LENGTH_PREFIX
from gateway.media.fork_server import ForkServer, Job, ResponseTooLarge
from tests.unit.gateway.media.media_samples import data_url, image_bytes, pdf_bytes

TEXT = {"task": "document", "media_type": "text/plain", "is_html": False, "max_characters": 10**6}
PICTURE = {"task": "image", "media_type": "image/png", "max_pixels": 10**6, "pixels_left": 10**6}


@pytest.fixture
async def server() -> AsyncGenerator[ForkServer]:
    server = ForkServer()
    yield server
    await server.close()


async def begin_job(server: ForkServer, task=TEXT, *, size=5, memory=2**28, seconds=5.0) -> Job:
    return await server.begin(task, size=size, memory=memory, seconds=seconds)


async def child_process(server: ForkServer) -> psutil.Process:
    """The process of the one job that is under way, which waits for its file."""
    assert server._process is not None
    parent = psutil.Process(server._process.pid)

    children: list[psutil.Process] = []

    def look() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # that of an earlier job is just ending
            children.extend(child for child in parent.children() if len(child.net_connections("unix")) == 1)
        return bool(children)

    await wait_until(look)
    return children[0]


async def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_decoding_process_is_limited_and_inherits_nothing(server, monkeypatch):
    monkeypatch.setenv("TRITONIC_API_KEYS", "secret")
    other = await begin_job(server, size=9)  # of which the next has nothing
    await child_process(server)
    job = await begin_job(server)
    assert server._process is not None
    parent = psutil.Process(server._process.pid)
    await wait_until(lambda: len(parent.children()) == 2)
    child = max(parent.children(), key=lambda each: each.pid)
    await wait_until(lambda: child.num_fds() == 4)
    await wait_until(lambda: child.rlimit(psutil.RLIMIT_NOFILE) == (64, 64))
    kinds = {str(Path(f"/proc/{child.pid}/fd/{number}").readlink()) for number in range(3)}
    assert kinds == {os.devnull} and child.num_fds() == 4
    assert str(Path(f"/proc/{child.pid}/fd/3").readlink()).startswith("socket:")
    assert not [name for name in child.environ() if name.startswith("TRITONIC") or "KEY" in name]
    assert child.rlimit(psutil.RLIMIT_FSIZE) == child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_CPU) == (6, 6)
    assert 2**28 < child.rlimit(psutil.RLIMIT_AS)[0] < 2**31
    assert child.nice() > psutil.Process().nice()
    assert await job.send_file(b"hello", max_body_bytes=10) == ({"refusal": None}, b"hello")
    assert (await job.exited).status == 0
    server.end(job)
    server.end(other)
    assert (await other.exited).status != 0
    # The server itself has no secrets to hand on either.
    assert "TRITONIC_API_KEYS" not in parent.environ()


async def test_ending_a_job_ends_its_process(server):
    job = await begin_job(server, size=100)
    child = await child_process(server)
    server.end(job)
    assert (await job.exited).status != 0
    assert not child.is_running()
    job = await begin_job(server)
    assert (await job.send_file(b"again", max_body_bytes=10)) == ({"refusal": None}, b"again")
    server.end(job)


async def test_no_process_outlives_the_gateway():
    """Nor when it has no time to say so."""
    program = (
        "import asyncio\n"
        "from gateway.media.fork_server import ForkServer\n"
        "async def main():\n"
        "    server = ForkServer()\n"
        f"    await server.begin({TEXT!r}, size=100, memory=2**28, seconds=5)\n"
        "    print(server._process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    gateway = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert gateway.stdout is not None
    parent = psutil.Process(int(await asyncio.to_thread(gateway.stdout.readline)))
    await wait_until(lambda: bool(parent.children()))
    children = parent.children()
    gateway.kill()
    gateway.wait()
    await wait_until(lambda: not any(_runs(each) for each in (parent, *children)))
    gateway.stdout.close()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_killed_fork_server_is_replaced(media):
    await media.load_document("data:,hello", param="p")
    server = media._fork_server
    job = await begin_job(server, size=100)
    await child_process(server)
    killed = server._process
    killed.kill()
    with pytest.raises(asyncio.CancelledError):
        await job.exited
    assert await media.load_document("data:,again", param="p") == "again"
    assert server._process is not killed


async def test_a_job_for_a_fork_server_that_has_just_ended_begins_in_another(server):
    server.end(await begin_job(server))
    ended = server._process
    os.kill(ended.pid, signal.SIGKILL)
    while psutil.pid_exists(ended.pid):
        time.sleep(0.01)  # the event loop must not learn of it
    job = await begin_job(server)
    assert server._process is not ended
    assert await job.send_file(b"hello", max_body_bytes=10) == ({"refusal": None}, b"hello")
    server.end(job)


async def test_a_hanging_fork_server_is_replaced(media, monkeypatch):
    monkeypatch.setattr("gateway.media.fork_server._KILL_TIMEOUT_SECONDS", 0.3)
    await media.load_document("data:,hello", param="p")
    monkeypatch.setattr(media._document_pool, "_wall_timeout", 0.6)
    hung = media._fork_server._process
    os.kill(hung.pid, signal.SIGSTOP)
    with pytest.raises(Overloaded):
        await media.load_document("data:,hello", param="p")
    monkeypatch.setattr(media._document_pool, "_wall_timeout", 60)
    assert await media.load_document("data:,again", param="p") == "again"
    assert media._fork_server._process is not hung


async def test_an_unused_fork_server_ends():
    server = ForkServer(idle=0.2)
    for _ in range(2):
        job = await begin_job(server)
        await job.send_file(b"hello", max_body_bytes=10)
        server.end(job)
        process = server._process
        assert process is not None
        await wait_until(lambda: server._control is None)
        await process.wait()
    await server.close()


async def test_the_libraries_are_loaded_once(media):
    """A second file of a kind costs a fork, not the start of an interpreter."""
    for make in (
        lambda: media.load_image(data_url(image_bytes()), param="p"),
        lambda: media.load_document(data_url(pdf_bytes("x")), param="p"),
    ):
        await make()
        process = psutil.Process(media._fork_server._process.pid)
        before = process.cpu_times()
        for _ in range(5):
            await make()
        after = process.cpu_times()
        spent = (after.user + after.system + after.children_user + after.children_system) - (
            before.user + before.system + before.children_user + before.children_system
        )
        assert spent < 0.5


def job_with_reply(*pieces: bytes) -> Job:
    """A job whose process answers so."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for piece in pieces:
        theirs.send(piece)
    theirs.close()
    return Job(1, ours)


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"\0",),
        (LENGTH_PREFIX.pack(2, 0), b"{"),
        (LENGTH_PREFIX.pack(2, 9), b"{}few"),
        (LENGTH_PREFIX.pack(3, 0), b"{]x"),
        (LENGTH_PREFIX.pack(2, 0), b"[]"),
        (LENGTH_PREFIX.pack(4, 0), b"null"),
    ],
)
async def test_replies_of_a_decoding_process_are_validated(pieces):
    job = job_with_reply(*pieces)
    with job.connection:
        assert await job.send_file(b"", max_body_bytes=10) is None


async def test_replies_of_a_decoding_process_are_bounded():
    for lengths in (LENGTH_PREFIX.pack(2, 11), LENGTH_PREFIX.pack(2, 2**63), LENGTH_PREFIX.pack(2**31, 0)):
        job = job_with_reply(lengths, b"{}")
        with job.connection, pytest.raises(ResponseTooLarge):
            await job.send_file(b"", max_body_bytes=10)


async def test_time_limits_count_cpu_time(make_media):
    """A process that only the wall clock stops was waiting for a CPU: that is an overload, not an invalid file."""
    media = make_media(document_timeout=0.5)
    endless = ("<html>" + "<p>words <b>more</b></p>" * 70_000).encode()
    media._document_pool._wall_timeout = 120.0  # others work on this machine
    with pytest.raises(InvalidRequest, match=r"could not be decoded within 0\.5 seconds"):
        await media.load_document(data_url(endless), param="p")
    media._document_pool._timeout, media._document_pool._wall_timeout = 30.0, 8.0  # time to find its process
    reading = asyncio.create_task(media.load_document(data_url(endless), param="p"))
    child = await child_process(media._fork_server)
    child.suspend()
    began = time.monotonic()
    with pytest.raises(Overloaded):
        await reading
    assert time.monotonic() - began < 60
