"""The KV cache in device memory: on the memory of the CPU, by the same graphs and bindings as on a GPU."""

import ctypes
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from backends.llm.model_loader import load_model
from backends.llm.ort import device_kv_cache, engine_loader
from backends.llm.ort.decoder_config import read_decoder_config
from backends.llm.ort.device_kv_cache import MOVED_TOKENS, DeviceKVCache
from backends.llm.ort.execution_device import CPU, ExecutionDevice
from backends.llm.ort.model_runner import OrtModelRunner
from backends.llm.ort.options import OnnxRuntimeOptions
from backends.serving.tokenizer import load_tokenizer

DEVICE_MEMORY = ExecutionDevice(has_device_memory=True)
TENSORS, SLOTS, HEADS, CONTEXT, HEAD_SIZE = 4, 3, 2, 1200, 16
TOKEN_BYTES = TENSORS * HEADS * HEAD_SIZE * 2  # in float16
PAGES = 10

Array = npt.NDArray[np.float16]


@pytest.fixture
def kv_cache() -> Iterator[DeviceKVCache]:
    cache = DeviceKVCache(
        TENSORS,
        SLOTS,
        HEADS,
        CONTEXT,
        HEAD_SIZE,
        np.float16,
        pool_bytes=PAGES * 16 * TOKEN_BYTES + 1,
        device=DEVICE_MEMORY,
    )
    yield cache
    cache.close()


def contents(cache: DeviceKVCache) -> list[Array]:
    """Return the memory of all slots of each tensor, [slots, heads, context, head size]: not copies."""
    shape = (SLOTS, *cache.shape(1)[1:])
    arrays: list[Array] = []
    for tensor in range(TENSORS):
        memory = (ctypes.c_char * (int(np.prod(shape)) * 2)).from_address(cache.address(tensor, 0))
        arrays.append(np.frombuffer(memoryview(memory), np.float16).reshape(shape))
    return arrays


def snapshot(cache: DeviceKVCache) -> Array:
    return np.stack(contents(cache))


def fill(cache: DeviceKVCache) -> Array:
    rng = np.random.default_rng(0)
    for array in contents(cache):
        array[...] = rng.random(array.shape)
    return snapshot(cache)


def test_graphs_are_valid_onnx() -> None:
    for graph in (device_kv_cache._transfer_graph(3, 2, 16, np.float16), device_kv_cache._allocation_graph(np.float32)):
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


def test_memory_begins_as_zeros_and_is_laid_out_for_the_model(kv_cache: DeviceKVCache) -> None:
    assert not snapshot(kv_cache).any()
    assert kv_cache.context == 1200 and kv_cache.shape(2) == [2, HEADS, 1200, HEAD_SIZE]
    assert kv_cache.address(1, 2) - kv_cache.address(1, 1) == HEADS * 1200 * HEAD_SIZE * 2
    assert kv_cache.kv_bytes(17) == 32 * TOKEN_BYTES


def test_copies_write_the_copied_tokens_alone(kv_cache: DeviceKVCache) -> None:
    expected = fill(kv_cache)
    kv_cache.copy(0, 2, 100, 100 + MOVED_TOKENS + 7)
    expected[:, 2, :, 100 : 100 + MOVED_TOKENS + 7] = expected[:, 0, :, 100 : 100 + MOVED_TOKENS + 7]
    np.testing.assert_array_equal(snapshot(kv_cache), expected)


@pytest.mark.parametrize("lengths", [(700, 1200), (1200, 700), (513, 0), (0, 513), (1, 1)])
def test_slots_are_swapped(kv_cache: DeviceKVCache, lengths: tuple[int, int]) -> None:
    before = fill(kv_cache)
    kv_cache.swap(0, 2, lengths)
    after = snapshot(kv_cache)
    np.testing.assert_array_equal(after[:, 2, :, : lengths[0]], before[:, 0, :, : lengths[0]])
    np.testing.assert_array_equal(after[:, 0, :, : lengths[1]], before[:, 2, :, : lengths[1]])
    np.testing.assert_array_equal(after[:, 1], before[:, 1])


def test_saved_blocks_are_kept_until_nothing_refers_to_them(kv_cache: DeviceKVCache) -> None:
    before = fill(kv_cache)
    first, second = kv_cache.save(0, 5, 5 + 65), kv_cache.save(1, 0, 16)  # five pages and one
    assert (first.nbytes, second.nbytes) == (80 * TOKEN_BYTES, 16 * TOKEN_BYTES)
    with pytest.raises(MemoryError):
        kv_cache.save(0, 0, 65)
    del second
    third = kv_cache.save(2, 10, 10 + 65)
    kv_cache.swap(0, 1, (1200, 1200))  # its place for moves is no page
    for slot, block, source, start in ((1, first, 0, 5), (2, third, 2, 10)):
        kv_cache.load(slot, 200, block)
        saved = before[:, source, :, start : start + 65]
        np.testing.assert_array_equal(snapshot(kv_cache)[:, slot, :, 200:265], saved)


@pytest.fixture
def texts(export, collect):
    """Return a function that starts an engine on the export for CUDA, and returns its answers and the engine."""

    def run(device, rounds=1, **options):
        folder = export("fp16", "cuda")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_loader, "device_of", lambda gpu: device)
            engine = load_model(folder, load_tokenizer(folder), OnnxRuntimeOptions(threads=1, **options)).engine
        rng = np.random.default_rng(5)
        trunk = rng.integers(3, 259, 500)
        requests = [np.concatenate([trunk[: 60 * number], rng.integers(3, 259, 30)]) for number in range(8)]
        found = []
        for _ in range(rounds):
            collectors = [
                collect(engine, prompt, max_tokens=20 + 10 * number, ignore_eos=True, n=1 + number % 2, seed=number)
                for number, prompt in enumerate(requests)
            ]
            found.append([collector.wait().texts for collector in collectors])
        engine.close()
        return found, engine

    return run


def test_device_memory_gives_the_same_answers_with_any_caches_and_slots(texts) -> None:
    expected, host = texts(CPU, rounds=2, max_rows=8, prefix_cache=0)
    assert host.stats.prefix_tokens_reused == 0
    for options in (
        {"max_rows": 8, "prefix_cache": 0},
        {"max_rows": 8, "kv_memory": 2**23},
        {"max_rows": 16, "kv_memory": 2**23, "prefix_cache": 2**16},  # a cache of 256 tokens, which is always full
        {"max_rows": 2, "kv_memory": 2**23},
    ):
        found, engine = texts(DEVICE_MEMORY, rounds=2, **({"kv_memory": 2**24} | options))
        assert found == expected
        assert engine.stats.preemptions == 0
        assert (engine.stats.prefix_tokens_reused > 1500) == (options.get("prefix_cache") is None)


def test_memory_decides_how_many_slots_there_are_and_how_long_they_are(export, caplog) -> None:
    def limits(kv_memory: int, prefix_cache: int | None = None) -> tuple[int, int]:
        config = read_decoder_config(export("fp16", "cuda"))
        runner = OrtModelRunner(
            config,
            max_rows=8,
            context_length=1000,
            threads=1,
            kv_memory=kv_memory,
            prefix_cache=prefix_cache,
            device=DEVICE_MEMORY,
        )
        assert runner.prefix_cache_bytes + runner.max_rows * runner.kv_bytes(runner.context_length) <= kv_memory
        runner.close()
        return runner.max_rows, runner.context_length

    token = 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, head size, float16
    with caplog.at_level("WARNING"):
        assert limits((8 * 1008 + MOVED_TOKENS) * token, prefix_cache=0) == (8, 1000)
        assert caplog.text == ""
        assert limits(4 * (3 * 1008 + 16 + MOVED_TOKENS) // 3 * token) == (3, 1000)
        assert "3 sequences of 1000 tokens" in caplog.text
        assert limits((500 + MOVED_TOKENS) * token, prefix_cache=0) == (1, 496)
    with pytest.raises(ValueError, match="The KV cache may take"):
        limits((100 + MOVED_TOKENS) * token, prefix_cache=0)
