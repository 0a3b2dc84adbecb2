"""The base classes of operations.

An operation takes a frozen request and yields an asynchronous stream of events. Each has a module of this package with
its name, and a line in `gateway.operations.registry`. This package is independent of HTTP, Triton and databases.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request to the model named `model`. Class attributes describe the operation itself."""

    operation: ClassVar[str]
    """The name in `config.pbtxt` (parameter `operations`), in databases, and of the module."""
    phrase: ClassVar[str]
    """A verb phrase for messages such as "The model cannot generate images": here "generate images"."""
    route: ClassVar[str | None] = None
    """Path of the first route that offers it; None: it has no route of its own."""
    node_type: ClassVar[int | None] = None
    """DecentralGPT's number for models that offer it (`type`, see `gateway.decentralgpt`); None: nodes do not call it.
    """
    genai_operation: ClassVar[str] = "generate_content"
    """OpenTelemetry's name of the operation, `gen_ai.operation.name`."""
    delta_events: ClassVar[tuple[type[Any], ...]] = ()
    """Events that bring generated tokens and count them in `tokens`."""
    paces_tokens: ClassVar[bool] = True
    """True: metrics record the time between two tokens. False: one event may bring hundreds of them."""
    usage_events: ClassVar[tuple[type[Any], ...]] = ()
    """Events that count the tokens of the input in `prompt_tokens`."""
    audio_events: ClassVar[tuple[type[Any], ...]] = ()
    """Events that count the sound that was read in `audio_seconds`, and its tokens in `prompt_tokens` and `tokens`."""

    model: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The part of the whole request that is done, 0 to 1."""

    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOutput:
    """Output number `index` of a request before it exists: its media type, and its `facts`.

    `facts` are a few named JSON values that describe the output, as in `{"seed": 5}`.
    """

    index: int
    content_type: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(ExpectedOutput):
    """Output number `index` of a request: the bytes of a file."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOperation(Operation, ABC):
    """An operation that can also run as a task (`gateway.tasks`), which stores its outputs as files.

    The fields of such a request are JSON values, bytes, and tuples of these. A field that is renamed keeps its name in
    databases: `field(metadata={"stored_name": "older_name"})`. An attachment is read into memory before the task runs
    if its field says so: `field(metadata={"in_memory": True})`.
    """

    task_object: ClassVar[str] = "task"
    """The word for the outputs of its tasks, "image" for example: the `object` of a task, and the first part of the
    types of its webhooks."""
    seed_field: ClassVar[str | None] = None
    """The field, and the input of the model, that makes a repeated run give the same outputs. A task fills it in."""

    def model_request(self) -> Operation | None:
        """Return the request that a task sends to its model, whose events `task_events` gets.

        It is this operation itself, or one in terms of which this one is defined. None: the outputs need no model.
        """
        return self

    @abstractmethod
    def task_events(self, events: AsyncIterator[Any]) -> AsyncGenerator[Progress | Output]:
        """Convert the events of the operation to those of a task: progress, and each complete output."""

    @abstractmethod
    def expected_outputs(self) -> tuple[ExpectedOutput, ...] | None:
        """Return the outputs that this request will produce, before it runs; None: their number is not known yet.

        With these, a task that was killed after its last output was stored does not run again.
        """
