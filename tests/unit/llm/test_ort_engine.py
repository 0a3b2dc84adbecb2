"""The engine on a real export: a tiny Llama with random weights."""

import mmap
import random
import time
from pathlib import Path

import numpy as np
import pytest

from backends.llm.model_loader import load_model
from backends.llm.ort import engine_loader
from backends.llm.ort.decoder_config import read_decoder_config
from backends.llm.ort.execution_device import CPU, ExecutionDevice
from backends.llm.ort.kv_cache import KVCache
from backends.llm.ort.model_runner import OrtModelRunner
from backends.llm.ort.options import OnnxRuntimeOptions
from backends.serving.tokenizer import load_tokenizer

DEVICE_MEMORY = ExecutionDevice(has_device_memory=True)
"""The CPU, with the KV cache of a GPU."""
ENGINES = [("fp32", "cpu", CPU), ("int8", "cpu", CPU), ("fp16", "cuda", DEVICE_MEMORY)]


@pytest.fixture(scope="module", params=ENGINES, ids=["fp32", "int8", "cuda"])
def engine(request, export):
    precision, target, device = request.param
    folder = export(precision, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_loader, "device_of", lambda gpu: device)
        options = OnnxRuntimeOptions(max_rows=16, threads=2, kv_memory=2**26)
        engine = load_model(folder, load_tokenizer(folder), options).engine
    yield engine
    engine.close()


@pytest.fixture(params=[CPU, DEVICE_MEMORY], ids=["host", "device"])
def runner(request, export):
    runner = OrtModelRunner(
        read_decoder_config(export("fp32")),
        max_rows=4,
        context_length=1024,
        threads=2,
        kv_memory=2**26,
        device=request.param,
    )
    yield runner
    runner.close()


def prompts(count, seed=5):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 259, rng.integers(1, 300)) for _ in range(count)]


def test_greedy_answers_in_a_batch_equal_those_alone(engine, collect):
    rng = random.Random(1)
    requests = [(prompt, rng.randrange(5, 60)) for prompt in prompts(32)]
    alone = [collect(engine, prompt, max_tokens=count, ignore_eos=True).wait().texts for prompt, count in requests]
    collectors = []
    for prompt, count in requests:
        collectors.append(collect(engine, prompt, max_tokens=count, ignore_eos=True))
        time.sleep(rng.random() * 0.004)
    assert [collector.wait().texts for collector in collectors] == alone
    assert len({texts[0] for texts in alone}) > 25  # the model's answers do differ


def test_seed_gives_the_same_text_in_any_batch(engine, collect):
    options = {"temperature": 1.5, "top_p": 0.95, "top_k": 100, "max_tokens": 40, "ignore_eos": True}
    prompt, *others = prompts(12)
    alone = collect(engine, prompt, seed=3, n=2, **options).wait().texts
    others_running = [collect(engine, other, **options) for other in others]
    batched = collect(engine, prompt, seed=3, n=2, **options).wait().texts
    assert batched == alone and alone[0] != alone[1]
    assert collect(engine, prompt, seed=4, **options).wait().texts == alone[1:]
    for collector in others_running:
        collector.wait()


def test_chunked_prefill_gives_the_logits_of_a_whole_prefill(runner):
    prompt = np.resize(prompts(1)[0], 300)
    whole = runner.prefill(0, prompt, 0)
    for size in (32, 100, 299):
        for start in range(0, 300, size):
            chunked = runner.prefill(1, prompt[start : start + size], start)
        np.testing.assert_allclose(chunked, whole, atol=1e-3)
        assert chunked.argmax() == whole.argmax()


def test_copied_slot_decodes_as_its_source(runner):
    prompt = prompts(1)[0]
    token = runner.prefill(0, prompt, 0).argmax()
    runner.copy(0, 2, 0, len(prompt))
    step = [np.array([token]), np.array([len(prompt)])]
    logits_of_copy = runner.decode(*step, first_slot=2).copy()
    np.testing.assert_array_equal(logits_of_copy, runner.decode(*step, first_slot=0))


def test_eos_tokens_of_both_files_are_merged(export):
    config = read_decoder_config(export("fp32"))
    assert config.eos == {1, 2} and config.bos == 0 and config.context_length == 1024


def test_chunk_sizes_shrink_with_past_tokens(runner):
    sizes = [runner.chunk_size(past) for past in (0, 2000, 8000, 100_000)]
    assert sizes == sorted(sizes, reverse=True) and all(size >= 16 and size & (size - 1) == 0 for size in sizes)


def resident_bytes(kv_cache):
    """Return the bytes of the cache's pages that exist, in memory or swapped out. Other memory does not count.

    Source: Documentation/admin-guide/mm/pagemap.rst of Linux; of each page, bit 63 says present, bit 62 swapped.
    """
    first, last = kv_cache.address(0, 0) // mmap.PAGESIZE, kv_cache.address(kv_cache.tensors, 0) // mmap.PAGESIZE
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        pagemap.seek(first * 8)
        pages = np.frombuffer(pagemap.read((last - first) * 8), np.uint64)
    return int(np.count_nonzero(pages >> np.uint64(62))) * mmap.PAGESIZE


def test_kv_cache_pages_are_allocated_on_use_and_freed_on_release():
    kv_cache = KVCache(tensors=20, num_slots=16, heads=4, context=8192, head_size=64, dtype=np.float32)
    view = kv_cache._array
    assert view.nbytes > 2.5e9 and resident_bytes(kv_cache) == 0
    view[:, 3, :, :6000] = 1.0
    used = kv_cache.kv_bytes(6000)
    assert used == 20 * 4 * 6000 * 64 * 4 and resident_bytes(kv_cache) == used  # so there are no huge pages
    kv_cache.copy(3, 5, 0, 500)
    assert resident_bytes(kv_cache) == used + kv_cache.kv_bytes(500)
    assert (view[:, 5, :, :500] == 1).all() and (view[0, 5, 0, 500:600] == 0).all()
    kv_cache.release(3)
    kv_cache.release(5)
    assert resident_bytes(kv_cache) == 0
    assert view[0, 3, 0, 0, 0] == 0
    del view
    kv_cache.close()


def test_context_is_rounded_up_to_whole_pages():
    kv_cache = KVCache(tensors=2, num_slots=2, heads=3, context=100, head_size=16, dtype=np.float16)
    assert (
        kv_cache.context == 128
        and kv_cache.shape(2) == [2, 3, 128, 16]
        and kv_cache.kv_bytes(65) == 128 * 2 * 3 * 16 * 2
    )
    assert kv_cache.address(1, 1) - kv_cache.address(1, 0) == 3 * 128 * 16 * 2
    kv_cache.close()


@pytest.mark.parametrize("missing", ["genai_config.json", "model.onnx", "tokenizer.json"])
def test_missing_file_is_named(export, tmp_path, missing):
    for path in Path(export("fp32")).iterdir():
        if path.name != missing:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(FileNotFoundError, match=missing):
        load_model(tmp_path, load_tokenizer(tmp_path), OnnxRuntimeOptions())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("genai_config.json", "{}"),
        ("genai_config.json", "nonsense"),
        ("tokenizer.json", "{}"),
        ("genai_config.json", "[]"),
    ],
)
def test_broken_file_is_named(export, tmp_path, name, content):
    for path in Path(export("fp32")).iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        load_model(tmp_path, load_tokenizer(tmp_path), OnnxRuntimeOptions())
