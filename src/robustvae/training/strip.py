"""What a model makes of the same few validation images while it learns, uint8.

Validation images: training knows no test set.
"""

import numpy as np
import torch
from torch import Tensor

from robustvae.models.autoencoder import Autoencoder

SHOWN = 6  # images
STOPS = 6  # epochs, about


def stops(epochs: int) -> set[int]:
    """Epochs from the first to the last, evenly in their logarithm."""
    return set(np.rint(np.geomspace(1, epochs, STOPS)).astype(int).tolist())


def places(images: int) -> Tensor:
    """The images shown, evenly over all of them."""
    return torch.linspace(0, images - 1, min(SHOWN, images)).round().long()


@torch.no_grad()
def take(model: Autoencoder, x: Tensor) -> Tensor:
    """Mean reconstructions, and one of the first image with every pixel drawn; [K + 1, C, H, W]."""
    z = model.quantise(x[:1]) if model.family == "vq" else model.posterior(x[:1]).mean
    drawn = model.likelihood.sample(model.decode(z), z)
    both = torch.cat([model.reconstruct(x), drawn]).float()
    return (both.clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous()


def arrays(taken: dict[int, Tensor], images: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept: epochs [E], what was `taken` at each, and the images themselves."""
    epochs = sorted(taken)
    seen = torch.stack([taken[epoch] for epoch in epochs]).numpy()
    chosen = np.array(images[places(len(images)).numpy()])
    return {"epochs": np.array(epochs), "seen": seen, "images": chosen}
