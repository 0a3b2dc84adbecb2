"""Moving memory by its page tables, without a copy."""

import ctypes
import os
from collections.abc import Sequence

# mremap(2): to a place that is given, where what is there now is unmapped; the old place stays mapped, and is empty
# (Linux 5.7).
_MAYMOVE, _FIXED, _DONTUNMAP = 1, 2, 4
_FAILED = ctypes.c_void_p(-1).value


def move_pages(addresses: Sequence[tuple[int, int]], size: int) -> bool:
    """Move `size` bytes of private anonymous memory from each first address to the second; the first is then empty.

    False, with nothing moved, where the system cannot. Raises `OSError` where only some could be moved.
    """
    mremap = getattr(_libc(), "mremap", None)
    if mremap is None:
        return False
    mremap.restype = ctypes.c_void_p
    mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    for number, (source, target) in enumerate(addresses):
        if mremap(source, size, size, _MAYMOVE | _FIXED | _DONTUNMAP, target) == _FAILED:
            if number == 0:
                return False
            error = ctypes.get_errno()
            raise OSError(error, f"A row could not be moved: {os.strerror(error)}")
    return True


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
