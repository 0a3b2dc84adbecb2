"""A structure that is being compiled."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from backends.llm.sampling import Structure
from backends.llm.structures.grammar import Grammar
from backends.serving.errors import GenerationError


@dataclass(slots=True, eq=False)
class Job:
    """A structure that is to be compiled, and who waits for it. Equal ones are compiled once."""

    key: bytes
    structure: Structure
    futures: list["Future[Grammar]"] = field(default_factory=list)
    patient: bool = False
    """It takes long, and is compiled at a low priority."""
    tries: int = 0
    pid: int = 0
    begun_at: int = 0

    def fail(self, error: GenerationError) -> None:
        """Tell all who wait."""
        for future in self.futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def succeed(self, grammars: list[Grammar]) -> None:
        """Give each who waits a grammar."""
        for future, grammar in zip(self.futures, grammars, strict=True):
            if future.set_running_or_notify_cancel():
                future.set_result(grammar)
