"""Each example of docs/extending.md works in a copy of the project, and needs one line at most in files that exist."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.extending.changed_tree import ChangedTree
from tests.architecture.extending.page import EXAMPLES, Example, example_files, read_examples

PAGE_EXAMPLES = read_examples()


def tree_with(folder: Path, *names: str) -> ChangedTree:
    """Return a copy of the project with these examples."""
    tree = ChangedTree(folder)
    for name in names:
        tree.add(example_files(name), PAGE_EXAMPLES[name].added_lines)
    return tree


def last_json(output: str) -> Any:
    return json.loads(output.strip().splitlines()[-1])


def test_the_page_shows_every_example() -> None:
    assert set(PAGE_EXAMPLES) == {folder.name for folder in EXAMPLES.iterdir()} == {"operation", "dialect", "family"}


@pytest.mark.parametrize(("name", "example"), PAGE_EXAMPLES.items(), ids=list(PAGE_EXAMPLES))
def test_the_page_shows_the_files_as_they_are(name: str, example: Example) -> None:
    assert {path: text for path, text in example_files(name).items() if text} == example.files


@pytest.mark.parametrize(
    ("name", "places", "changed_files"),
    [
        (
            "operation",
            {
                "gateway/operations/reverse.py",
                "gateway/signatures/reverse.py",
                "gateway/dialects/openai/reversals.py",
                "backends/reverse",
                "model_repository/reverse",
            },
            {
                "gateway/operations/registry.py",
                "gateway/signatures/registry.py",
                "gateway/dialects/openai/__init__.py",
            },
        ),
        ("dialect", {"gateway/dialects/toy"}, {"gateway/dialects/__init__.py"}),
        ("family", {"builders/toy"}, {"builders/registry.py"}),
    ],
)
def test_an_addition_is_one_file_or_folder_and_one_line(
    name: str, places: set[str], changed_files: set[str], tmp_path: Path
) -> None:
    tree = tree_with(tmp_path / "tree", name)
    assert tree.new_places() == places
    changed = tree.changed_lines()
    assert set(changed) == changed_files
    for lines in changed.values():
        (line,) = lines
        assert line.startswith("+ ")
    # Each line registers another one of the new files and folders.
    folders = {str(Path(path).parent) for path in changed_files}
    assert len(folders) == len(changed_files) and folders <= {str(Path(place).parent) for place in places}


def test_the_import_rules_hold_with_all_examples(tmp_path: Path) -> None:
    tree = tree_with(tmp_path / "tree", *PAGE_EXAMPLES)
    output = tree.run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", COLUMNS="200")
    assert "0 broken" in output


def test_an_import_rule_holds_for_the_examples_too(tmp_path: Path) -> None:
    tree = tree_with(tmp_path / "tree", *PAGE_EXAMPLES)
    wrong = {
        "gateway/dialects/toy/errors.py": "import gateway.dialects.platform.access",
        "backends/reverse/model.py": "import backends.llm.options",
    }
    for path, line in wrong.items():
        file = tree.folder / path
        file.write_text(f"{file.read_text()}\n{line}\n")
    with pytest.raises(AssertionError, match="2 broken"):
        tree.run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", COLUMNS="200")


def test_the_operation_is_served_and_runs_as_a_task(tmp_path: Path) -> None:
    tree = tree_with(tmp_path / "tree", "operation")
    answers = last_json(tree.run_module("tests.architecture.extending.call_reversals", str(tree.folder)))
    assert answers["whole"] == [200, {"text": "three two one"}]
    assert answers["tensors"] == {"text": ["one two three"]}
    assert answers["model"]["url"].endswith("/v1/reversals")
    assert answers["documented"] == ["/v1/reversals", "/v1/reversals/{task_id}"]
    assert any(name.startswith('tritonic_requests_total{model="reverse"') for name in answers["metrics"])

    status, refused = answers["refused by the backend"]
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (400, "invalid_value", "text")
    assert "There are no words." in refused["error"]["message"]
    assert "it can reverse texts" in answers["refused by the catalog"]["error"]["message"]

    task = answers["task"]
    assert (task["status"], task["progress"], task["error"]) == ("completed", 100, None)
    assert {**answers["task later"], "url": None} == {**task, "url": None}
    assert answers["output"] == ["text/plain; charset=utf-8", "three two one"]


def test_the_dialect_answers_on_its_paths(tmp_path: Path) -> None:
    tree = tree_with(tmp_path / "tree", "dialect")
    answers = last_json(tree.run_module("tests.architecture.extending.call_toy", str(tree.folder)))
    status, content_type, text = answers["whole"]
    assert (status, content_type, set(json.loads(text))) == (200, "application/json", {"reply"})
    status, content_type, stream = answers["stream"]
    assert status == 200 and content_type.startswith("text/event-stream")
    *words, end = [dict(row.split(": ", 1) for row in block.split("\n")) for block in stream.strip().split("\n\n")]
    assert end == {"event": "end", "data": "{}"} and {word["event"] for word in words} == {"word"}
    assert "".join(json.loads(word["data"])["word"] for word in words) == json.loads(text)["reply"]

    for name, expected in (("without a key", (401, "invalid_api_key")), ("unknown path", (404, "not_found"))):
        status, content_type, text = answers[name]
        assert (status, json.loads(text)["oops"]) == expected and content_type == "application/x-toy"
    status, content_type, text = answers["unknown path of another dialect"]
    assert status == 404 and json.loads(text)["error"]["code"] == "not_found"


def test_the_family_builds_and_installs_a_model(tmp_path: Path) -> None:
    tree = tree_with(tmp_path / "tree", "family")
    source, repository = tmp_path / "source", tmp_path / "repository"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "toy"}')
    arguments = (
        "--source",
        str(source),
        "--repository",
        str(repository),
        "--name",
        "greeter",
        "--greeting",
        "good day",
    )
    output = tree.run_module("tritonic", "build", "toy", *arguments)
    assert "It answers with 8 characters." in " ".join(output.split())
    assert (repository / "greeter" / "1" / "answer.txt").read_text() == "good day"
    assert json.loads((repository / "greeter" / "BUILD.json").read_text())["recipe"]["family"] == "toy"
    assert "Build a toy that answers with one text." in tree.run_module("tritonic", "build", "--help")
