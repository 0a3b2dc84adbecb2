"""The command `tritonic`.

Each command imports what it needs when it runs, so that a missing package breaks no other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tritonic.errors import TritonicError

if TYPE_CHECKING:
    from tritonic.running_triton import TritonEndpoint

app = typer.Typer(
    name="tritonic",
    help="Serve generative models on NVIDIA Triton Inference Server through OpenAI-compatible HTTP APIs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Show, load and unload the models of a running Triton.")
train_app = typer.Typer(help="Train the project's own models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")


PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of a command that hands its arguments to the command of another package."""


def _port(help: str, variable: str | None = None) -> Any:
    """Return a port option; typer refuses a number outside 0 to 65535 and names the option."""
    return typer.Option(envvar=variable, help=help, min=0, max=65535)


# Errors go to stderr, so that stdout can be piped.
out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)

Repository = Annotated[
    Path, typer.Option(envvar="TRITONIC_REPOSITORY", help="The model repository.", show_default=True, file_okay=False)
]
State = Annotated[
    Path, typer.Option(envvar="TRITONIC_STATE", help="Folder for logs and the state of `up`.", file_okay=False)
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes of the gateway. [TRITONIC_WORKERS, else 1]")]
Triton = Annotated[
    str | None,
    typer.Option(
        help="Triton's gRPC endpoint, host:port or unix:/path. Default: the one of `up`, else TRITONIC_TRITON_URLS."
    ),
]


TritonHttpPort = Annotated[
    int | None,
    _port("Port of Triton's HTTP endpoint on loopback; 0: a free port. Default: closed.", "TRITONIC_TRITON_HTTP_PORT"),
]
TritonGrpcPort = Annotated[
    int | None,
    _port(
        "Port of Triton's gRPC endpoint on loopback; 0: a free port. Default: a Unix socket of this user alone.",
        "TRITONIC_TRITON_GRPC_PORT",
    ),
]


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Print expected failures as one message and exit with status 1. Bugs keep their traceback."""
    from tritonic.disk_space import is_full

    try:
        yield
    except TritonicError as error:
        _fail(str(error))
    except OSError as error:
        if is_full(error):
            _fail(
                f"The disk is full: {error.filename or 'nothing more can be written'}. Free some space and try again."
            )
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(sentence: str) -> None:
    first, _, rest = sentence.partition("\n")
    err.print(f"[bold red]Error:[/] {escape(first)}")
    if rest:
        err.print(escape(rest))
    raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"tritonic {package_version('tritonic')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handle the options that come before a command."""


@app.command()
def up(
    host: Annotated[str, typer.Option(envvar="TRITONIC_HOST", help="Address of the gateway.")] = "127.0.0.1",
    port: Annotated[int, _port("Port of the gateway; 0: a free port.", "TRITONIC_PORT")] = 1088,
    workers: Workers = None,
    repository: Repository = Path("model_repository"),
    state: State = Path(".tritonic"),
    triton_http_port: TritonHttpPort = None,
    triton_grpc_port: TritonGrpcPort = None,
    triton_metrics_port: Annotated[
        int, _port("Port of Triton's metrics; 0: a free port.", "TRITONIC_TRITON_METRICS_PORT")
    ] = 8002,
    build: Annotated[bool, typer.Option(help="Build the default models that the repository lacks.")] = True,
    embedding: Annotated[bool, typer.Option(help="Also build the default embedding model.")] = True,
    image: Annotated[bool, typer.Option(help="Also build the default image model.")] = True,
    video: Annotated[bool, typer.Option(help="Also build the default video model.")] = True,
    transcription: Annotated[bool, typer.Option(help="Also build the default transcription model.")] = True,
    speech: Annotated[bool, typer.Option(help="Also build the default model that speaks.")] = True,
) -> None:
    """Build missing models, start Triton and the gateway, and keep them running until Ctrl-C or `tritonic down`."""
    with _errors_as_messages():
        from tritonic import default_models
        from tritonic.up import UpOptions
        from tritonic.up import up as run

        wanted = {
            "embedding": embedding,
            "image": image,
            "video": video,
            "transcription": transcription,
            "speech": speech,
        }
        left_out = [kind for kind, build_it in wanted.items() if not build_it]
        plan = UpOptions(
            repository=repository,
            state=state,
            host=host,
            port=port,
            workers=workers,
            http_port=triton_http_port,
            grpc_port=triton_grpc_port,
            metrics_port=triton_metrics_port,
            default_models=default_models.default_models(repository, left_out=left_out) if build else (),
        )
        run(plan, out)


@app.command()
def down(state: State = Path(".tritonic")) -> None:
    """Stop the `up` of this folder and all its processes."""
    with _errors_as_messages():
        from tritonic.down import down as run

        with out.status("Stopping …"):
            was_running = run(state)
        out.print("Stopped; no process is left." if was_running else "Nothing runs in this folder.")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [TRITONIC_HOST]")] = None,
    port: Annotated[int | None, _port("Port to listen on; 0: a free port. [TRITONIC_PORT]")] = None,
    workers: Workers = None,
    triton: Annotated[
        list[str] | None,
        typer.Option(help="Triton's gRPC endpoint, host:port; may be repeated. [TRITONIC_TRITON_URLS]"),
    ] = None,
) -> None:
    """Run only the gateway, for Triton servers that run elsewhere. Settings are environment variables."""
    with _errors_as_messages():
        from tritonic import settings
        from tritonic.serve import serve as run

        if not run(settings.check(host=host, port=port, workers=workers, triton_urls=triton)):
            raise TritonicError("The gateway did not start; its log says why.")


@app.command()
def doctor(
    host: Annotated[str, typer.Option(envvar="TRITONIC_HOST", help="Address of the gateway.")] = "127.0.0.1",
    port: Annotated[int, _port("Port of the gateway.", "TRITONIC_PORT")] = 1088,
    gpu: Annotated[bool, typer.Option("--gpu", help="Look at GPUs, their targets and engine files instead.")] = False,
    repository: Repository = Path("model_repository"),
    state: State = Path(".tritonic"),
) -> None:
    """List the requirements that this machine lacks, with remedies. Exit status 1 when a requirement is missing."""
    with _errors_as_messages():
        from tritonic.doctor import diagnose, print_findings

        findings = diagnose(host, port, state)
        if gpu:
            from tritonic.gpu_doctor import diagnose_gpus

            findings = diagnose_gpus(repository)
        if not print_findings(findings, out):
            raise typer.Exit(1)


@app.command(
    context_settings=PASSED_ON,
    help="Build a model from its weights and install it into the repository; see `tritonic build --help`.",
)
def build(context: typer.Context, state: State = Path(".tritonic")) -> None:
    """Run the builders' own command, and load the installed models into the Triton that runs here."""
    with _errors_as_messages():
        try:
            from tritonic.build import app as builders
        except ModuleNotFoundError as error:
            raise TritonicError(
                f"Building needs the package {error.name!r}: pip install 'tritonic[build]' -c constraints.txt"
            ) from error
        from tritonic.running_triton import load_newly_installed

        with load_newly_installed(state, out):
            builders(args=context.args, prog_name="tritonic build")


@app.command(
    context_settings=PASSED_ON,
    help="Measure Tritonic and its peers on this machine; see `tritonic bench --help`.",
)
def bench(context: typer.Context) -> None:
    """Run the benchmarks' own command."""
    with _errors_as_messages():
        from tritonic.bench import bench as run

        raise typer.Exit(run(context.args))


def _add_training(name: str, kind: str) -> None:
    @train_app.command(
        name,
        context_settings=PASSED_ON,
        help=f"Train the {kind} model `{name}`; an interrupted run is resumed. See `tritonic train {name} --help`.",
    )
    def run(context: typer.Context) -> None:
        with _errors_as_messages():
            from tritonic.train import train_model

            train_model(name, context.args)


_add_training("shapes", "image")
_add_training("moving-shapes", "video")
_add_training("shapes-captioner", "vision-language")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, triton: Triton = None, state: State = Path(".tritonic")) -> None:
    """Show the models of a running Triton."""
    with _errors_as_messages():
        from tritonic.running_triton import find_endpoints

        context.obj = find_endpoints(state, triton)
        if context.invoked_subcommand is None:
            from tritonic.models import show

            show(context.obj, out)


@models_app.command()
def load(context: typer.Context, name: Annotated[str, typer.Argument(help="The model's folder.")]) -> None:
    """Load a model, or load it again after its files changed."""
    _on_all(context.obj, name, "load", "Loaded")


@models_app.command()
def unload(context: typer.Context, name: Annotated[str, typer.Argument(help="The model's folder.")]) -> None:
    """Unload a model; its files stay."""
    _on_all(context.obj, name, "unload", "Unloaded")


def _on_all(servers: "list[TritonEndpoint]", name: str, verb: str, done: str) -> None:
    with _errors_as_messages():
        from tritonic.models import ModelRepositoryClient

        for server in servers:
            with out.status(f"{verb} {name} …"), ModelRepositoryClient(server.url, server.secret) as client:
                getattr(client, verb)(name)
            out.print(f"{done} {escape(name)} on {server.url}.")
