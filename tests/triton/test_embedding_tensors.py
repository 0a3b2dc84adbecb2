"""The embedding tensors of docs/architecture.md: Triton's client and the default model, without the gateway."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as client

from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

NAME = "all-minilm-l6-v2"
TYPES = {"text": "BYTES", "purpose": "BYTES", "truncate": "BOOL"}
TEXTS = ["guitar", "A musical instrument with six strings.", "Stocks fell.", "żółć 漢字 😀 " * 20, ""]

Rows = tuple[Any, list[int]]


def tensor(name: str, value: Any) -> client.InferInput:
    kind = TYPES.get(name, "INT32")
    if kind == "BYTES":
        array = np.array([text.encode() for text in value], np.object_)
    else:
        array = np.array(value, bool if kind == "BOOL" else np.int32)
    made = client.InferInput(name, array.shape, kind)
    made.set_data_from_numpy(array)
    return made


@pytest.fixture
def infer(embedding_triton: EmbeddedTriton) -> Iterator[Callable[..., Rows]]:
    received: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with client.InferenceServerClient(embedding_triton.grpc_url) as server:
        server.start_stream(lambda result, error: received.put((result, error)))

        def send(model: str = NAME, parameters: dict[str, Any] | None = None, **tensors: Any) -> Rows:
            inputs = [tensor(name, value) for name, value in tensors.items()]
            server.async_stream_infer(model, inputs, parameters=parameters, enable_empty_final_response=True)
            result, error = received.get(timeout=60)
            if error is not None:
                raise error
            assert result.get_response().parameters["triton_final_response"].bool_param, "one response and no more"
            return result.as_numpy("embedding"), result.as_numpy("num_tokens").tolist()

        yield send


@pytest.fixture(scope="module")
def reference() -> Any:
    from sentence_transformers import SentenceTransformer

    from builders.progress import NullProgress
    from builders.sources import resolve

    folder = resolve("packaged:all-minilm-l6-v2").fetch(Path(), NullProgress()).folder
    return SentenceTransformer(str(folder), device="cpu")


def test_rows_are_those_of_sentence_transformers(infer: Callable[..., Rows], reference: Any) -> None:
    rows, counts = infer(text=TEXTS)
    assert rows.dtype == np.float32
    assert np.abs(rows - reference.encode(TEXTS)).max() < 1e-4
    assert counts == [len(reference.tokenizer(text)["input_ids"]) for text in TEXTS]


def test_a_network_in_a_model_of_its_own_gives_the_same_rows(infer: Callable[..., Rows]) -> None:
    texts = ["one", "two", "three", "four", "five", "six words are in this text", *TEXTS]
    rows, counts = infer("split", text=texts)
    expected, expected_counts = infer(text=texts)
    assert counts == expected_counts
    assert np.abs(rows - expected).max() < 1e-5


def test_token_ids_are_not_changed(infer: Callable[..., Rows], reference: Any) -> None:
    lists = [reference.tokenizer(text)["input_ids"] for text in TEXTS]
    rows, counts = infer(
        token_ids=[token for each in lists for token in each], token_counts=[len(each) for each in lists]
    )
    assert counts == [len(each) for each in lists]
    assert np.abs(rows - infer(text=TEXTS)[0]).max() < 1e-6
    assert np.abs(infer(token_ids=lists[0])[0] - rows[:1]).max() < 1e-6


def test_a_long_text_is_refused_or_truncated_on_request(infer: Callable[..., Rows], reference: Any) -> None:
    long = ["short", "word " * 400]
    with pytest.raises(Exception, match=r"\[context_length_exceeded:text\] Input 1 has 402 tokens"):
        infer(text=long)
    rows, counts = infer(text=long, truncate=[True])
    assert counts == [3, 256]
    assert np.abs(rows - reference.encode(long)).max() < 1e-4


def test_truncate_prompt_tokens(infer: Callable[..., Rows], reference: Any) -> None:
    texts = ["short", "guitar " * 400]
    rows, counts = infer(text=texts, truncate_prompt_tokens=[10])
    assert counts == [3, 10]
    assert np.abs(rows - reference.encode(["short", "guitar " * 8])).max() < 1e-4
    for tokens in (0, 257):
        with pytest.raises(Exception, match=r"\[invalid_value:truncate_prompt_tokens\]"):
            infer(text=texts, truncate_prompt_tokens=[tokens])
    rows, counts = infer("nested", text=texts)  # its parameter says so
    assert counts == [3, 20]
    with pytest.raises(Exception, match=r"\[context_length_exceeded:text\]"):
        infer("nested", text=texts, truncate=[False])


def test_dimensions_and_purposes(infer: Callable[..., Rows], reference: Any) -> None:
    with pytest.raises(Exception, match=r"\[unsupported_option:dimensions\]"):
        infer(text=["a"], dimensions=[64])
    whole, _ = infer("nested", text=["a"])
    cut, _ = infer("nested", text=["a"], dimensions=[64])
    assert cut.shape == (1, 64)
    assert np.allclose(cut[0], whole[0, :64] / np.linalg.norm(whole[0, :64]), atol=1e-6)
    with_purpose, _ = infer("nested", text=["a"], purpose=["query"])
    assert np.abs(with_purpose - reference.encode(["q: a"])).max() < 1e-4
    assert np.abs(infer("nested", text=["a"], purpose=["document"])[0] - whole).max() < 1e-6


def test_request_parameters_stand_in_for_absent_tensors(infer: Callable[..., Rows]) -> None:
    cut, _ = infer("nested", {"dimensions": 64, "purpose": "query"}, text=["a"])
    assert np.array_equal(cut, infer("nested", text=["a"], dimensions=[64], purpose=["query"])[0])
    assert infer(parameters={"truncate": "true"}, text=["word " * 400])[1] == [256]
    with pytest.raises(Exception, match=r"\[unsupported_option:dimension\]"):
        infer("nested", {"dimension": 64}, text=["a"])


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({}, r"\[invalid_value:text\]"),
        ({"text": ["a"], "token_ids": [101]}, r"\[invalid_value:text\]"),
        ({"text": []}, r"\[invalid_value:text\]"),
        ({"token_ids": [40_000]}, r"\[invalid_value:token_ids\] .*30522"),
        ({"token_ids": [101], "token_counts": [2]}, r"\[invalid_value:token_counts\]"),
        ({"text": ["a"], "purpose": ["rhyme"]}, r"\[invalid_value:purpose\]"),
        ({"text": ["a"], "dimensions": [1, 2]}, r"invalid_value:dimensions|unexpected shape"),
    ],
)
def test_invalid_tensors_are_refused_and_the_next_request_is_served(
    infer: Callable[..., Rows], tensors: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        infer(**tensors)
    assert infer(text=["still here"])[0].shape == (1, 384)


def test_a_disconnect_frees_the_queue_of_texts(embedding_triton: EmbeddedTriton, infer: Callable[..., Rows]) -> None:
    """Thousands of long texts on one thread: after a disconnect they leave the queue within moments."""
    many = ["word " * 250] * 2000

    def waiting() -> float:
        text = httpx.get(embedding_triton.metrics_url, trust_env=False).text
        found = [line for line in text.splitlines() if line.startswith('embedding_texts_waiting{model="nested"}')]
        return float(found[0].rsplit(" ", 1)[1])

    def until(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{waiting()} texts still wait"
            time.sleep(0.01)

    client_that_disconnects = client.InferenceServerClient(embedding_triton.grpc_url)
    client_that_disconnects.start_stream(lambda result, error: None)
    client_that_disconnects.async_stream_infer("nested", [tensor("text", many)])
    until(lambda: waiting() > 1000, 30)
    client_that_disconnects.stop_stream(cancel_requests=True)
    until(lambda: waiting() == 0, 5)
    client_that_disconnects.close()
    assert infer("nested", text=["next"])[0].shape == (1, 384)
