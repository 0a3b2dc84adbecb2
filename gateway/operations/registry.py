"""All operations, by name. A new operation is a module of this package and a line in `_NAMES`."""

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module

from gateway.errors import UnsupportedOption
from gateway.operations.operation import Operation

_NAMES = (
    "chat",
    "complete",
    "embed",
    "generate_image",
    "edit_image",
    "upscale_image",
    "generate_video",
    "swap_face",
    "describe_image",
    "keep_image",
    "transcribe",
    "speak",
)
"""Modules of this package, in the order of preference: a model with several operations is listed under the first."""


def _load(name: str) -> type[Operation]:
    """Return the operation that the module `name` defines."""
    module = import_module(f"gateway.operations.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Operation) and value.__module__ == module.__name__:
            assert value.operation == name, f"{value.__qualname__} is called {value.operation}, its module {name}"
            return value
    raise ImportError(f"{module.__name__} defines no operation", name=module.__name__)


OPERATIONS: Mapping[str, type[Operation]] = {name: _load(name) for name in _NAMES}
"""Every operation by its name, in the order of preference."""


def known_operations(offered: Collection[str]) -> Iterator[type[Operation]]:
    """Yield the operations whose names a model offers, in the order of preference; names of others are skipped."""
    return (operation for name, operation in OPERATIONS.items() if name in offered)


def require_operation(model: str, offered: Collection[str], operation: type[Operation]) -> None:
    """Raise `UnsupportedOption` unless `operation` is among those that `model` offers."""
    if operation.operation not in offered:
        phrases = ", ".join(OPERATIONS[name].phrase if name in OPERATIONS else name for name in sorted(offered))
        raise UnsupportedOption(f"The model '{model}' cannot {operation.phrase}; it can {phrases}.", param="model")
