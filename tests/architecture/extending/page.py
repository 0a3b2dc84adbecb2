"""docs/extending.md: the files and the lines of each example that the page shows."""

import re
from collections import defaultdict
from dataclasses import dataclass, field

from markdown_it import MarkdownIt

from tests.architecture.source_tree import ROOT

PAGE = ROOT / "docs" / "extending.md"
EXAMPLES = ROOT / "docs" / "examples"
_DIFF = re.compile(r"\+\+\+ (?P<path>\S+)\n (?P<before>.*)\n\+(?P<added>.*)\n (?P<after>.*)\n")


@dataclass(frozen=True, slots=True)
class AddedLine:
    """A line that an example adds to a file of the project, with the lines around it."""

    path: str
    before: str
    added: str
    after: str

    def apply(self, text: str) -> str:
        """Return the text of the file with the line."""
        place = f"{self.before}\n{self.after}\n"
        assert text.count(place) == 1, f"{self.path} does not have these lines once:\n{place}"
        return text.replace(place, f"{self.before}\n{self.added}\n{self.after}\n")


@dataclass(slots=True)
class Example:
    """The blocks of code of one example: texts by the path that they have in the project, and added lines."""

    files: dict[str, str] = field(default_factory=dict)
    added_lines: list[AddedLine] = field(default_factory=list)


def read_examples() -> dict[str, Example]:
    """Return the examples of the page by their folder of `docs/examples`.

    A block belongs to the file whose link precedes it, and a block of the language `diff` adds a line.
    """
    examples: defaultdict[str, Example] = defaultdict(Example)
    name = path = ""
    for token in MarkdownIt("commonmark").parse(PAGE.read_text()):
        for child in token.children or ():
            target = str(child.attrs.get("href", ""))
            if child.type == "link_open" and target.startswith("examples/"):
                _, name, path = target.split("/", 2)
        if token.type != "fence":
            continue
        if token.info == "diff":
            found = _DIFF.fullmatch(token.content)
            assert found, f"this block does not add one line between two others:\n{token.content}"
            examples[name].added_lines.append(AddedLine(**found.groupdict()))
        elif path:
            examples[name].files[path] = token.content
            path = ""
    return examples


def example_files(name: str) -> dict[str, str]:
    """Return the files of the folder of an example, by the path that they have in the project."""
    folder = EXAMPLES / name
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder)): file.read_text() for file in files}
