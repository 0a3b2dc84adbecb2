"""The prefix cache: keys and values of prompt prefixes, reused by later prompts that begin with the same tokens.

A block is one chunk of a prompt. Its hash covers its own tokens and all before them, so equal hashes mean equal
prefixes. Only prompts are cached, never generated tokens. The cache knows nothing of slots: `PrefillScheduler` copies
blocks in and out of them.
"""

import hashlib
import heapq
import itertools

from backends.llm.batching.model_runner import Logits, SavedKV
from backends.llm.engine import TokenIds


def hash_block(parent_hash: bytes, tokens: TokenIds) -> bytes:
    """Return the hash of a block, 16 bytes, from its tokens int64[n] and the hash of the block before (b"" if none)."""
    return hashlib.blake2b(parent_hash + tokens.tobytes(), digest_size=16).digest()


class PrefixBlock:
    """The saved keys and values of one block. If a prompt ended with it, `logits` are those after its last token."""

    __slots__ = ("block_hash", "last_used", "logits", "num_children", "parent", "saved")

    def __init__(self, block_hash: bytes, parent: "PrefixBlock | None", saved: SavedKV) -> None:
        self.block_hash = block_hash
        self.parent = parent
        self.saved = saved
        self.logits: Logits | None = None
        self.num_children = 0
        self.last_used = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, values and logits."""
        return self.saved.nbytes + (0 if self.logits is None else self.logits.nbytes)


class PrefixCache:
    """Blocks by hash. A prefix that several prompts share is stored once.

    The least recently used block is evicted first, but never before the blocks that follow it: without their parent
    they could not be reached.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._blocks: dict[bytes, PrefixBlock] = {}
        self._clock = itertools.count(1)
        # A heap of (last_used, hash) of the blocks without children. Entries that are out of date are skipped.
        self._leaves: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self._blocks

    def get(self, block_hash: bytes) -> PrefixBlock | None:
        """Return a block and mark it as used now; None if it is not cached."""
        block = self._blocks.get(block_hash)
        if block:
            self._touch(block)
        return block

    def put(self, block_hash: bytes, parent_hash: bytes, saved: SavedKV, logits: Logits | None) -> None:
        """Add a block that follows the block `parent_hash`. If it is cached already, only missing logits are added."""
        block = self._blocks.get(block_hash)
        if block is None:
            block = self._blocks[block_hash] = PrefixBlock(block_hash, self._blocks.get(parent_hash), saved)
            if block.parent:
                block.parent.num_children += 1
            self.nbytes += block.nbytes
        if logits is not None and block.logits is None:
            block.logits = logits
            self.nbytes += logits.nbytes
        self._touch(block)

    def evict_to(self, nbytes: int, keep: bytes = b"") -> bool:
        """Evict blocks until the rest takes no more than `nbytes`. Return whether that succeeded.

        Return False before the block `keep` would be evicted.
        """
        while self.nbytes > max(0, nbytes):
            if not self._leaves:
                return False
            used, block_hash = heapq.heappop(self._leaves)
            block = self._blocks.get(block_hash)
            if block is None or block.last_used != used or block.num_children:
                continue
            if block_hash == keep:
                heapq.heappush(self._leaves, (used, block_hash))
                return False
            self._evict(block)
        return nbytes >= 0

    def clear(self) -> None:
        """Evict all blocks."""
        self._blocks.clear()
        self._leaves.clear()
        self.nbytes = 0

    def _evict(self, block: PrefixBlock) -> None:
        del self._blocks[block.block_hash]
        self.nbytes -= block.nbytes
        if block.parent:
            block.parent.num_children -= 1
            self._push_leaf(block.parent)

    def _touch(self, block: PrefixBlock) -> None:
        block.last_used = next(self._clock)
        self._push_leaf(block)

    def _push_leaf(self, block: PrefixBlock) -> None:
        if block.num_children:
            return
        heapq.heappush(self._leaves, (block.last_used, block.block_hash))
        if len(self._leaves) > 2 * len(self._blocks) + 64:
            self._leaves = [
                (block.last_used, block.block_hash) for block in self._blocks.values() if not block.num_children
            ]
            heapq.heapify(self._leaves)
