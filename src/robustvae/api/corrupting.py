"""Corrupted versions of images in memory."""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae import corruptions
from robustvae.api.images import values
from robustvae.corruptions import CORRUPTIONS, SMALLEST
from robustvae.errors import UserError, did_you_mean
from robustvae.params.parts import checked

Images = TypeVar("Images", NDArray[Any], Tensor)
LAYOUTS = {2: "HW", 3: "NHW", 4: "NCHW"}


def corrupt(
    images: Images,
    name: str,
    severity: int | str = "default",
    seed: int = 0,
    start: int = 0,
    **own: Any,
) -> Images:
    """Corrupted images, of the same kind, type, shape and layout.

    An array or a tensor, uint8 or float in [0, 1]: one image [H, W], [C, H, W] or [H, W, C], or a
    set [N, H, W], [N, C, H, W] or [N, H, W, C], grey or colour. Severities are 0 (clean) to 5;
    "default" is the one of MNIST-C. A picture depends on its index (from `start`), corruption,
    severity and seed alone. `own`: settings that a plug-in's corruption brings.

    >>> import numpy as np, robustvae as rv
    >>> images = np.zeros((3, 28, 28), np.uint8)
    >>> rv.corrupt(images, "fog", severity=3).shape
    (3, 28, 28)
    """
    check(name, severity)
    own = checked(CORRUPTIONS.part(name), own)
    if isinstance(images, Tensor):
        found = corrupt(images.detach().cpu().numpy(), name, severity, seed, start, **own)
        return torch.from_numpy(found).to(images.device)
    array = np.asarray(images)
    pixels = values(array, "images") if array.size else array
    view, layout = _viewed(pixels)
    found = corruptions.corrupt_images(
        view, name, severity, seed, layout=layout, start=start, own=own
    )
    found = found.reshape(array.shape)
    if array.dtype == np.bool_:
        found = found > 127
    return found.astype(array.dtype, copy=False)


def check(name: str, severity: int | str) -> None:
    """UserError where there is no such corruption or severity."""
    if name not in CORRUPTIONS:
        raise UserError(f"corruption: unknown {name!r}{did_you_mean(name, CORRUPTIONS)}; "
                        f"one of {', '.join(CORRUPTIONS)}")  # fmt: skip
    if severity != "default" and (isinstance(severity, str) or severity not in range(6)):
        raise UserError(f"severity: must be 0 (clean) .. 5, or default, got {severity!r}")


def _viewed(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """A set in a layout that corruptions know; of two readings, channels first."""
    shape = array.shape
    colour = [axis for axis in (-3, -1) if len(shape) >= 3 and shape[axis] in (1, 3)]
    if len(shape) == 2:
        view, layout = array[None], "NHW"
    elif len(shape) == 3 and not colour:
        view, layout = array, "NHW"
    elif len(shape) in (3, 4) and colour:
        view = array if len(shape) == 4 else array[None]
        layout = "NCHW" if colour[0] == -3 else "NHWC"
    else:
        view, layout = array, ""
    sides = view.shape[1:3] if layout in ("NHW", "NHWC") else view.shape[2:4]
    if not layout or not len(view) or min(sides) < SMALLEST:
        raise UserError(
            f"images: {array.dtype} {list(shape)}; give [H, W], [N, H, W], [N, C, H, W] or "
            f"[N, H, W, C] of 1 or 3 channels and at least {SMALLEST} pixels a side"
        )
    return view, layout
