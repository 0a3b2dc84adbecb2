"""Hosts in network namespaces with addresses of their own, on one bridge, whose links can be cut and healed.

The bridge is in a namespace of its own, so nothing of the machine's own network changes. The names of the namespaces
contain the process id of the test run: the next run removes what a killed one has left.
"""

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

_PREFIX = "tritonic-hosts"
_SUBNET = "10.77.0"
_NOBODY = "02:00:00:00:00:fe"
"""A MAC address that no host has. Packets to it are lost without any sign, as on a cut link."""
_NUMBERS = itertools.count()
_CLONE_NEWNET = 0x40000000


def missing_requirement() -> str | None:
    """Return why this machine cannot have the hosts; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc", "setpriv"):
        if shutil.which(tool) is None:
            return f"there is no {tool}: apt-get install iproute2 util-linux"
    probe = f"{_PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"this machine allows no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return None


class Host:
    """One host: a network namespace with one address, and the processes in it."""

    def __init__(self, name: str, namespace: str, address: str) -> None:
        self.name, self.namespace, self.address = name, namespace, address
        self.is_frozen = False
        self._processes: list[subprocess.Popen[bytes]] = []

    def __repr__(self) -> str:
        return self.name

    def spawn(
        self, command: list[str], log: IO[bytes], *, cwd: Path, env: Mapping[str, str] | None = None, user: str = ""
    ) -> subprocess.Popen[bytes]:
        """Run a command on this host, as `user` if one is named. The kernel ends it with the thread that calls this."""
        identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "setpriv", *identity, "--pdeathsig", "KILL", "--", *command],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._processes.append(process)
        return process

    def process_ids(self) -> list[int]:
        """Return the ids of all processes on this host."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [int(id) for id in found.stdout.split()]

    def freeze(self) -> None:
        """Stop all processes with SIGSTOP: the kernel of the host still acknowledges what it receives."""
        self._signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Let the processes continue."""
        self._signal(signal.SIGCONT)
        self.is_frozen = False

    def kill(self) -> None:
        """Kill all processes with SIGKILL, and wait until they are gone."""
        deadline = time.monotonic() + 20
        while self.process_ids():
            self._signal(signal.SIGKILL)
            for process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            assert time.monotonic() < deadline, f"processes of {self.name} do not end: {self.process_ids()}"
        self._processes.clear()
        self.is_frozen = False

    def slow_down(self, rate: str) -> None:
        """Limit what this host sends, such as `64kbit`."""
        _tc(self, "add", "root", "tbf", "rate", rate, "burst", "4kb", "latency", "2s")

    def full_speed(self) -> None:
        """Remove the limit."""
        _tc(self, "delete", "root")

    def _signal(self, number: signal.Signals) -> None:
        for id in self.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(id, number)


class Network:
    """The bridge and the hosts on it. `with` removes everything at the end, and kills the processes of all hosts."""

    def __init__(self, *names: str) -> None:
        prefix = f"{_PREFIX}-{os.getpid()}-{next(_NUMBERS)}"
        self._bridge = f"{prefix}-bridge"
        self.hosts = {name: Host(name, f"{prefix}-{name}", f"{_SUBNET}.{at}") for at, name in enumerate(names, 1)}
        self._cuts: set[frozenset[str]] = set()

    def __enter__(self) -> "Network":
        _remove_stale()
        try:
            _ip("netns", "add", self._bridge)
            _ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._bridge, "link", "set", "bridge", "up")
            for at, host in enumerate(self.hosts.values()):
                port = f"port{at}"
                _ip("netns", "add", host.namespace)
                _ip("-n", host.namespace, "link", "set", "lo", "up")
                peer = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
                _ip("link", "add", port, "netns", self._bridge, *peer)
                _ip("-n", self._bridge, "link", "set", port, "master", "bridge", "up")
                _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
                _ip("-n", host.namespace, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        for host in self.hosts.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                host.kill()
        for namespace in (*(host.namespace for host in self.hosts.values()), self._bridge):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    def cut(self, one: Host, other: Host) -> None:
        """Lose all packets between two hosts, in both directions and without a sign."""
        for here, there in ((one, other), (other, one)):
            entry = (there.address, "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
            _ip("-n", here.namespace, "neighbour", "replace", *entry)
        self._cuts.add(frozenset((one.name, other.name)))

    def heal(self, one: Host, other: Host) -> None:
        """Let packets between two hosts pass again."""
        for here, there in ((one, other), (other, one)):
            _ip("-n", here.namespace, "neighbour", "delete", there.address, "dev", "eth0")
        self._cuts.remove(frozenset((one.name, other.name)))

    def heal_all(self) -> None:
        """Heal every link, and let every frozen host continue."""
        for cut in list(self._cuts):
            one, other = cut
            self.heal(self.hosts[one], self.hosts[other])
        for host in self.hosts.values():
            if host.is_frozen:
                host.thaw()

    @contextlib.contextmanager
    def inside(self, host: Host) -> Iterator[None]:
        """Make this thread a process of `host`: the sockets that it opens have the address of the host."""
        own_path, host_path = Path("/proc/thread-self/ns/net"), Path("/run/netns", host.namespace)
        with own_path.open() as own, host_path.open() as namespace:
            _enter(namespace)
            try:
                yield
            finally:
                _enter(own)


def _enter(namespace: IO[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _tc(host: Host, verb: str, *arguments: str) -> None:
    subprocess.run(["tc", "-n", host.namespace, "qdisc", verb, "dev", "eth0", *arguments], check=True)


def _remove_stale() -> None:
    """Remove the namespaces of test runs that have ended, and kill the processes in them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        namespace = line.split()[0]
        run = namespace.removeprefix(f"{_PREFIX}-").partition("-")[0]
        if namespace.startswith(f"{_PREFIX}-") and run.isdigit() and not Path(f"/proc/{run}").exists():
            Host("", namespace, "").kill()
            _ip("netns", "delete", namespace)
