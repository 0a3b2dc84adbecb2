"""Links, anchors and paths in the documentation lead somewhere."""

import pytest

from tests.architecture.links import broken, read, slug
from tests.architecture.source_tree import ROOT, project_files

FILES = {"README.md", "docs/a.md", "docs/b c.md", "docs/pictures/one.png", "gateway/app.py"}


def test_every_link_of_the_documentation_has_a_target() -> None:
    files = {str(path) for path in project_files()}
    pages = {name: (ROOT / name).read_text() for name in sorted(files) if name.endswith(".md")}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"} <= set(pages)
    found = broken(pages, files)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/a.md)",
        "[a](docs/a.md#a--b)",
        "[a](./docs/../docs/a.md#first-1)",
        "[a](/docs/a.md)",
        "[a](docs/b%20c.md)",
        "[a](#here)\n\n# Here",
        "[a](#by-hand) <a id='by-hand'></a>",
        "![a](docs/pictures/one.png)",
        "[a][1]\n\n[1]: docs/",
        "[a](https://example.com/none.md#none) and <mailto:a@example.com>",
        "`gateway/app.py`, `gateway/app.py:create`, `gateway/` and `gateway`",
        "`gateway/<name>.py`, `docs/*.md`, `gateway/NAME/…` are patterns, `/docs` and `image/png` no paths of ours",
        "```\n[a](none.md) `gateway/none.py`\n```",
    ],
)
def test_existing_targets_are_found(text: str) -> None:
    assert broken({"README.md": text, "docs/a.md": "# A & b\n## First\n## First\n"}, FILES) == []


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("\n[a](docs/none.md)", "docs/none.md: no such file"),
        ("\n[a\nb](docs/a.md#first-2)", "docs/a.md#first-2: no such heading"),
        ("# Here\n[a](#Here)", "#Here: no such heading"),
        ("\n[a](gateway/app.py#L3)", "gateway/app.py#L3: anchors are known of Markdown files only"),
        ("\n![a](pictures/one.png)", "pictures/one.png: no such file"),
        ("\n[a](../README.md)", "../README.md: no such file"),
        ("\n[a][1]\n\n[1]: none/", "none/: no such file"),
        ("\n<img src='docs/none.png'>", "docs/none.png: no such file"),
        ("\nRun `pytest gateway/none` twice", "gateway/none: no such file"),
        ("\n* `docs/none.md`: none", "docs/none.md: no such file"),
        ("\n* `gateway/none.py:create`", "gateway/none.py:create: no such file"),
    ],
)
def test_a_missing_target_is_reported_with_its_line(text: str, target: str) -> None:
    pages = {"README.md": text, "docs/a.md": "# A & b\n## First\n## First\n"}
    assert broken(pages, FILES) == [f"README.md:2: {target}"]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("What it understands", "what-it-understands"),
        ("`make up`: Ports & folders, v1.2", "make-up-ports--folders-v12"),
        ("snake_case - Größe", "snake_case---größe"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert read(f"# {heading}").anchors == {anchor}
    assert slug(heading.replace("`", "")) == anchor
