"""`tritonic build`: a command for each builder family, with progress bars, error messages and exit statuses."""

import inspect
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from builders import recipe as recipes
from builders import registry
from builders.build import BuildResult, build
from builders.errors import BuildError, RecipeError
from builders.family import Family, Option
from builders.progress import STAGES, Stage

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

EXIT_STATUSES = "Exit status: 0 built, or there already; 1 failed, and the repository is as it was; 2 wrong usage."

Repository = Annotated[Path, typer.Option(envvar="TRITONIC_REPOSITORY", help="The model repository.", file_okay=False)]
Force = Annotated[bool, typer.Option("--force", help="Build even if the same model is there.")]


def make_app() -> typer.Typer:
    """Return `tritonic build` with a command for each family of `builders.registry`."""
    app = typer.Typer(
        name="build",
        help="Build models from their weights into the model repository.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for family in registry.families().values():
        app.command(family.command, help=f"{family.help}\n\n{EXIT_STATUSES}")(_make_command(family))
    return app


def _make_command(family: Family) -> Callable[..., None]:
    """Return a function whose signature, which Typer reads, has the options of the family."""

    def command(
        *, recipe: str | None, source: str | None, repository: Path, force: bool, **options: str | int | None
    ) -> None:
        _run(family, recipe, source, options, repository, force)

    parameters = [
        _parameter("source", _optional(family.source_help)),
        _parameter("name", _optional("Folder in the repository; default: after the source.")),
        _parameter("served_name", _optional("Name that clients use; default: the folder's.")),
        *(_parameter(option.field, _annotation(option)) for option in family.options),
        _parameter("recipe", _optional(family.recipe_help)),
        _parameter("repository", Repository, Path("model_repository")),
        _parameter("force", Force, False),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, annotation: Any, default: Path | bool | None = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _optional(help: str) -> Any:
    return Annotated[str | None, typer.Option(help=help)]


def _annotation(option: Option) -> Any:
    flag = option.flag or f"--{option.field.replace('_', '-')}"
    return Annotated[option.value_type | None, typer.Option(flag, help=option.help)]


def _run(
    family: Family,
    recipe_name: str | None,
    source: str | None,
    options: dict[str, Any],
    repository: Path,
    force: bool,
) -> None:
    """Build, and exit with the status that `EXIT_STATUSES` describes."""
    try:
        recipe = _make_recipe(family, recipe_name, source, options)
    except RecipeError as error:
        _fail(error, 2)
    _terminate_as_interrupt()
    try:
        with _progress() as progress:
            built = build(recipe, repository, force=force, progress=progress)
    except RecipeError as error:
        _fail(error, 2)
    except BuildError as error:
        _fail(error, 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except KeyboardInterrupt:
        _fail("The build was interrupted; the repository is as it was.", 1)
    _print_summary(family, recipe, built)


def _make_recipe(
    family: Family, recipe_name: str | None, source: str | None, options: dict[str, Any]
) -> recipes.Recipe:
    recipe_name = recipe_name if recipe_name is not None or source is not None else family.default_recipe
    if recipe_name is not None:
        recipe = recipes.load(recipe_name, source=source, **options)
        if recipe.family != family.name:
            raise RecipeError(f"The recipe {recipe_name} is of the family {recipe.family!r}, not {family.name!r}.")
        return recipe
    if source is None:
        raise RecipeError(f"`tritonic build {family.command}` has no default model: give --source or --recipe.")
    given = {key: value for key, value in options.items() if value is not None}
    return recipes.make(**{"family": family.name, "name": recipes.default_model_name(source), "source": source} | given)


def _print_summary(family: Family, recipe: recipes.Recipe, built: BuildResult) -> None:
    if not built.is_new:
        out.print(f"{escape(recipe.name)} is there already, from the same recipe and weights; --force builds it anew.")
        return
    out.print(f"[green]✓[/] Built {escape(str(built.folder))} ({recipe.precision}) in {built.seconds:.0f} s.")
    out.print(f"  {escape(family.summary(built.metrics))}")


def _fail(reason: object, status: int) -> NoReturn:
    err.print(f"[bold red]Error:[/] {escape(str(reason))}", soft_wrap=True)
    raise typer.Exit(status)


def _terminate_as_interrupt() -> None:
    """Make SIGTERM interrupt a build as Ctrl-C does, so that it cleans up."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class _ProgressBars:
    """One progress bar for each stage; one line for each if `bars` is None, because stdout is not a terminal."""

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
        progress = _ProgressBars(bars)
        yield progress
        progress.finish()


app = make_app()

if __name__ == "__main__":
    app(prog_name="tritonic build")
