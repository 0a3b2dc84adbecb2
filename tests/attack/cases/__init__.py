"""Attack cases by target. Each module has a list `CASES`; `ALL_CASES` has those of all modules."""

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
    videos,
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
    videos,
    structured_outputs,
    resource_buildup,
)
ALL_CASES: list[AttackCase] = sorted(
    (case for module in _MODULES for case in module.CASES), key=lambda case: case.setup
)
"""Sorted by setup, so that each gateway is started once."""
