"""Calls to other models of the same Triton server, which Triton names business logic scripting (BLS)."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from backends.serving.errors import EngineFailed, GenerationError, Unavailable

_NOT_READY = "not ready"
"""Part of Triton's messages `Server not ready`, once it is stopping, and `Model x is not ready`. No code says so."""

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]


class TritonComponents:
    """Calls the models that are components of another one (a text encoder, a denoiser) in the same Triton, by BLS.

    A call costs about half a millisecond.
    """

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str]) -> dict[str, Array]:
        """Call a model, wait for it without Python's global lock, and return the named outputs.

        The first dimension of every input and output is the batch. Raises `Unavailable` if the server is stopping or
        the component is not ready, and `EngineFailed`, each with a sentence that names the component.
        """
        # Triton requires a dimension besides that of the batch; the components remove it.
        tensors = [pb_utils.Tensor(key, value if value.ndim > 1 else value[:, None]) for key, value in inputs.items()]
        request = pb_utils.InferenceRequest(
            model_name=name,
            requested_output_names=list(outputs),
            inputs=tensors,
            # A component on a GPU would return its outputs in GPU memory, which numpy cannot read.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        )
        try:
            response = request.exec()
        except Exception as error:
            raise _component_error(f"The component {name} could not be called: {str(error)[:500]}") from None
        if not response.has_error():
            return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        message = f"The component {name} failed: {response.error().message()[:500]}"
        # An exception keeps the local variables of this frame alive, and the server cannot unload a model while one of
        # its responses is alive.
        del request, response, tensors
        raise _component_error(message)


def _component_error(message: str) -> GenerationError:
    return Unavailable(message) if _NOT_READY in message else EngineFailed(message)
