"""JPEG there and back, all images of a batch as a few tall grey pictures.

A coder works on blocks of 8 x 8 of one plane at a time. Split into brightness and two halved planes
of colour, as it would itself, the planes of a batch stack into one picture each for Pillow; the
arithmetic around it is libjpeg's own, in whole numbers that float32 holds exactly.
"""

import functools
import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

from robustvae.corruptions import sampling
from robustvae.corruptions.sampling import Rules

UNIT = 2.0**16  # fixed point of the conversions
TO_YCC = torch.tensor(
    [[19595.0, 38470.0, 7471.0], [-11059.0, -21709.0, 32768.0], [32768.0, -27439.0, -5329.0]]
)
ROUND = torch.tensor([UNIT / 2, 128 * UNIT + UNIT / 2 - 1, 128 * UNIT + UNIT / 2 - 1])
FROM_YCC = torch.tensor([[0.0, 91881.0], [-22554.0, -46802.0], [116130.0, 0.0]])  # of cb, cr
ALONE = 128**2  # pixels of a colour image, beyond which Pillow does it faster by itself
TALLEST = 65_500  # rows of a picture in JPEG


def jpeg_compression(x: Tensor, quality: int, rng: Generator, rules: Rules) -> Tensor:
    """What Pillow's JPEG of each image gives, colours at half the resolution."""
    batch, channels, height, width = x.shape
    divisors = _divisors(quality)
    if channels == 1:
        return _coded(x, divisors[0])
    if height * width > ALONE:
        pictures = np.empty((batch, height, width, channels), np.uint8)
        for channel in range(channels):  # one by one: a fifth of the time
            pictures[..., channel] = x[:, channel]
        for picture in pictures:
            picture[:] = _there_and_back(picture, quality=quality)
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)
    ycc = torch.einsum("kc,bchw->kbhw", TO_YCC / UNIT, x.float())
    planes = sampling.rounded(ycc, (ROUND / UNIT).view(3, 1, 1, 1))
    y = _coded(planes[0][:, None], divisors[0]).float() + 0.5
    halves = _coded(_halved(planes[1:].flatten(0, 1)), divisors[1])
    halves = halves[..., : (height + 1) // 2, : (width + 1) // 2]
    colour = _doubled(halves)[:, :height, :width].float() - 128
    rgb = torch.einsum("kc,cbhw->bkhw", FROM_YCC / UNIT, colour.view(2, batch, height, width))
    return sampling.rounded(rgb, y)


def _there_and_back(pixels: NDArray[Any], **how: Any) -> NDArray[Any]:
    """One picture `[H, W]` or `[H, W, 3]`."""
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "JPEG", **how)
    return np.asarray(Image.open(coded))


@functools.cache
def _divisors(quality: int) -> dict[int, list[int]]:
    """Of brightness (0) and of colour (1)."""
    coded = io.BytesIO()
    Image.new("RGB", (16, 16)).save(coded, "JPEG", quality=quality)
    return Image.open(coded).quantization  # type: ignore[attr-defined, no-any-return]


def _coded(x: Tensor, divisors: list[int]) -> Tensor:
    """Grey planes `[N, 1, H, W]` there and back; what a block lacks is its last row or column."""
    height, width = x.shape[2:]
    padded = functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    parts = []
    for part in torch.split(padded, max(1, TALLEST // padded.shape[2])):
        tall = part.reshape(-1, part.shape[3]).numpy()
        parts.append(_there_and_back(tall, qtables=[divisors]).reshape(part.shape))
    return torch.from_numpy(np.concatenate(parts))[:, :, :height, :width]


def _halved(v: Tensor) -> Tensor:
    """Means of 2 x 2 of `[N, H, W]`, their halves rounded down and up in turn along a row."""
    v = functional.pad(v, (0, -v.shape[2] % 16, 0, v.shape[1] % 2), mode="replicate")
    sums = v[:, ::2].to(torch.int16) + v[:, 1::2]
    pairs = sums.view(torch.int32)  # two neighbours
    sums = ((pairs + (pairs >> 16)) & 0xFFFF) + torch.tensor([1, 2]).repeat(pairs.shape[2] // 2)
    return (sums >> 2).to(torch.uint8)[:, None]


def _doubled(v: Tensor) -> Tensor:
    """`[N, 2H, 2W]`: each new pixel three quarters its own and one quarter its neighbour."""
    near = functional.pad(v, (0, 0, 1, 1), mode="replicate")[:, 0].to(torch.int16)
    own = 3 * near[:, 1:-1]
    rows = torch.stack([own + near[:, :-2], own + near[:, 2:]], 2).flatten(1, 2)
    near = torch.cat([rows[..., :1], rows, rows[..., -1:]], 2)
    left, right = 3 * rows + near[..., :-2] + 8, 3 * rows + near[..., 2:] + 7
    return ((left >> 4) | (right >> 4 << 8)).view(torch.uint8)
