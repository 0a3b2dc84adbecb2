"""The errors of components that Triton calls for a pipeline."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.serving.errors import EngineFailed, GenerationError, Unavailable
from tests.fakes.triton_backend import install_triton_module

install_triton_module()

from backends.serving import bls  # noqa: E402 (it needs that module)


def components_that_answer(monkeypatch: pytest.MonkeyPatch, error: str, *, raised: bool) -> bls.TritonComponents:
    def execute() -> Any:
        if raised:
            raise RuntimeError(error)
        return SimpleNamespace(has_error=lambda: True, error=lambda: SimpleNamespace(message=lambda: error))

    triton = SimpleNamespace(
        Tensor=lambda name, array: (name, array),
        InferenceRequest=lambda **arguments: SimpleNamespace(exec=execute),
        PreferredMemory=lambda kind: kind,
        TRITONSERVER_MEMORY_CPU=0,
    )
    monkeypatch.setattr(bls, "pb_utils", triton)
    return bls.TritonComponents()


@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("Model shapes-denoiser - Error when running inference: Server not ready", Unavailable),
        ("Failed to run: Model 'shapes-denoiser' is not ready.", Unavailable),
        ("out of memory", EngineFailed),
    ],
)
def test_a_component_of_a_stopping_server_is_unavailable_and_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, error: str, kind: type[GenerationError], raised: bool
) -> None:
    components = components_that_answer(monkeypatch, error, raised=raised)
    with pytest.raises(kind, match="shapes-denoiser") as caught:
        components.run("shapes-denoiser", {"sample": np.zeros((1, 4))}, ["noise"])
    assert type(caught.value) is kind
