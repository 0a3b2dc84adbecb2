"""`tritonic build`: draw the progress of a build, and turn its errors into sentences and exit statuses."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from builders import recipe as recipes
from builders.build import BuildResult, build
from builders.errors import BuildError, RecipeError
from builders.progress import STAGES, Stage

app = typer.Typer(
    name="build",
    help="Build models from their weights into the model repository.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Name = Annotated[str | None, typer.Option(help="Folder in the repository; default: after the source.")]
ServedName = Annotated[str | None, typer.Option(help="Name that clients use; default: the folder's.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hugging Face id.")]
RecipeName = Annotated[str | None, typer.Option(help="A recipe by name or a .toml file; other options win over it.")]
Repository = Annotated[Path, typer.Option(envvar="TRITONIC_REPOSITORY", help="The model repository.", file_okay=False)]
Force = Annotated[bool, typer.Option("--force", help="Build even if the same model is there.")]


@app.command()
def chat(
    source: Annotated[
        str | None,
        typer.Option(help="Hugging Face id, local folder, or packaged:NAME. Default: the packaged default model."),
    ] = None,
    name: Name = None,
    served_name: ServedName = None,
    precision: Annotated[str | None, typer.Option(help="int8, int4, fp16 or fp32.")] = None,
    target: Annotated[str | None, typer.Option(help="What to compile for: onnx.")] = None,
    revision: Revision = None,
    context_length: Annotated[int | None, typer.Option(help="Tokens of prompt and answer together.")] = None,
    max_rows: Annotated[int | None, typer.Option(help="Sequences that run side by side.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"A recipe by name ({', '.join(recipes.recipe_names())}) or a .toml file; other options win over it."
        ),
    ] = None,
    repository: Repository = Path("model_repository"),
    force: Force = False,
) -> None:
    """Build a chat model: fetch its weights, export them, verify the engine against them, install it.

    Exit status: 0 built, or there already; 1 failed, and the repository is as it was; 2 wrong usage.
    """
    options = {
        "name": name,
        "served_name": served_name,
        "precision": precision,
        "target": target,
        "revision": revision,
        "context_length": context_length,
        "max_rows": max_rows,
    }
    _run("llm", recipe, source, options, repository, force)


@app.command()
def embedding(
    source: Annotated[
        str | None,
        typer.Option(help="Hugging Face id, local folder, or packaged:NAME. Default: the packaged default model."),
    ] = None,
    name: Name = None,
    served_name: ServedName = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or int8.")] = None,
    revision: Revision = None,
    context_length: Annotated[int | None, typer.Option(help="Most tokens of one text.")] = None,
    matryoshka: Annotated[
        bool | None, typer.Option("--matryoshka", help="The model was trained for rows that are cut.")
    ] = None,
    truncate_prompt_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens that longer texts are cut to; -1: as many as the model takes. Default: refused."),
    ] = None,
    recipe: RecipeName = None,
    repository: Repository = Path("model_repository"),
    force: Force = False,
) -> None:
    """Build an embedding model from a sentence-transformers folder, and verify the engine against it.

    Exit status: 0 built, or there already; 1 failed, and the repository is as it was; 2 wrong usage.
    """
    options = {
        "name": name,
        "served_name": served_name,
        "precision": precision,
        "revision": revision,
        "context_length": context_length,
        "matryoshka": matryoshka,
        "truncate_prompt_tokens": truncate_prompt_tokens,
    }
    _run("embedding", recipe, source, options, repository, force)


@app.command()
def image(
    source: Annotated[
        str | None,
        typer.Option(help="Hugging Face id, local diffusers folder, or packaged:shapes. Default: packaged:shapes."),
    ] = None,
    name: Name = None,
    served_name: ServedName = None,
    precision: Annotated[str | None, typer.Option(help="fp32; for the target tensorrt also fp16.")] = None,
    target: Annotated[str | None, typer.Option(help="What to compile for: onnx or tensorrt.")] = None,
    revision: Revision = None,
    max_rows: Annotated[int | None, typer.Option(help="Pictures that are drawn side by side.")] = None,
    recipe: RecipeName = None,
    repository: Repository = Path("model_repository"),
    force: Force = False,
) -> None:
    """Build a model that draws from a diffusers pipeline: its parts become models, and all are installed together.

    Exit status: 0 built, or there already; 1 failed, and the repository is as it was; 2 wrong usage.
    """
    options = {
        "name": name,
        "served_name": served_name,
        "precision": precision,
        "target": target,
        "revision": revision,
        "max_rows": max_rows,
    }
    _run("diffusion", recipe, source, options, repository, force)


DEFAULT_RECIPES = {
    "llm": recipes.DEFAULT_LLM_RECIPE,
    "embedding": recipes.DEFAULT_EMBEDDING_RECIPE,
    "diffusion": recipes.DEFAULT_IMAGE_RECIPE,
}
"""The recipe of each family that is built when nothing else is said."""


def _run(
    family: str, recipe: str | None, source: str | None, options: dict[str, Any], repository: Path, force: bool
) -> None:
    """Build, and end with the exit status that the commands promise."""
    try:
        wanted = _recipe(family, recipe, source, options)
    except RecipeError as error:
        _fail(error, 2)
    _terminate_as_interrupt()
    try:
        with _progress() as progress:
            built = build(wanted, repository, force=force, progress=progress)
    except RecipeError as error:
        _fail(error, 2)
    except BuildError as error:
        _fail(error, 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except KeyboardInterrupt:
        _fail("The build was interrupted; the repository is as it was.", 1)
    _print_summary(wanted, built)


def _recipe(family: str, name: str | None, source: str | None, options: dict[str, Any]) -> recipes.Recipe:
    if name is not None or source is None:
        found = recipes.load(name or DEFAULT_RECIPES[family], source=source, **options)
        if found.family != family:
            raise RecipeError(f"The recipe {name} is of the family {found.family!r}, not {family!r}.")
        return found
    given = {key: value for key, value in options.items() if value is not None}
    return recipes.make(**{"family": family, "name": recipes.default_model_name(source), "source": source} | given)


def _print_summary(recipe: recipes.Recipe, built: BuildResult) -> None:
    if not built.is_new:
        out.print(f"{escape(recipe.name)} is there already, from the same recipe and weights; --force builds it anew.")
        return
    out.print(f"[green]✓[/] Built {escape(str(built.folder))} ({recipe.precision}) in {built.seconds:.0f} s.")
    figures = built.metrics
    if recipe.family == "diffusion":
        together, parts = figures["together"], len(figures) - 1
        out.print(
            f"  Against diffusers: {together['pictures']} pictures of one seed in {together['steps']} steps, largest "
            f"difference of a pixel {together['pixel_difference']:.2g} of 1; {parts} parts, each within "
            f"{max(figure['difference'] for key, figure in figures.items() if key != 'together'):.2g} of its source."
        )
        return
    if recipe.family == "embedding":
        out.print(
            f"  Against its source: smallest cosine {figures['cosine_min']:.6f}, largest difference of a number "
            f"{figures['difference_max']:.2g}, over {figures['texts']} texts of up to {figures['longest']} tokens."
        )
        return
    out.print(
        f"  Against its source: same token at {figures['agreement']:.1%} of {figures['positions']} positions, "
        f"divergence {figures['divergence']:.2g} nats, perplexity times {figures['perplexity_ratio']:.4f}."
    )


def _fail(reason: object, status: int) -> NoReturn:
    err.print(f"[bold red]Error:[/] {escape(str(reason))}", soft_wrap=True)
    raise typer.Exit(status)


def _terminate_as_interrupt() -> None:
    """Let SIGTERM end a build as Ctrl-C does, so that it clears up behind itself."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class _ProgressBars:
    """One bar for each stage; where nobody watches (a pipe, a log), one line for each."""

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self._current: TaskID | None = None
        self._started = time.monotonic()

    def begin(self, stage: Stage, detail: str) -> None:
        self.finish()
        title = f"{STAGES.index(stage) + 1}/{len(STAGES)} {stage}"
        if self._bars is None:
            out.print(f"{title}: {escape(detail)}", soft_wrap=True)
        else:
            self._current = self._bars.add_task(title, total=None, detail=escape(detail))

    def update(self, detail: str, fraction: float | None = None) -> None:
        if self._bars is not None and self._current is not None:
            total = None if fraction is None else 1.0
            self._bars.update(self._current, detail=escape(detail), total=total, completed=fraction or 0.0)

    def note(self, text: str) -> None:
        (self._bars.console if self._bars else out).print(f"[yellow]![/] {escape(text)}", soft_wrap=True)

    def finish(self) -> None:
        if self._bars is not None and self._current is not None:
            self._bars.update(self._current, total=1.0, completed=1.0)
            self._bars.stop_task(self._current)


@contextmanager
def _progress() -> Iterator[_ProgressBars]:
    if not sys.stdout.isatty():
        yield _ProgressBars(None)
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Progress(*columns, console=out) as bars:
        watched = _ProgressBars(bars)
        yield watched
        watched.finish()


if __name__ == "__main__":
    app(prog_name="tritonic build")
