"""The options of a scheduler, read from what diffusers writes into `scheduler_config.json`.

Each scheduler has a dataclass whose fields are diffusers' options under their own names, with its defaults. The type of
a field is what is carried: `Literal[False]` is an option that may be named, but not used.
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
    """How much noise the denoiser was trained with at each of its timesteps: options that most schedulers share."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: tuple[float, ...] | None = None


def read_scheduler_options(
    kind: type[OptionsT], name: str, config: Mapping[str, object], ignored: frozenset[str]
) -> OptionsT:
    """The options of the scheduler `name` in a config.

    Names in `ignored` are options of other schedulers: checkpoints are full of them. diffusers passes them over too,
    and so it does what begins with an underscore. Raises `ValueError` for any other name that `kind` lacks, and for a
    value that it cannot carry.
    """
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for option, value in config.items():
        if option in hints:
            carried, given[option] = _convert(value, hints[option])
            if not carried:
                raise ValueError(
                    f"{name} cannot carry the option {option} = {value!r}; it may be {_describe_type(hints[option])}."
                )
        elif option not in ignored and not option.startswith("_"):
            raise ValueError(f"{name} has no option {option!r}.")
    return kind(**given)


def _convert(value: object, hint: Any) -> tuple[bool, Any]:
    """Whether a value is of a type, and the value in that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments), value
    if origin in (Union, types.UnionType):
        answers = [_convert(value, one) for one in arguments]
        return next((answer for answer in answers if answer[0]), (False, value))
    if origin is tuple:
        numbers = isinstance(value, list | tuple) and all(_convert(one, arguments[0])[0] for one in value)
        return numbers, tuple(map(float, value)) if numbers else value  # type: ignore[call-overload]
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number, float(value) if number else value  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _describe_type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(one) for one in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe_type(one) for one in get_args(hint))
    names = {bool: "true or false", int: "an integer", float: "a number", type(None): "null"}
    return names.get(hint, "a list of numbers")
