"""A builder family is one folder and one line in the list: its command, options, checks and models follow."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import config_pbtxt, manifest, recipe, registry
from builders.errors import RecipeError
from tritonic.build import make_app

FAMILY = '''
"""The family `toy`: models that answer with one fixed text."""

from builders.family import REVISION, Builder, Family, Option
from builders.recipe import Recipe


class ToyRecipe(Recipe):
    greeting: str = "hello"
    loud: bool = False


def load_builder() -> Builder:
    from toy_family.builder import ToyBuilder

    return ToyBuilder()


FAMILY = Family(
    name="toy",
    command="toy",
    help="Build a toy that answers with one text.",
    source_help="Local folder with a config.json.",
    options=(
        Option("greeting", "The text of the answer."),
        Option("max_rows", "Answers that are given side by side.", int),
        Option("loud", "Answer in capitals.", bool),
        REVISION,
    ),
    load_builder=load_builder,
    summary=lambda figures: f"It answers with {figures['characters']} characters.",
    recipe=ToyRecipe,
)
'''

BUILDER = '''
"""Build toys."""

from builders import config_pbtxt
from builders.errors import VerificationFailed
from builders.family import Builder


class ToyBuilder(Builder):
    def check(self, recipe, source):
        source.config()
        return 1_000

    def build(self, recipe, source, folder, scratch, progress):
        progress.begin("fetch", recipe.source)
        source.fetch(scratch, progress)
        progress.begin("export", recipe.greeting)
        text = recipe.greeting.upper() if recipe.loud else recipe.greeting
        (folder / "1").mkdir()
        (folder / "1" / "answer.txt").write_text(text)
        progress.begin("verify", "against the recipe")
        if not text:
            raise VerificationFailed("The toy answers nothing.")
        parameters = {"max_rows": recipe.max_rows}
        config = config_pbtxt.render(recipe.name, "toy", (), (), parameters, decoupled=False)
        (folder / "config.pbtxt").write_text(config)
        return {"characters": len(text)}
'''


@pytest.fixture
def toy_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package `toy_family`, and add its line to the list of families."""
    package = tmp_path / "packages" / "toy_family"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "family.py").write_text(FAMILY)
    (package / "builder.py").write_text(BUILDER)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(registry, "_NAMES", [*registry._NAMES, "toy_family.family"])
    for module in ("toy_family", "toy_family.family", "toy_family.builder"):
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that `builders.sources` takes for a checkpoint."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "toy"}')
    return folder


def run(*arguments: str) -> tuple[int, str]:
    """Run `tritonic build` in this process; return its exit status and its output, with white space collapsed."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(make_app(), [*arguments], env={"COLUMNS": "200"})
    finally:
        signal.signal(signal.SIGTERM, handler)
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.usefixtures("toy_family")
def test_the_help_lists_a_new_family_with_its_options() -> None:
    status, text = run("--help")
    assert status == 0
    for command in ("chat", "embedding", "image"):
        assert f" {command} Build a" in text
    assert " toy Build a toy that answers with one text. " in text
    status, text = run("toy", "--help")
    assert status == 0
    assert "Exit status: 0 built, or there already; 1 failed" in text
    for option in (
        "--source <str> Local folder with a config.json.",
        "--greeting <str> The text of the answer.",
        "--max-rows <int> Answers that are given side by side.",
        "--loud <bool> Answer in capitals.",
        "--revision <str> Branch",
    ):
        assert option in text
    assert "--no-loud" not in text and "--precision" not in text


@pytest.mark.usefixtures("toy_family")
def test_a_new_family_builds_into_the_repository(source: Path, tmp_path: Path) -> None:
    arguments = ("toy", "--source", str(source), "--name", "greeter", "--repository", str(tmp_path / "repository"))
    status, text = run(*arguments, "--greeting", "good day", "--loud", "--max-rows", "3")
    assert status == 0, text
    folder = tmp_path / "repository" / "greeter"
    assert "It answers with 8 characters." in text
    assert (folder / "1" / "answer.txt").read_text() == "GOOD DAY"
    assert config_pbtxt.parse((folder / "config.pbtxt").read_text()).parameters["max_rows"].string_value == "3"
    record = json.loads((folder / manifest.FILE_NAME).read_bytes())
    assert (record["recipe"]["family"], record["recipe"]["greeting"]) == ("toy", "good day")

    status, text = run(*arguments, "--greeting", "good day", "--loud", "--max-rows", "3")
    assert (status, "is there already" in text) == (0, True)
    status, text = run(*arguments)
    assert (status, (folder / "1" / "answer.txt").read_text()) == (0, "hello"), text


@pytest.mark.usefixtures("toy_family")
def test_the_options_of_a_new_family_are_a_users_choice(source: Path, tmp_path: Path) -> None:
    """`tritonic up` must not replace a model for which somebody set them."""
    plain = recipe.make(family="toy", name="toy", source=str(source))
    chosen = plain.model_copy(update={"greeting": "bye"})
    folder = tmp_path / "toy"
    folder.mkdir()
    manifest.write(folder, chosen, "digest", {}, 0.0)
    assert manifest.find_outdated(folder, plain, "digest") is None
    manifest.write(folder, plain, "other", {}, 0.0)
    assert manifest.find_outdated(folder, plain, "digest")


@pytest.mark.usefixtures("toy_family")
def test_failures_of_a_new_family_have_the_statuses_of_the_command(source: Path, tmp_path: Path) -> None:
    arguments = ("--repository", str(tmp_path / "repository"))
    status, text = run("toy", *arguments)
    assert (status, "has no default model: give --source or --recipe" in text) == (2, True)
    status, text = run("toy", "--source", str(source), "--greeting", "", *arguments)
    assert (status, "The toy answers nothing." in text) == (1, True)
    status, text = run("toy", "--recipe", "shapes", *arguments)
    assert (status, "is of the family 'diffusion', not 'toy'" in text) == (2, True)
    assert not (tmp_path / "repository").exists()


def test_an_option_of_another_family_is_refused(source: Path) -> None:
    with pytest.raises(RecipeError, match="greeting: Extra inputs"):
        recipe.make(name="a", source=str(source), greeting="hello")


def test_every_family_sets_fields_of_its_own_recipe() -> None:
    for family in registry.families().values():
        assert {option.field for option in family.options} | family.own_fields <= set(family.recipe.model_fields)
        assert family.default_recipe is None or recipe.load(family.default_recipe).family == family.name


def test_the_help_needs_none_of_the_packages_that_build() -> None:
    absent = (
        "diffusers",
        "gguf",
        "huggingface_hub",
        "onnx",
        "onnxruntime",
        "onnxruntime_genai",
        "torch",
        "transformers",
    )
    program = textwrap.dedent(f"""
        import sys
        sys.modules.update(dict.fromkeys({absent!r}))
        from tritonic.build import app
        app(["image", "--help"])
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--target" in done.stdout
