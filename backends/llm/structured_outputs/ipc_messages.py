"""What the model's process and the process of a structure say to each other, in packets.

Each structure has one channel. Its process says `BEGUN` with its id and its size, then `TAKEN` with the first
mask, or `REFUSED` with the reason. After that each packet to it carries the channel of a new answer.

Over the channel of an answer go tokens; each is answered by `ON` and then `MASK`, by `COMPLETE`, or by `FAILED` with
the reason. A mask has a bit for each token of the vocabulary, 1 where it may come next.
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
"""After `BEGUN`: the id of the process, and the bytes it has in memory."""
TOKEN = struct.Struct("<I")
COMPILE_REQUEST = struct.Struct("<16sfB")
"""To the fork server: the kind of the structure, the seconds for compiling, and how much less urgent it is."""

MAX_REASON = 500


def max_packet_bytes(vocab_size: int) -> int:
    """The bytes of the longest packet."""
    return vocab_size // 8 + 4 * MAX_REASON + 64
