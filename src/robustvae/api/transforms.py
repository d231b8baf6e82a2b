"""Corruptions as torchvision's transforms: in a Compose, in a DataLoader, on single images."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustvae.api.corrupting import check, corrupt
from robustvae.runtime import torchvision_shim

torchvision_shim.prepare()

from torchvision import tv_tensors  # noqa: E402 (only now)
from torchvision.transforms import v2  # noqa: E402 (only now)


class Corrupt(v2.Transform):  # type: ignore[misc]
    """Corrupt pictures: PIL images, image tensors (uint8, or float in [0, 1]), alone or in batches.

    Each call draws anew from torch's generator, which `torch.manual_seed` and the workers of a
    DataLoader seed; with a `seed` every call draws the same. What stands beside a picture in a
    sample (a class) is left as it is.

    >>> import torch, robustvae as rv
    >>> corrupt = rv.transforms.Corrupt("fog", severity=3)
    >>> corrupt(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([3, 32, 32])
    """

    def __init__(self, name: str, severity: int | str = "default", seed: int | None = None) -> None:
        check(name, severity)
        super().__init__()
        self.name, self.severity, self.seed = name, severity, seed

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The seed of a sample."""
        drawn = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        return {"seed": drawn}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """One picture, or a batch of them."""
        if isinstance(inpt, Image.Image):
            array = corrupt(np.asarray(inpt), self.name, self.severity, params["seed"])
            return Image.fromarray(array)
        assert isinstance(inpt, Tensor)
        plain: Tensor = inpt.as_subclass(Tensor)
        pixels = corrupt(plain, self.name, self.severity, params["seed"])
        return pixels if type(inpt) is Tensor else tv_tensors.wrap(pixels, like=inpt)

    def extra_repr(self) -> str:
        """For printing."""
        seed = "" if self.seed is None else f", seed={self.seed}"
        return f"{self.name!r}, severity={self.severity!r}{seed}"
