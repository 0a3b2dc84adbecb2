"""Attacks by what they attack. Each module has a list `KINDS`; `ALL` has those of all modules."""

from tests.attack.kinds import bodies
from tests.attack.kinds.kind import Kind

ALL: list[Kind] = [*bodies.KINDS]
