"""The APIs that the gateway serves. A dialect is a folder that exports one `Dialect`, and a line here."""

from gateway.dialects.dialect import Dialect
from gateway.dialects.openai import OPENAI
from gateway.dialects.platform import PLATFORM

DIALECTS: tuple[Dialect, ...] = (
    OPENAI,
    PLATFORM,
)
"""All dialects. The first one owns every path that no dialect claims."""
