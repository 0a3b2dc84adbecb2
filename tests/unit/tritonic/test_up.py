"""`tritonic up` with a real Triton, mostly without a model. No process survives it, whichever way it ends."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from rich.console import Console

from tritonic import runfile
from tritonic.embedded import EmbeddedTriton
from tritonic.models import ModelRepositoryClient, TritonCallError
from tritonic.ports import free_ports
from tritonic.runfile import RunRecord
from tritonic.running_triton import load_newly_installed

pytestmark = pytest.mark.triton

COMMAND = [sys.executable, "-m", "tritonic"]
PORTS = "--port 0 --triton-metrics-port 0"
UP = [*COMMAND, "up", "--no-build", *PORTS.split()]


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


class Installation:
    """One `tritonic up` in a folder of its own."""

    def __init__(self, folder, *arguments):
        self.folder, self.state = folder, folder / ".tritonic"
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            # The gateway looks often, so that it sees a Triton that is away for a second or two.
            env = os.environ | {"TRITONIC_DISCOVERY_INTERVAL": "0.1"}
            self.process = subprocess.Popen([*UP, *arguments], cwd=folder, env=env, stdout=output, stderr=output)
        self._record: RunRecord | None = None

    @property
    def record(self) -> RunRecord:
        assert self._record is not None, "wait_ready has not been called"
        return self._record

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, self.text()
            found = runfile.find_running(self.state)
            return found if found and found.gateway_url else None

        self._record = until(ready, 120)
        return self

    def text(self):
        return self.output.read_text()

    def processes(self):
        """Everything that was started under this installation's tag, by the program's name."""
        names: dict[str, list[int]] = {}
        for pid in runfile.tagged_pids(self.record.tag):
            try:
                names.setdefault(psutil.Process(pid).exe().rsplit("/", 1)[-1].split("3.")[0], []).append(pid)
            except psutil.Error:
                continue
        return names

    def get(self, path):
        address = urlsplit(self.record.gateway_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def run(self, *arguments):
        return subprocess.run(
            [*COMMAND, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=90, check=False
        )

    def triton_reachable(self):
        try:
            return self.get("/health/ready")[1]["triton"][0]["reachable"]
        except OSError:
            return False


@pytest.fixture
def installation(tmp_path):
    made = Installation(tmp_path).wait_ready()
    server = psutil.Process(made.processes()["tritonserver"][0])
    option = re.search(r"shm-region-prefix-name=(tritonic_\w+)", " ".join(server.cmdline()))
    assert option is not None
    prefix = option[1]
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait(30)
    until(lambda: not runfile.tagged_pids(made.record.tag))
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))


def interrupt(made):
    made.process.send_signal(signal.SIGINT)


def terminate(made):
    made.process.send_signal(signal.SIGTERM)


def hang_up(made):
    made.process.send_signal(signal.SIGHUP)


def down(made):
    ran = made.run("down")
    assert (ran.returncode, ran.stdout) == (0, "Stopped; no process is left.\n")
    assert runfile.tagged_pids(made.record.tag) == []


@pytest.mark.parametrize("stop", [interrupt, terminate, hang_up, down])
def test_a_stopped_up_leaves_no_process(installation, stop):
    assert {name: len(pids) for name, pids in installation.processes().items()} == {"tritonserver": 1, "python": 3}
    stop(installation)
    assert installation.process.wait(30) == 0
    assert runfile.tagged_pids(installation.record.tag) == []
    assert installation.text().endswith("Stopped; no process is left.\n")
    assert not (installation.state / "up.json").exists()


def test_a_killed_up_leaves_no_process(installation):
    installation.process.kill()
    installation.process.wait(30)
    until(lambda: not runfile.tagged_pids(installation.record.tag))
    ran = installation.run("down")
    assert (ran.returncode, ran.stdout) == (0, "Nothing runs in this folder.\n")


def test_a_killed_triton_comes_back_and_the_gateway_stays(installation):
    before = installation.processes()
    assert until(installation.triton_reachable)
    os.kill(before["tritonserver"][0], signal.SIGKILL)
    until(lambda: not installation.triton_reachable())
    assert installation.get("/health/live")[0] == 200
    assert installation.get("/health/ready")[0] == 503
    until(installation.triton_reachable)
    after = installation.processes()
    assert after["tritonserver"] != before["tritonserver"]
    assert set(after["python"]) & set(before["python"]), "the gateway was started again"
    assert "Triton was killed by signal 9; it is started again in 1 s." in installation.text()
    until(lambda: "Triton is back" in installation.text())


def test_a_killed_gateway_comes_back_at_the_same_address(installation):
    gateway = next(
        pid for pid in installation.processes()["python"] if "reaper.py" not in " ".join(psutil.Process(pid).cmdline())
    )
    os.kill(gateway, signal.SIGKILL)
    until(lambda: "The gateway is back" in installation.text())
    assert installation.get("/health/live")[0] == 200
    assert "The gateway was killed by signal 9; it is started again in 1 s." in installation.text()


def test_a_second_up_in_the_folder_is_refused(installation):
    second = subprocess.run(UP, cwd=installation.folder, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stderr == (
        f"Error: Tritonic already runs in this folder (process {installation.process.pid}, "
        f"{installation.record.gateway_url}). Stop it with `tritonic down`, or start this one elsewhere.\n"
    )
    assert installation.process.poll() is None


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path):
    port = free_ports(1)[0]
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"]
    )
    try:
        until(lambda: any(c.laddr.port == port for c in psutil.Process(holder.pid).net_connections()))
        refused = Installation(tmp_path, "--triton-grpc-port", str(port))
        assert refused.process.wait(30) == 1
        assert f"Port {port}, which Triton's gRPC endpoint needs, is in use by process {holder.pid}" in refused.text()
        assert "--triton-grpc-port" in refused.text()
        assert "Traceback" not in refused.text()
        assert not (tmp_path / ".tritonic" / "triton.log").exists()
    finally:
        holder.kill()
        holder.wait()


CONFIG = """
name: "{name}" backend: "python" max_batch_size: 0 instance_group [{{ kind: KIND_CPU }}]
input [{{ name: "x" data_type: TYPE_INT32 dims: [1] }}] output [{{ name: "y" data_type: TYPE_INT32 dims: [1] }}]
"""
MODEL = """
class TritonPythonModel:
    def initialize(self, args):
        {initialize}
    def execute(self, requests):
        return []
"""


def install(repository: Path, name: str, initialize: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name))
    (repository / name / "1" / "model.py").write_text(MODEL.format(initialize=initialize))


def test_a_broken_model_is_named_and_the_others_serve(tmp_path):
    repository = tmp_path / "model_repository"
    install(repository, "broken", 'raise ValueError("the weights are torn")')
    install(repository, "fine", "pass")
    made = Installation(tmp_path).wait_ready()
    try:
        assert "Model broken does not serve: Internal: ValueError: the weights are torn" in made.text()
        table = made.run("models")
        assert table.returncode == 0
        assert re.search(r"^ *fine .*READY", table.stdout, re.MULTILINE)
        assert "broken: Internal: ValueError: the weights are torn" in table.stdout
        assert made.run("models", "unload", "fine").stdout.startswith("Unloaded fine")
        assert not re.search(r"^ *fine .*READY", made.run("models").stdout, re.MULTILINE)
        assert made.run("models", "load", "fine").stdout.startswith("Loaded fine")
        refused = made.run("models", "load", "broken")
        assert refused.returncode == 1
        assert "the weights are torn" in refused.stderr
        assert made.run("models", "unload", "absent").returncode == 1
    finally:
        made.process.terminate()
        assert made.process.wait(30) == 0


def test_a_built_model_is_loaded_into_the_running_triton(installation):
    repository = installation.folder / "model_repository"
    output = io.StringIO()
    console = Console(file=output, width=200)
    with load_newly_installed(installation.state, console):
        install(repository, "fresh", "pass")
    assert "Triton has loaded fresh" in output.getvalue()
    with load_newly_installed(installation.state, console):
        install(repository, "torn", 'raise ValueError("the weights are torn")')
        install(repository, "torn-part", "pass")
    assert "Triton has loaded torn-part\n! torn is installed" in output.getvalue()
    assert "torn is installed, but could not be loaded." in output.getvalue()
    with ModelRepositoryClient(installation.record.triton_grpc, installation.record.triton_secret) as known:
        assert {model.name: model.state for model in known.list_models()} == {
            "fresh": "READY",
            "torn": "UNAVAILABLE",
            "torn-part": "READY",
        }


def test_only_the_owner_can_load_models(installation):
    """Only the metrics have a port. Calls that load code need a secret as well."""
    record, server = installation.record, psutil.Process(installation.processes()["tritonserver"][0])
    listening = [c.laddr for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    socket = Path(record.triton_grpc.removeprefix("unix:"))
    assert socket.is_socket() and mode(socket.parent) == 0o700
    assert mode(installation.state) == 0o700
    for secret in ("up.json", "gateway.log", "triton.log"):
        assert mode(installation.state / secret) == 0o600
    assert record.triton_secret not in installation.text()
    assert record.triton_secret.encode() not in b"".join(path.read_bytes() for path in installation.state.glob("*.log"))
    install(installation.folder / "model_repository", "late", "pass")
    for wrong in ("", "another"):
        with (
            ModelRepositoryClient(record.triton_grpc, wrong) as known,
            pytest.raises(TritonCallError, match="restricts this"),
        ):
            known.load("late")
    assert installation.run("models", "load", "late").stdout.startswith("Loaded late")
    elsewhere = installation.run("models", "--triton", record.triton_grpc, "--state", "elsewhere")
    assert "TRITONIC_TRITON_SECRET must be the secret" in elsewhere.stderr


def mode(path):
    return path.stat().st_mode & 0o777


def test_endpoints_can_be_opened_on_ports(tmp_path):
    grpc_port, http_port = map(str, free_ports(2))
    made = Installation(tmp_path, "--triton-grpc-port", grpc_port, "--triton-http-port", http_port).wait_ready()
    try:
        assert made.record.triton_grpc == f"127.0.0.1:{grpc_port}"
        assert until(made.triton_reachable)
        connection = http.client.HTTPConnection("127.0.0.1", int(http_port), timeout=30)
        connection.request("GET", "/v2/health/ready")
        assert connection.getresponse().read() == b""
        connection.request("POST", "/v2/repository/index", "{}", {"Content-Type": "text/plain"})
        refused = connection.getresponse()
        assert (refused.status, b"restricted" in refused.read()) == (403, True)
        connection.request("POST", "/v2/repository/index", "{}", {"tritonic-secret": made.record.triton_secret})
        assert connection.getresponse().status == 200
        connection.close()
        assert made.run("models").returncode == 0
    finally:
        made.process.terminate()
        assert made.process.wait(30) == 0


def test_models_reports_that_no_triton_answers(tmp_path):
    ran = subprocess.run(
        [*COMMAND, "models", "--triton", f"127.0.0.1:{free_ports(1)[0]}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert re.fullmatch(r"Error: No Triton answers at 127\.0\.0\.1:\d+\. Start one with `tritonic up`\.\n", ran.stderr)


def test_an_embedded_triton_ends_with_its_context(tmp_path):
    install(tmp_path, "fine", "pass")
    with EmbeddedTriton(tmp_path) as triton:
        assert [(model.name, model.state) for model in triton.models()] == [("fine", "READY")]
        assert len(triton.child.processes()) == 3  # reaper, server, stub
        child = triton.child
    assert child.processes() == []


def test_an_embedded_triton_can_be_killed_and_started_again(tmp_path):
    with EmbeddedTriton(tmp_path) as triton:
        address = triton.grpc_url
        triton.kill()
        assert triton.child.wait(30) == 128 + signal.SIGKILL
        assert not triton.is_ready()
        triton.start().wait_ready()
        assert triton.grpc_url == address
