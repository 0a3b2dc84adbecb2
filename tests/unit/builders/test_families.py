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
from tests.fakes.examples import import_example
from tritonic.build import make_app


@pytest.fixture
def toy_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the family of docs/extending.md to the list of families."""
    import_example("family", "builders.toy.family")
    monkeypatch.setattr(registry, "_NAMES", (*registry._NAMES, "toy"))


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
