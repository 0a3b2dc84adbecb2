"""The parameters of Triton's protocol that came with a request, beside its tensors.

They are strings, numbers and flags by name: `parameters` of a gRPC request, and what `/generate` finds in its JSON
beyond the names of inputs.
"""

import json
from typing import Any

from backends.serving.errors import InvalidValue

_MAX_CHARS = 1 << 20
"""Characters. Reading as much takes some 10 ms, during which no token is chosen."""

_RESERVED_NAMES = frozenset(
    {"id", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "binary_data_output"}
)
"""What the protocol means by these is no matter of a model's. Its other names begin with the server's own."""


def read_request_parameters(request: Any) -> dict[str, Any]:
    """Those of one Triton request that are meant for the model. Raises `InvalidValue`, naming `parameters`."""
    try:
        document = request.parameters()
        if document in ("", "{}"):
            return {}
        if len(document) > _MAX_CHARS:
            raise InvalidValue(f"They have {len(document)} characters; at most {_MAX_CHARS} are read.", "parameters")
        given = json.loads(document)
    except ValueError as error:  # over HTTP any bytes may come
        raise InvalidValue(f"They cannot be read: {error}.", "parameters") from None
    return {name: value for name, value in given.items() if not _is_reserved(name)}


def _is_reserved(name: str) -> bool:
    return name in _RESERVED_NAMES or name.startswith("triton_")
