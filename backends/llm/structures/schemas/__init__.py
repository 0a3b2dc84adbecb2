"""From a JSON schema as callers write it to one that llguidance enforces to the letter.

`normal` keeps the meaning, but for one thing: objects that name properties and say nothing of others are closed. Every
answer under its result is valid under the caller's schema. What it cannot put so is refused by keyword and place.
"""

from backends.llm.structures.schemas.failures import explained
from backends.llm.structures.schemas.normal import normal

__all__ = ["explained", "normal"]
