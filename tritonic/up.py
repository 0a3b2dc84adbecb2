"""`tritonic up`: the default models, Triton and the gateway, from nothing to serving, and back to nothing."""

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gateway import startup_checks
from gateway.settings import Settings
from tritonic import disk_space, ports, runfile, settings
from tritonic.child import Child, ChildError, describe_exit
from tritonic.default_models import DefaultModel
from tritonic.embedded import EmbeddedTriton
from tritonic.errors import TritonicError
from tritonic.gateway_process import SERVE_COMMAND, GatewayProcess
from tritonic.models import ModelInfo, ModelRepositoryClient
from tritonic.startup_message import print_startup_message
from tritonic.supervisor import SupervisedComponent, supervise


class UpError(TritonicError):
    """It cannot start; the message is a sentence for whoever typed the command."""


class StopRequested(Exception):
    """Somebody asked to stop before everything had started."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What to run. Ports of 0 mean free ones."""

    repository: Path
    state: Path
    host: str = "127.0.0.1"
    port: int = 1088
    workers: int | None = None
    """Processes of the gateway; default: as the environment says."""
    http_port: int | None = None
    """Of Triton's HTTP endpoint; None keeps it closed."""
    grpc_port: int | None = None
    """Of Triton's gRPC endpoint on loopback; None: a socket that this user alone can reach."""
    metrics_port: int = 8002
    default_models: Sequence[DefaultModel] = ()
    """The models to build where the repository lacks them or has old ones; the examples use the first."""
    gateway_command: Sequence[str] = SERVE_COMMAND
    """The command that runs the gateway."""


def up(plan: UpOptions, console: Console) -> None:
    """Start everything, look after it until SIGINT or SIGTERM, and leave no process behind.

    Raises UpError, and the RuntimeErrors of the parts, each with a sentence; nothing runs any more then.
    """
    with _stop_on_signals() as stopping, runfile.lock(plan.state):
        with suppress(StopRequested):
            _run(plan, console, stopping)
        console.print("Stopped; no process is left.")


def _run(plan: UpOptions, console: Console, stopping: threading.Event) -> None:
    note = runfile.RunRecord(runfile.ProcessIdentity.current(), uuid.uuid4().hex, str(plan.repository.resolve()))
    os.environ[runfile.TAG] = note.tag
    runfile.write(plan.state, note)
    told = _check(plan)
    for wrong in startup_checks.find_problems(told):
        console.print(f"[yellow]![/] {escape(wrong)}", soft_wrap=True)
    for default in plan.default_models:
        _ensure_model(plan.repository, default, console, stopping)
    with ExitStack() as running:
        triton = EmbeddedTriton(
            plan.repository,
            http_port=plan.http_port,
            grpc_port=plan.grpc_port,
            metrics_port=plan.metrics_port,
            secret=told.triton_secret.get_secret_value() if told.triton_secret else None,
            folder=plan.state,
        )
        running.callback(_stop_all, console, [triton])
        models = _start_triton(triton, console, stopping)
        triton.share_secret()
        port = plan.port or ports.free_ports(1)[0]
        gateway = GatewayProcess(
            plan.host,
            port,
            triton.grpc_url,
            plan.state / "gateway.log",
            plan.gateway_command,
            workers=plan.workers,
            hang_timeout=told.hang_timeout,
        )
        running.pop_all()
        running.callback(_stop_all, console, [gateway, triton])
        _start_gateway(gateway, bool(models), console, stopping)

        note = replace(note, gateway_url=gateway.url, triton_grpc=triton.grpc_url, triton_secret=triton.secret)
        runfile.write(plan.state, note)
        preferred = plan.default_models[0].name if plan.default_models else None
        print_startup_message(console, gateway.url, models, preferred, plan.state, asks_for_key=bool(told.api_keys))
        supervised = [SupervisedComponent(part, lambda line: _report(console, line)) for part in (triton, gateway)]
        supervise(supervised, stopping)


def _check(plan: UpOptions) -> Settings:
    """Find what would fail later, before anything is built or started; return what the gateway will be told."""
    told = settings.check(host=plan.host, port=plan.port, workers=plan.workers, state=plan.state)
    triton = EmbeddedTriton.host
    wanted = (
        (plan.host, plan.port, "the gateway", ports.port_hint("--port", "TRITONIC_PORT")),
        (triton, plan.http_port, "Triton's HTTP endpoint", ports.port_hint("--triton-http-port")),
        (triton, plan.grpc_port, "Triton's gRPC endpoint", ports.port_hint("--triton-grpc-port")),
        (triton, plan.metrics_port, "Triton's metrics endpoint", ports.port_hint("--triton-metrics-port")),
    )
    for host, port, purpose, remedy in wanted:
        ports.check_free(host, port or 0, purpose, remedy)
    disk_space.check_free_space(plan.state, disk_space.RUN_BYTES, "running")
    plan.repository.mkdir(parents=True, exist_ok=True)
    return told


def _ensure_model(repository: Path, default: DefaultModel, console: Console, stopping: threading.Event) -> None:
    """Build a default model where the repository lacks it or has an old one, which stays where that fails."""
    if default.is_missing(repository):
        console.print(f"Building the default model [bold]{default.name}[/]; this is done once.")
        _build(repository, default, console, stopping)
    elif old := default.why_outdated(repository):
        if old.is_customized:
            command = escape(" ".join(["tritonic", *default.command[3:], "--force"]))
            console.print(f"[yellow]![/] [bold]{default.name}[/] {old.reason}.", end=" ", soft_wrap=True)
            console.print(f"It has options of its own and is kept; `{command}` replaces it.", soft_wrap=True)
            return
        console.print(f"[bold]{default.name}[/] {old.reason}, and is built anew.")
        try:
            _build(repository, default, console, stopping)
        except (UpError, disk_space.DiskError) as error:
            console.print(f"[yellow]![/] {escape(str(error))} The old one serves on.", soft_wrap=True)


def _build(repository: Path, default: DefaultModel, console: Console, stopping: threading.Event) -> None:
    """Build a default model. It runs as a child: torch stays out of this process. Raises UpError, DiskError."""
    disk_space.check_free_space(repository, disk_space.BUILD_BYTES, f"building {default.name}")
    sys.stdout.flush()
    started = time.monotonic()
    child = Child(default.command)
    try:
        while (status := child.poll()) is None:
            if stopping.wait(0.1):
                raise StopRequested
    finally:
        child.stop()
    if status != 0:
        raise UpError(f"{default.name} could not be built: the build {describe_exit(status)}; see above.")
    console.print(f"[green]✓[/] Built {default.name} in {time.monotonic() - started:.0f} s")


def _start_triton(triton: EmbeddedTriton, console: Console, stopping: threading.Event) -> list[ModelInfo]:
    """Start Triton; say what it serves and what it does not; return what it serves."""
    started = time.monotonic()
    with console.status("Triton is starting …") as status:

        def on_wait(seconds: float) -> None:
            if stopping.is_set():
                raise StopRequested
            status.update(f"Triton is starting and loads its models … {seconds:.0f} s")

        triton.start().wait_ready(on_wait)
    console.print(f"[green]✓[/] Triton is ready on {triton.grpc_url} ({time.monotonic() - started:.1f} s)")
    with ModelRepositoryClient(triton.grpc_url, triton.secret) as known:
        models = known.list_models()
    for model in models:
        if model.state != "READY":
            reason = escape(_short(model.reason))
            console.print(f"[yellow]![/] Model [bold]{escape(model.name)}[/] does not serve: {reason}")
    ready = [model for model in models if model.state == "READY"]
    if not ready:
        console.print(f"[yellow]![/] No model serves yet; see `tritonic build --help`. Triton's log: {triton.log_path}")
    return ready


def _start_gateway(gateway: GatewayProcess, has_models: bool, console: Console, stopping: threading.Event) -> None:
    started = time.monotonic()
    with console.status("The gateway is starting …"):
        gateway.start()
        gateway.wait_live()
        # It looks for models by itself, from now on; the first look is not always the one that finds them.
        live = time.monotonic()
        while has_models and not gateway.has_models() and time.monotonic() - live < 5:
            if gateway.poll() is not None or stopping.wait(0.05):
                break
    if stopping.is_set():
        raise StopRequested
    if has_models and not gateway.has_models():
        console.print("[yellow]![/] The gateway has found no model that it can serve; its log says why.")
    console.print(f"[green]✓[/] The gateway is ready on {gateway.url} ({time.monotonic() - started:.1f} s)")


def _stop_all(console: Console, parts: Sequence[EmbeddedTriton | GatewayProcess]) -> None:
    """Stop the parts, in this order, and make sure that nothing of them is left. Raises ChildError otherwise."""
    failures = []
    with console.status("Stopping …"):
        for part in parts:
            try:
                part.stop()
            except ChildError as error:
                failures.append(str(error))
    if failures:
        raise ChildError(" ".join(failures))


def _report(console: Console, line: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {escape(line)}")


def _short(reason: str, length: int = 300) -> str:
    """The end of a long reason: a Python model's reason is its traceback, and the cause stands at its end."""
    reason = " ".join(reason.split()) or "Triton gives no reason."
    return reason if len(reason) <= length else f"… {reason[-length:]}"


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set, instead of ending this process where it stands."""
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
