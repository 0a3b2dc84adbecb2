"""The request parameters of Triton's protocol, which a client may send besides tensors.

They are strings, numbers and booleans by name: `parameters` of a gRPC request, or the members of the JSON body of
`/generate` that are not names of inputs.
"""

import json
from typing import Any

from backends.serving.errors import InvalidValue

_MAX_CHARS = 1 << 20
"""Limit on the JSON of the parameters, in characters. Parsing takes about 10 ms, during which no token is sampled."""

_RESERVED_NAMES = frozenset(
    {"id", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "binary_data_output"}
)
"""Parameters that mean something to the server, not to a model. Its others begin with `triton_`."""


def read_request_parameters(request: Any) -> dict[str, Any]:
    """Return the parameters of a Triton request that are meant for the model, by name.

    Raises `InvalidValue`, naming `parameters`.
    """
    try:
        document = request.parameters()
        if document in ("", "{}"):
            return {}
        if len(document) > _MAX_CHARS:
            raise InvalidValue(f"They have {len(document)} characters; at most {_MAX_CHARS} are read.", "parameters")
        given = json.loads(document)
    except ValueError as error:  # over HTTP the bytes may be anything
        raise InvalidValue(f"They cannot be read: {error}.", "parameters") from None
    return {name: value for name, value in given.items() if not _is_reserved(name)}


def _is_reserved(name: str) -> bool:
    return name in _RESERVED_NAMES or name.startswith("triton_")
