"""Attacks by what they attack. Each module has a list `KINDS`; `ALL` has those of all modules."""

from tests.attack.cases import (
    access,
    connections,
    documents,
    gzip_bodies,
    images,
    json_bodies,
    media_references,
    multipart_forms,
    request_headers,
    resource_buildup,
    structured_outputs,
)
from tests.attack.cases.case import AttackCase

_MODULES = (
    access,
    request_headers,
    connections,
    json_bodies,
    gzip_bodies,
    multipart_forms,
    media_references,
    images,
    documents,
    structured_outputs,
    resource_buildup,
)
ALL_CASES: list[AttackCase] = sorted(
    (kind for module in _MODULES for kind in module.CASES), key=lambda kind: kind.setup
)
"""In an order in which those of one set-up follow one another."""
