"""Keys and values of the beginnings of prompts, kept for the next prompt that begins alike."""

import hashlib
import heapq
import itertools

from backends.llm.batching.model_runner import Logits, SavedKV
from backends.llm.engine import TokenIds


def hash_block(before: bytes, tokens: TokenIds) -> bytes:
    """The name of a part of a prompt: a digest of its tokens and of the name of the part before it."""
    return hashlib.blake2b(before + tokens.tobytes(), digest_size=16).digest()


class PrefixBlock:
    """What was saved of one part; `logits` after its last token where a prompt ended there."""

    __slots__ = ("block_hash", "last_used", "logits", "num_children", "parent", "saved")

    def __init__(self, name: bytes, parent: "PrefixBlock | None", saved: SavedKV) -> None:
        self.block_hash = name
        self.parent = parent
        self.saved = saved
        self.logits: Logits | None = None
        self.num_children = 0
        self.last_used = 0

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return self.saved.nbytes + (0 if self.logits is None else self.logits.nbytes)


class PrefixCache:
    """Parts of prompts by name. A beginning that many prompts share is kept once.

    What was not used for longest goes first, but no part goes before those behind it: without it they would be read
    in vain.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._blocks: dict[bytes, PrefixBlock] = {}
        self._clock = itertools.count(1)
        # Parts with nothing behind them, the one unused for longest on top. Old entries are passed over.
        self._leaves: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, name: bytes) -> bool:
        return name in self._blocks

    def get(self, name: bytes) -> PrefixBlock | None:
        """A part, which counts as used now."""
        part = self._blocks.get(name)
        if part:
            self._touch(part)
        return part

    def put(self, name: bytes, before: bytes, saved: SavedKV, logits: Logits | None) -> None:
        """Keep a part that follows the part named `before`; of one that is kept already, its logits are."""
        part = self._blocks.get(name)
        if part is None:
            part = self._blocks[name] = PrefixBlock(name, self._blocks.get(before), saved)
            if part.parent:
                part.parent.num_children += 1
            self.nbytes += part.nbytes
        if logits is not None and part.logits is None:
            part.logits = logits
            self.nbytes += logits.nbytes
        self._touch(part)

    def evict_to(self, nbytes: int, keep: bytes = b"") -> bool:
        """Drop parts until the rest takes no more than so many bytes.

        False where that would take the part named `keep`, before which nothing else that was used less lately is left.
        """
        while self.nbytes > max(0, nbytes):
            if not self._leaves:
                return False
            used, name = heapq.heappop(self._leaves)
            part = self._blocks.get(name)
            if part is None or part.last_used != used or part.num_children:
                continue
            if name == keep:
                heapq.heappush(self._leaves, (used, name))
                return False
            self._evict(part)
        return nbytes >= 0

    def clear(self) -> None:
        """Drop everything."""
        self._blocks.clear()
        self._leaves.clear()
        self.nbytes = 0

    def _evict(self, part: PrefixBlock) -> None:
        del self._blocks[part.block_hash]
        self.nbytes -= part.nbytes
        if part.parent:
            part.parent.num_children -= 1
            self._push_leaf(part.parent)

    def _touch(self, part: PrefixBlock) -> None:
        part.last_used = next(self._clock)
        self._push_leaf(part)

    def _push_leaf(self, part: PrefixBlock) -> None:
        if part.num_children:
            return
        heapq.heappush(self._leaves, (part.last_used, part.block_hash))
        if len(self._leaves) > 2 * len(self._blocks) + 64:
            self._leaves = [
                (part.last_used, part.block_hash) for part in self._blocks.values() if not part.num_children
            ]
            heapq.heapify(self._leaves)
