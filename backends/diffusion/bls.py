"""Components that are other models of the same Triton server: business logic scripting."""

from collections.abc import Sequence

import triton_python_backend_utils as pb_utils

from backends.diffusion.components import Array, Arrays
from backends.serving.errors import EngineFailed


class TritonComponents:
    """`backends.diffusion.components.Components`, within the server. A call costs about half a millisecond."""

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str]) -> dict[str, Array]:
        """Call a model and wait for it, without Python's lock."""
        # Triton wants a dimension beside that of the batch; the components take it off again.
        tensors = [pb_utils.Tensor(key, value if value.ndim > 1 else value[:, None]) for key, value in inputs.items()]
        request = pb_utils.InferenceRequest(
            model_name=name,
            requested_output_names=list(outputs),
            inputs=tensors,
            # A component on a GPU would leave them there, where numpy cannot read them.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        )
        try:
            response = request.exec()
        except Exception as error:
            raise EngineFailed(f"The component {name} could not be asked: {str(error)[:500]}") from None
        if not response.has_error():
            return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        sentence = f"The component {name} failed: {response.error().message()[:500]}"
        # What an error is raised with lives as long as the error, and a response that lives keeps the server from
        # unloading its model.
        del request, response, tensors
        raise EngineFailed(sentence)
