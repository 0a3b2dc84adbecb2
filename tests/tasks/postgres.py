"""A Postgres cluster for tests: in a temporary folder, on a free port. It can be stopped and frozen."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

INSTALL_HINT = "apt-get install postgresql (make postgres), or put its initdb and pg_ctl on the PATH"


def find_binaries() -> Path | None:
    """Return the folder of initdb and pg_ctl, which on Debian is not on the PATH; None if there is none."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in versions), key=lambda path: float(path.parent.name), default=None)


class Postgres:
    """A cluster. `url(name)` is the URL of the database `name`."""

    def __init__(self, folder: Path, tools: Path, user: str | None) -> None:
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._folder = folder
        self._tools = tools
        self._user = user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "--pgdata", self._data, "--username", "tritonic", "--auth", "trust", "--no-sync")

    def url(self, name: str) -> str:
        return f"postgresql://tritonic@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        self._run("pg_ctl", "start", "--pgdata", self._data, "--log", self._log, "--wait", "--options", options)

    def stop(self) -> None:
        """Stop at once, breaking all connections."""
        self._run("pg_ctl", "stop", "--pgdata", self._data, "--mode", "immediate", "--wait")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes with SIGSTOP, so that the database is silent as after a lost network."""
        ids = self._processes()
        for id in ids:
            os.kill(id, signal.SIGSTOP)
        try:
            yield
        finally:
            for id in ids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(id, signal.SIGCONT)

    def _processes(self) -> list[int]:
        main = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *map(int, children)]

    def _run(self, tool: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self._tools / tool, *arguments],
            check=True,
            user=self._user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )


@contextlib.contextmanager
def run_postgres(tools: Path) -> Iterator[Postgres]:
    """Run a cluster. If this user is root, run it as another user, as Postgres refuses root."""
    user = None
    folder = Path(tempfile.mkdtemp(prefix="tritonic-postgres-"))
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, user)
    try:
        cluster = Postgres(folder, tools, user)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
