"""A structure that is being compiled."""

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar
from backends.serving.errors import GenerationError, InvalidValue

_MAX_REMEMBERED = 256


@dataclass(slots=True, eq=False)
class CompileJob:
    """A structure that is to be compiled, and who waits for it. Equal ones are compiled once."""

    key: bytes
    structure: StructuredOutputsParams
    futures: list["Future[CompiledGrammar]"] = field(default_factory=list)
    is_slow: bool = False
    """It takes long, and is compiled at a low priority."""
    num_attempts: int = 0
    pid: int = 0
    initial_bytes: int = 0

    def fail(self, error: GenerationError) -> None:
        """Tell all who wait."""
        for future in self.futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def succeed(self, grammars: list[CompiledGrammar]) -> None:
        """Give each who waits a grammar."""
        for future, grammar in zip(self.futures, grammars, strict=True):
            if future.set_running_or_notify_cancel():
                future.set_result(grammar)


def remember(known: OrderedDict[bytes, Any], key: bytes, outcome: object) -> None:
    """Keep the outcome of a structure; the oldest of too many is dropped."""
    known[key] = outcome
    if len(known) > _MAX_REMEMBERED:
        known.popitem(last=False)


def rejection(reason: str) -> InvalidValue:
    """Return the error of a structure that cannot be enforced."""
    return InvalidValue(f"This cannot be enforced: {reason}", "structured_outputs")
