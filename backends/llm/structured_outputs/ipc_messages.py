"""The protocol between the model's process and a grammar process, in packets over Unix sockets.

Each structure has one channel. Its process sends `STARTED` with its id and its size, then `COMPILED` with the first
mask, or `REJECTED` with the reason. After that, each packet to it carries the channel of a new answer.

An answer's channel carries tokens to the process. It replies to each with `TOKEN_ACCEPTED` and then `MASK`, with
`COMPLETE`, or with `FAILED` and the reason. A mask has a bit for each token of the vocabulary, 1 if it may come next.
"""

import struct

STARTED = b"B"
COMPILED = b"+"
REJECTED = b"-"

TOKEN_ACCEPTED = b"o"
COMPLETE = b"c"
MASK = b"m"
FAILED = b"f"

PROCESS_INFO = struct.Struct("<IQ")
"""After `STARTED`: the id of the process, and its resident bytes."""
TOKEN = struct.Struct("<I")
COMPILE_REQUEST = struct.Struct("<16sfB")
"""To the fork server: the kind of the structure, the processor seconds for compiling, and the niceness."""

MAX_REASON = 500
"""Characters of a reason."""


def max_packet_bytes(vocab_size: int) -> int:
    """Return the size of the longest packet in bytes."""
    return vocab_size // 8 + 4 * MAX_REASON + 64
