"""`tritonic up`: builds the default models, starts Triton and the gateway, supervises them, and stops them."""

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
    """`up` cannot start; the message is for the user of the command."""


class StopRequested(Exception):
    """A stop signal arrived before everything had started."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of `up`. A port of 0 means a free port."""

    repository: Path
    state: Path
    host: str = "127.0.0.1"
    port: int = 1088
    workers: int | None = None
    """Worker processes of the gateway. Default: from the environment."""
    http_port: int | None = None
    """Port of Triton's HTTP endpoint; None keeps it closed."""
    grpc_port: int | None = None
    """Port of Triton's gRPC endpoint on loopback; None: a Unix socket that only this user can open."""
    metrics_port: int = 8002
    default_models: Sequence[DefaultModel] = ()
    """Models to build if the repository lacks them or has outdated ones. The printed examples use the first."""
    gateway_command: Sequence[str] = SERVE_COMMAND
    """The command that runs the gateway."""


def up(options: UpOptions, console: Console) -> None:
    """Start everything, supervise it until SIGINT, SIGTERM or SIGHUP, and leave no process behind.

    Raises UpError and other TritonicErrors, each with a sentence for the user. All processes have ended then.
    """
    with _stop_on_signals() as stopping, runfile.lock(options.state):
        with suppress(StopRequested):
            _run(options, console, stopping)
        console.print("Stopped; no process is left.")


def _run(options: UpOptions, console: Console, stopping: threading.Event) -> None:
    record = runfile.RunRecord(runfile.ProcessIdentity.current(), uuid.uuid4().hex, str(options.repository.resolve()))
    os.environ[runfile.TAG] = record.tag
    runfile.write(options.state, record)
    resolved = _check(options)
    for problem in startup_checks.find_problems(resolved):
        console.print(f"[yellow]![/] {escape(problem)}", soft_wrap=True)
    for default in options.default_models:
        _ensure_model(options.repository, default, console, stopping)
    with ExitStack() as running:
        triton = EmbeddedTriton(
            options.repository,
            http_port=options.http_port,
            grpc_port=options.grpc_port,
            metrics_port=options.metrics_port,
            secret=resolved.triton_secret.get_secret_value() if resolved.triton_secret else None,
            folder=options.state,
        )
        running.callback(_stop_all, console, [triton])
        models = _start_triton(triton, console, stopping)
        triton.share_secret()
        port = options.port or ports.free_ports(1)[0]
        gateway = GatewayProcess(
            options.host,
            port,
            triton.grpc_url,
            options.state / "gateway.log",
            options.gateway_command,
            workers=options.workers,
            hang_timeout=resolved.hang_timeout,
        )
        running.pop_all()
        running.callback(_stop_all, console, [gateway, triton])
        _start_gateway(gateway, bool(models), console, stopping)

        record = replace(record, gateway_url=gateway.url, triton_grpc=triton.grpc_url, triton_secret=triton.secret)
        runfile.write(options.state, record)
        preferred = options.default_models[0].name if options.default_models else None
        print_startup_message(
            console, gateway.url, models, preferred, options.state, asks_for_key=bool(resolved.api_keys)
        )
        supervised = [
            SupervisedComponent(component, lambda line: _report(console, line)) for component in (triton, gateway)
        ]
        supervise(supervised, stopping)


def _check(options: UpOptions) -> Settings:
    """Check settings, ports and disk space before anything is built or started. Return the gateway's settings."""
    resolved = settings.check(host=options.host, port=options.port, workers=options.workers, state=options.state)
    triton = EmbeddedTriton.host
    wanted = (
        (options.host, options.port, "the gateway", ports.port_hint("--port", "TRITONIC_PORT")),
        (triton, options.http_port, "Triton's HTTP endpoint", ports.port_hint("--triton-http-port")),
        (triton, options.grpc_port, "Triton's gRPC endpoint", ports.port_hint("--triton-grpc-port")),
        (triton, options.metrics_port, "Triton's metrics endpoint", ports.port_hint("--triton-metrics-port")),
    )
    for host, port, purpose, remedy in wanted:
        ports.check_free(host, port or 0, purpose, remedy)
    disk_space.check_free_space(options.state, disk_space.RUN_BYTES, "running")
    options.repository.mkdir(parents=True, exist_ok=True)
    return resolved


def _ensure_model(repository: Path, default: DefaultModel, console: Console, stopping: threading.Event) -> None:
    """Build a default model if the repository lacks it or has an outdated one. If that fails, the old one stays."""
    if default.is_missing(repository):
        console.print(f"Building the default model [bold]{default.name}[/]; this is done once.")
        _build(repository, default, console, stopping)
    elif old := default.why_outdated(repository):
        if old.is_customized:
            command = escape(" ".join(["tritonic", *default.command[3:], "--force"]))
            console.print(f"[yellow]![/] [bold]{default.name}[/] {old.reason}.", end=" ", soft_wrap=True)
            console.print(
                f"It was built with other options and is not replaced; `{command}` rebuilds it.", soft_wrap=True
            )
            return
        console.print(f"[bold]{default.name}[/] {old.reason}, and is rebuilt.")
        try:
            _build(repository, default, console, stopping)
        except (UpError, disk_space.DiskError) as error:
            console.print(f"[yellow]![/] {escape(str(error))} The old model stays in use.", soft_wrap=True)


def _build(repository: Path, default: DefaultModel, console: Console, stopping: threading.Event) -> None:
    """Build a default model in a child process, to keep torch out of this one. Raises UpError, DiskError."""
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
    """Start Triton, print the models that failed, and return those that are ready."""
    started = time.monotonic()
    with console.status("Triton is starting …") as status:

        def on_wait(seconds: float) -> None:
            if stopping.is_set():
                raise StopRequested
            status.update(f"Triton is starting and loads its models … {seconds:.0f} s")

        triton.start().wait_ready(on_wait)
    console.print(f"[green]✓[/] Triton is ready on {triton.grpc_url} ({time.monotonic() - started:.1f} s)")
    with ModelRepositoryClient(triton.grpc_url, triton.secret) as client:
        models = client.list_models()
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
        # The gateway discovers models by itself; the first discovery may come too early.
        live = time.monotonic()
        while has_models and not gateway.has_models() and time.monotonic() - live < 5:
            if gateway.poll() is not None or stopping.wait(0.05):
                break
    if stopping.is_set():
        raise StopRequested
    if has_models and not gateway.has_models():
        console.print("[yellow]![/] The gateway has found no model that it can serve; its log says why.")
    console.print(f"[green]✓[/] The gateway is ready on {gateway.url} ({time.monotonic() - started:.1f} s)")


def _stop_all(console: Console, components: Sequence[EmbeddedTriton | GatewayProcess]) -> None:
    """Stop the components in this order. Raises ChildError if a process survives."""
    failures = []
    with console.status("Stopping …"):
        for component in components:
            try:
                component.stop()
            except ChildError as error:
                failures.append(str(error))
    if failures:
        raise ChildError(" ".join(failures))


def _report(console: Console, line: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {escape(line)}")


def _short(reason: str, length: int = 300) -> str:
    """Return the end of a long reason: for a Python model it is a traceback, whose last line is the cause."""
    reason = " ".join(reason.split()) or "Triton gives no reason."
    return reason if len(reason) <= length else f"… {reason[-length:]}"


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT, SIGTERM and SIGHUP set, instead of ending this process at once."""
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
