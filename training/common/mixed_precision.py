"""Linear layers in bfloat16 on CPUs that multiply it faster than float32; weights and all sums stay in float32."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode


class Bfloat16Linears(TorchFunctionMode):  # type: ignore[misc]
    """Within this context, linear layers multiply in bfloat16, forward and backward, and return float32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace `F.linear`, and call every other function as it is."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    product = _Product.apply(x, weight)
    return product if bias is None else product + bias


class _Product(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        x16, weight16 = x.flatten(0, -2).bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x16, weight16)
        return (x16 @ weight16.T).float().unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, Any]:
        x16, weight16 = ctx.saved_tensors
        gradient16 = gradient.flatten(0, -2).bfloat16()
        to_x = (gradient16 @ weight16).float().unflatten(0, gradient.shape[:-1]) if ctx.needs_input_grad[0] else None
        to_weight = (gradient16.T @ x16).float() if ctx.needs_input_grad[1] else None
        return to_x, to_weight
