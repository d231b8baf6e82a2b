"""Our layers: values and gradients of torch, in both precisions, on any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from robustvae.models import layers


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


TRANSPOSED = (layers.ConvTranspose2d, nn.ConvTranspose2d)
LAYERS: dict[str, tuple[tuple[type[nn.Module], type[nn.Module]], dict[str, int | bool]]] = {
    "convolution": (
        (layers.Conv2d, nn.Conv2d),
        {"out_channels": 4, "stride": 2, "padding": 1},
    ),
    "transposed": (
        TRANSPOSED,
        {"out_channels": 4, "stride": 2, "padding": 1, "output_padding": 1, "bias": False},
    ),
    "to one map": (
        TRANSPOSED,
        {"out_channels": 1, "stride": 2, "padding": 1, "output_padding": 1},
    ),
    "to one map, unstrided": (TRANSPOSED, {"out_channels": 1}),
}


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize(("half", "far"), [(False, 1e-5), (True, 0.03)], ids=["single", "half"])
@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_gradients_are_torchs(
    kind: str, half: bool, far: float, batch: int, threads: int
) -> None:
    (own, usual), how = LAYERS[kind]
    torch.manual_seed(0)
    layer, reference = own(3, kernel_size=3, **how), usual(3, kernel_size=3, **how)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(batch, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    found = []
    for net, cast in ((layer, half), (reference, False)):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            out = net(given)
        out.float().square().sum().backward()
        found.append([out.float(), given.grad, *(p.grad for p in net.parameters())])
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == torch.float32
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() < far * theirs.abs().max()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", LAYERS)
def test_a_fixed_layer_still_passes_gradients_on(kind: str) -> None:
    (own, _), how = LAYERS[kind]
    torch.manual_seed(0)
    layer, x = own(3, kernel_size=3, **how), torch.randn(2, 3, 8, 8)
    found = []
    for learns in (True, False):
        given = x.clone().requires_grad_()
        layer.requires_grad_(learns)(given).square().sum().backward()
        found.append(given.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)  # torch multiplies another way
    layer.zero_grad()
    layer(x.requires_grad_()).square().sum().backward()
    assert all(p.grad is None for p in layer.parameters())


def test_outside_of_autocast_nothing_differs_from_torch(threads: int):
    torch.manual_seed(0)
    layer = layers.Conv2d(2, 3, 3)
    x = torch.randn(4, 2, 5, 5)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))


@pytest.mark.parametrize("shape", [(64, 5, 14, 14), (43, 3, 7, 7), (2, 4, 1, 1)])
def test_batch_norm_is_exact_to_single_precision(shape: tuple[int, ...], threads: int) -> None:
    torch.manual_seed(0)
    own, exact = layers.BatchNorm2d(shape[1]), nn.BatchNorm2d(shape[1])
    nn.init.uniform_(own.weight, 0.5, 2)
    exact.load_state_dict(own.state_dict())
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last) + 1
    of_out = 1 + 0.1 * torch.randn(shape).contiguous(memory_format=torch.channels_last)
    found = []
    for net, dtype in ((own, torch.float32), (exact.double(), torch.float64)):
        given = x.to(dtype, copy=True).requires_grad_()
        out = net(given)
        out.backward(of_out.to(dtype))
        found.append([out, given.grad, *(p.grad for p in net.parameters()), *net.buffers()])
        assert out.is_contiguous(memory_format=torch.channels_last)
    for mine, theirs in zip(*found, strict=True):
        scale = theirs.double().abs().max().clip(0.1)
        assert (mine - theirs).abs().max() < 1e-4 * scale
    assert found[0][0].dtype == torch.float32


@pytest.mark.parametrize("mean", [1.0, 100.0])
def test_batch_norm_keeps_the_gradient_that_little_is_left_of(mean: float) -> None:
    """To rounding of the mean; where most cancels, torch's own loses two digits more."""
    torch.manual_seed(0)
    x = (mean + torch.randn(64, 8, 14, 14)).contiguous(memory_format=torch.channels_last)
    near_even = (1 + 0.1 * torch.randn_like(x)).double()
    error = {}
    for net in (layers.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8).double()):
        given = x.to(net.weight.dtype, copy=True).requires_grad_()
        net(given).backward(near_even.to(net.weight.dtype))
        error[type(net), net.weight.dtype] = net.weight.grad
    exact = error.pop((nn.BatchNorm2d, torch.float64))
    own, usual = ((found - exact).norm() / exact.norm() for found in error.values())
    assert own < 1e-4 * mean < 10 * usual
    assert own < usual / 10
