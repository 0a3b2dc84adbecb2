"""The APIs that the gateway serves. A dialect is a folder of this package that exports `DIALECT`, and a line here."""

from importlib import import_module

from gateway.dialects.dialect import Dialect

_NAMES = (
    "openai",
    "midjourney",
    "platform",
)
"""Folders of this package. The first dialect owns every path that no dialect claims."""

DIALECTS: tuple[Dialect, ...] = tuple(import_module(f"{__name__}.{name}").DIALECT for name in _NAMES)
"""All dialects, in the order of their names above."""
