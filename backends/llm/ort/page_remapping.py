"""Move memory by remapping its pages (Linux `mremap`), without copying it."""

import ctypes
import mmap
import os
from collections.abc import Sequence

# mremap(2): move to a given address and unmap what is there; the old range stays mapped and becomes empty (Linux 5.7).
_MAYMOVE, _FIXED, _DONTUNMAP = 1, 2, 4
# mmap(2): PROT_READ and PROT_WRITE; MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS and MAP_NORESERVE.
_READ_WRITE, _EMPTY = 1 | 2, 0x2 | 0x10 | 0x20 | 0x4000
_FAILED = ctypes.c_void_p(-1).value


def remap_pages(addresses: Sequence[tuple[int, int]], size: int) -> bool:
    """Move `size` bytes of private anonymous memory from each first address to the second.

    The first range is then empty, and the old contents of the second are lost. Return false, with nothing moved, if the
    system cannot remap pages. Raises `OSError` if only some ranges were moved; the call must not be repeated then.
    """
    libc = _libc()
    mremap = getattr(libc, "mremap", None)
    if mremap is None:
        return False
    mremap.restype = ctypes.c_void_p
    mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    for number, (source, target) in enumerate(addresses):
        if mremap(source, size, size, _MAYMOVE | _FIXED | _DONTUNMAP, target) == _FAILED:
            error = ctypes.get_errno()
            _restore_mapping(libc, target, size)
            if number == 0:
                return False
            raise OSError(error, f"A slot could not be moved: {os.strerror(error)}")
    return True


def _restore_mapping(libc: ctypes.CDLL, address: int, size: int) -> None:
    """Map the target of a failed move again: a late failure has unmapped it, and touching it would end the process."""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    if libc.mmap(address, size, _READ_WRITE, _EMPTY, -1, 0) == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, f"The memory of a slot could not be mapped again: {os.strerror(error)}")
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # like the memory around it
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_NOHUGEPAGE)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
