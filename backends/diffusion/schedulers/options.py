"""The options of a scheduler, read from diffusers' `scheduler_config.json`.

Each scheduler has a dataclass whose fields have the names and defaults of diffusers' options. The type of a field lists
the supported values: `Literal[False]` is an option that may be present but not enabled.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

OptionsT = TypeVar("OptionsT")

Spacing = Literal["linspace", "leading", "trailing"]
Prediction = Literal["epsilon", "sample", "v_prediction"]


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The noise schedule with which the denoiser was trained: options that most schedulers share."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: tuple[float, ...] | None = None


def read_scheduler_options(
    kind: type[OptionsT], name: str, config: Mapping[str, object], ignored: frozenset[str]
) -> OptionsT:
    """Return the options of the scheduler `name`, as an instance of the dataclass `kind`.

    Ignores names in `ignored`, which are options of other schedulers that checkpoints often have, and names with a
    leading underscore, as diffusers does. Raises `ValueError` for any other unknown name, and for an unsupported value.
    """
    hints = get_type_hints(kind)
    options: dict[str, Any] = {}
    for option, value in config.items():
        if option in hints:
            is_supported, options[option] = _convert(value, hints[option])
            if not is_supported:
                raise ValueError(
                    f"{name} does not support {option} = {value!r}; it may be {_describe_type(hints[option])}."
                )
        elif option not in ignored and not option.startswith("_"):
            raise ValueError(f"{name} has no option {option!r}.")
    return kind(**options)


def _convert(value: object, hint: Any) -> tuple[bool, Any]:
    """Return whether a value has the type `hint`, and the value converted to that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == literal and type(value) is type(literal) for literal in arguments), value
    if origin in (Union, types.UnionType):
        results = [_convert(value, alternative) for alternative in arguments]
        return next((result for result in results if result[0]), (False, value))
    if origin is tuple:
        is_list = isinstance(value, list | tuple) and all(_convert(item, arguments[0])[0] for item in value)
        return is_list, tuple(map(float, value)) if is_list else value  # type: ignore[call-overload]
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number, float(value) if is_number else value  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _describe_type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(literal) for literal in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe_type(alternative) for alternative in get_args(hint))
    names = {bool: "true or false", int: "an integer", float: "a number", type(None): "null"}
    return names.get(hint, "a list of numbers")
