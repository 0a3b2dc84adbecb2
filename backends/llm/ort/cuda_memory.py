"""The free memory of a GPU, from the driver's own library: onnxruntime does not tell it."""

import ctypes

_LIBRARY = "libcuda.so.1"


def free_memory(number: int) -> int:
    """Return the free bytes of the GPU with this number, among those that the process sees.

    Raises `ValueError` if the driver does not tell it.
    """
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise ValueError(f"{_LIBRARY}, a part of NVIDIA's driver, cannot be loaded: {error}.") from error
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _check(cuda.cuInit(0), number)
    _check(cuda.cuDeviceGet(ctypes.byref(device), number), number)
    # The context that the CUDA runtime of onnxruntime uses too.
    _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), number)
    try:
        _check(cuda.cuCtxPushCurrent_v2(context), number)
        try:
            _check(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), number)
        finally:
            cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)
    return free.value


def _check(status: int, number: int) -> None:
    if status != 0:
        raise ValueError(
            f"The driver does not tell the free memory of GPU {number} (CUDA error {status}): set kv_memory."
        )
