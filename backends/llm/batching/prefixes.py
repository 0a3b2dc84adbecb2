"""Keys and values of the beginnings of prompts, kept for the next prompt that begins alike."""

import hashlib
import heapq
import itertools

from backends.llm.batching.forward import Logits, Saved
from backends.llm.engine import Tokens


def chain(before: bytes, tokens: Tokens) -> bytes:
    """The name of a part of a prompt: a digest of its tokens and of the name of the part before it."""
    return hashlib.blake2b(before + tokens.tobytes(), digest_size=16).digest()


class Part:
    """What was saved of one part; `logits` after its last token where a prompt ended there."""

    __slots__ = ("children", "logits", "name", "parent", "saved", "used")

    def __init__(self, name: bytes, parent: "Part | None", saved: Saved) -> None:
        self.name = name
        self.parent = parent
        self.saved = saved
        self.logits: Logits | None = None
        self.children = 0
        self.used = 0

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return self.saved.nbytes + (0 if self.logits is None else self.logits.nbytes)


class Prefixes:
    """Parts of prompts by name. A beginning that many prompts share is kept once.

    What was not used for longest goes first, but no part goes before those behind it: without it they would be read
    in vain.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._parts: dict[bytes, Part] = {}
        self._clock = itertools.count(1)
        # Parts with nothing behind them, the one unused for longest on top. Old entries are passed over.
        self._ends: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: bytes) -> bool:
        return name in self._parts

    def get(self, name: bytes) -> Part | None:
        """A part, which counts as used now."""
        part = self._parts.get(name)
        if part:
            self._touch(part)
        return part

    def put(self, name: bytes, before: bytes, saved: Saved, logits: Logits | None) -> None:
        """Keep a part that follows the part named `before`; of one that is kept already, its logits are."""
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = Part(name, self._parts.get(before), saved)
            if part.parent:
                part.parent.children += 1
            self.nbytes += part.nbytes
        if logits is not None and part.logits is None:
            part.logits = logits
            self.nbytes += logits.nbytes
        self._touch(part)

    def shrink(self, nbytes: int, keep: bytes = b"") -> bool:
        """Drop parts until the rest takes no more than so many bytes.

        False where that would take the part named `keep`, before which nothing else that was used less lately is left.
        """
        while self.nbytes > max(0, nbytes):
            if not self._ends:
                return False
            used, name = heapq.heappop(self._ends)
            part = self._parts.get(name)
            if part is None or part.used != used or part.children:
                continue
            if name == keep:
                heapq.heappush(self._ends, (used, name))
                return False
            self._drop(part)
        return nbytes >= 0

    def clear(self) -> None:
        """Drop everything."""
        self._parts.clear()
        self._ends.clear()
        self.nbytes = 0

    def _drop(self, part: Part) -> None:
        del self._parts[part.name]
        self.nbytes -= part.nbytes
        if part.parent:
            part.parent.children -= 1
            self._touch_end(part.parent)

    def _touch(self, part: Part) -> None:
        part.used = next(self._clock)
        self._touch_end(part)

    def _touch_end(self, part: Part) -> None:
        if part.children:
            return
        heapq.heappush(self._ends, (part.used, part.name))
        if len(self._ends) > 2 * len(self._parts) + 64:
            self._ends = [(part.used, part.name) for part in self._parts.values() if not part.children]
            heapq.heapify(self._ends)
