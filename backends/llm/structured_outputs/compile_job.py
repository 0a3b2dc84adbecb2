"""One structure that is being compiled, and the requests that wait for it."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar
from backends.serving.errors import GenerationError


@dataclass(slots=True, eq=False)
class CompileJob:
    """A structure to compile, with one future for each request that waits for it."""

    key: bytes
    """Digest of the structure."""
    structure: StructuredOutputsParams
    futures: list["Future[CompiledGrammar]"] = field(default_factory=list)
    is_slow: bool = False
    """It takes long, and is compiled at a low priority."""
    num_attempts: int = 0
    pid: int = 0
    """Id of the process that compiles it; 0 until that process has reported."""
    initial_bytes: int = 0
    """Resident memory of that process when it was forked."""

    def fail(self, error: GenerationError) -> None:
        """Fail all futures."""
        for future in self.futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def succeed(self, grammars: list[CompiledGrammar]) -> None:
        """Resolve each future with a grammar of its own."""
        for future, grammar in zip(self.futures, grammars, strict=True):
            if future.set_running_or_notify_cancel():
                future.set_result(grammar)
