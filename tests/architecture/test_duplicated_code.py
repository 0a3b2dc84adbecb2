"""The backends and the gateway may not share code; what both need stands in both, and does the same."""

import ast
from pathlib import Path

from backends.llm.structured_outputs.json_schema.keywords import SUBSCHEMA_MAPS
from gateway.prompting import schema_relocation

ROOT = Path(__file__).parents[2]


def normalized_ast(path: str) -> str:
    """A module without its words: imports, docstrings, names of arguments, and what is raised."""
    tree = ast.parse((ROOT / path).read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom | ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.args.args = []
            node.body = [part for part in node.body if not isinstance(part, ast.Expr)]
        elif isinstance(node, ast.Raise):
            node.exc = None
    return ast.dump(tree)


def test_scans_are_counted_in_the_same_way() -> None:
    both = normalized_ast("backends/serving/scans.py"), normalized_ast("gateway/media/decoders/scans.py")
    assert "_MAX_SCANS" in both[0] and both[0] == both[1]


def test_schemas_stand_by_name_behind_the_same_keywords() -> None:
    assert schema_relocation._SCHEMA_MAP_KEYWORDS == SUBSCHEMA_MAPS
