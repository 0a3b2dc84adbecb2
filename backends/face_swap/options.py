"""The `parameters` of `config.pbtxt` that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.config_parameters import integer_value, string_values, thread_count


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a model, as docs/architecture.md describes them.

    `max_faces` faces of a target are swapped, the largest of them. `max_pixels` is the limit of each picture.
    `threads` requests are worked on at the same time, `max_waiting` more wait.
    """

    max_faces: int = 16
    max_pixels: int = 25_000_000
    max_waiting: int = 64
    threads: int = 0

    @property
    def num_threads(self) -> int:
        """Threads that compute: `threads`, or one for each core that this process may use if that is 0."""
        return thread_count(self.threads)


def read_options(parameters: Mapping[str, Mapping[str, Any]]) -> Options:
    """Read `parameters` as Triton passes them: `{"max_faces": {"string_value": "16"}}`.

    Ignores parameters that others read. Raises `ValueError` with a sentence that names the parameter.
    """
    values = string_values(parameters)
    return Options(
        max_faces=integer_value(values, "max_faces", 16, 1),
        max_pixels=integer_value(values, "max_pixels", 25_000_000, 1),
        max_waiting=integer_value(values, "max_waiting", 64, 0),
        threads=integer_value(values, "threads", 0, 0),
    )
