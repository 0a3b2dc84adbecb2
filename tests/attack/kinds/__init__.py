"""Attacks by what they attack. Each module has a list `KINDS`; `ALL` has those of all modules."""

from tests.attack.kinds import (
    access,
    bodies,
    connections,
    documents,
    forms,
    grammars,
    heads,
    packed,
    pictures,
    references,
    sums,
)
from tests.attack.kinds.kind import Kind

_MODULES = (access, heads, connections, bodies, packed, forms, references, pictures, documents, grammars, sums)
ALL: list[Kind] = sorted((kind for module in _MODULES for kind in module.KINDS), key=lambda kind: kind.setup)
"""In an order in which those of one set-up follow one another."""
