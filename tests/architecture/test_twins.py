"""The backends and the gateway may not share code; what both need stands in both, and does the same."""

import ast
from pathlib import Path

from backends.llm.structures.schemas.keywords import NAMED_SCHEMAS
from gateway.prompting import moved_schemas

ROOT = Path(__file__).parents[2]


def logic(path: str) -> str:
    """A module without its words: imports, docstrings, names of arguments, and what is raised."""
    tree = ast.parse((ROOT / path).read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.args.args = []
            node.body = [part for part in node.body if not isinstance(part, ast.Expr)]
        elif isinstance(node, ast.Raise):
            node.exc = None
    return ast.dump(tree)


def test_scans_are_counted_in_the_same_way() -> None:
    both = logic("backends/serving/scans.py"), logic("gateway/media/reading/scans.py")
    assert "_MOST_SCANS" in both[0] and both[0] == both[1]


def test_schemas_stand_by_name_behind_the_same_keywords() -> None:
    assert moved_schemas._NAMED_SCHEMAS == NAMED_SCHEMAS
