"""Linear layers in bfloat16 agree with float32, and keep the precision outside of their products."""

import torch

from training.common.mixed_precision import Bfloat16Linears


def test_products_and_gradients_are_close_to_float32() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 32), torch.randn(2, 5, 64, requires_grad=True)
    exact = layer(x)
    exact.square().sum().backward()
    expected = [x.grad, layer.weight.grad, layer.bias.grad]
    x.grad = None
    layer.zero_grad()
    with Bfloat16Linears():
        rounded = layer(x)
        assert torch.equal(x + x, 2 * x)
    rounded.square().sum().backward()
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02 * exact.abs().max()
    for gradient, right in zip([x.grad, layer.weight.grad, layer.bias.grad], expected, strict=True):
        assert 0 < (gradient - right).norm() < 0.01 * right.norm()
    assert torch.equal(layer(x), exact)


def test_inputs_without_a_gradient_get_none() -> None:
    layer = torch.nn.Linear(4, 4, bias=False)
    with Bfloat16Linears():
        layer(torch.randn(3, 4)).sum().backward()
    assert layer.weight.grad.dtype == torch.float32
