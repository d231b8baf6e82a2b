"""Encoders (images to features) and decoders (latents to the likelihood's raw input), by name."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from torch import Tensor, nn
from typing_extensions import override

from robustvae.models.layers import BatchNorm2d, Conv2d, ConvTranspose2d
from robustvae.params.geometry import Geometry

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "silu": nn.SiLU, "tanh": nn.Tanh,
}  # fmt: skip


class Net(Protocol):
    """What an architecture is: two functions from a geometry to modules."""

    def encoder(self, g: Geometry, channels: int) -> "Layers":
        """Images [B, C, H, W] -> features [B, F], or [B, W, h, w] where the geometry is spatial."""
        ...

    def decoder(self, g: Geometry, latent_dim: int, channels: int) -> "Layers":
        """Latents [B, Z], or [B, Z, h, w] -> [B, channels, H, W]."""
        ...


class Layers(nn.Sequential):
    """One after the other; torch.compile takes them as a whole, which torch's own it does not."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


class Conv:
    """Convolutions in equal stages, mirrored by transposed ones; perhaps a dense layer between."""

    def encoder(self, g: Geometry, channels: int) -> Layers:
        """As Net.encoder."""
        preset, layers = g.preset, list[nn.Module]()
        for width_in, width in pairwise((channels, *g.widths)):
            layers += [
                Conv2d(
                    width_in,
                    width,
                    preset.kernel,
                    preset.stride,
                    preset.padding,
                    bias=not preset.norm,
                ),
                *_normed(g, width),
            ]
        layers += self.between(g)
        if not g.spatial:
            sizes = (g.widths[-1] * g.sides[-1] ** 2, *filter(None, [g.hidden]))
            layers += [Vector(), *_dense(g, sizes)]
        return Layers(*layers)

    def decoder(self, g: Geometry, latent_dim: int, channels: int) -> Layers:
        """As Net.decoder."""
        preset, last, layers = g.preset, g.widths[-1], list[nn.Module]()
        if g.spatial:
            layers += [Conv2d(latent_dim, last, 3, padding=1, bias=not preset.norm)]
        else:
            sizes = (latent_dim, *filter(None, [g.hidden]))
            layers += _dense(g, sizes)
            layers += [nn.Linear(sizes[-1], last * g.sides[-1] ** 2, bias=not preset.norm)]
            layers += [Maps(last, g.sides[-1])]
        layers += [*_normed(g, last), *self.between(g)]
        widths, sides = pairwise((*g.widths[::-1], channels)), pairwise(g.sides[::-1])
        for (width_in, width), (side, wanted) in zip(widths, sides, strict=True):
            given = (side - 1) * preset.stride - 2 * preset.padding + preset.kernel
            final = wanted == g.sides[0]
            layers += [
                ConvTranspose2d(
                    width_in, width, preset.kernel, preset.stride, preset.padding,
                    output_padding=wanted - given, bias=final or not preset.norm,
                ),
                *([] if final else _normed(g, width)),
            ]  # fmt: skip
        return Layers(*layers)

    def between(self, g: Geometry) -> Sequence[nn.Module]:
        """Layers at the smallest side, the same in encoder and decoder."""
        return []


class ResNet(Conv):
    """Strided convolutions, a 3x3 one, two residual blocks (arXiv:1711.00937, section 4.1)."""

    def between(self, g: Geometry) -> Sequence[nn.Module]:
        """As Conv.between."""
        width = g.widths[-1]
        blocks = [Residual(width, g.activation) for _ in range(2)]
        return [Conv2d(width, width, 3, padding=1), *blocks, ACTIVATIONS[g.activation]()]


class Residual(nn.Module):
    """x + conv1x1(act(conv3x3(act(x)))), with a quarter of the width inside."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        act, inner = ACTIVATIONS[activation], max(1, width // 4)
        self.body = nn.Sequential(
            act(), Conv2d(width, inner, 3, padding=1), act(), Conv2d(inner, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, h, w] -> [B, W, h, w]."""
        return x + self.body(x)  # type: ignore[no-any-return]


class Vector(nn.Module):
    """Feature maps as a vector, [B, W, h, w] -> [B, h w W]: as channels-last memory has them."""

    def forward(self, h: Tensor) -> Tensor:
        """Nothing is moved where the maps are channels-last."""
        return h.permute(0, 2, 3, 1).flatten(1)


class Maps(nn.Module):
    """A vector as feature maps, [B, h w W] -> [B, W, h, w], channels-last: Vector undone."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.shape = (side, side, width)

    def forward(self, h: Tensor) -> Tensor:
        """Nothing is moved."""
        return h.view(-1, *self.shape).permute(0, 3, 1, 2)


class MLP:
    """Dense layers; the default is the single-layer net of arXiv:1509.00519, section 5.1."""

    def encoder(self, g: Geometry, channels: int) -> Layers:
        """As Net.encoder."""
        return Layers(nn.Flatten(), *_dense(g, (channels * g.sides[-1] ** 2, *g.widths)))

    def decoder(self, g: Geometry, latent_dim: int, channels: int) -> Layers:
        """As Net.decoder."""
        sizes = (latent_dim, *g.widths[::-1])
        last = nn.Linear(sizes[-1], channels * g.sides[-1] ** 2)
        return Layers(*_dense(g, sizes), last, nn.Unflatten(1, (channels, *g.sides * 2)))


def _normed(g: Geometry, width: int) -> list[nn.Module]:
    activation = ACTIVATIONS[g.activation]()
    if not g.preset.norm:
        return [activation]
    if isinstance(activation, nn.ReLU | nn.LeakyReLU):
        activation.inplace = True  # neither needs what it overwrites for its gradient
    return [BatchNorm2d(width), activation]


def _dense(g: Geometry, sizes: Sequence[int]) -> list[nn.Module]:
    """A linear layer with its activation from each size to the next."""
    return [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), ACTIVATIONS[g.activation]())]
