"""Small pictures for the first screen: per corruption an image clean, corrupted and given back."""

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from robustvae.reporting.figures.pictures import Images, as_bytes
from robustvae.reporting.figures.run import Run, key

SIDE = 64  # pixels, at most: they are shown smaller


@torch.inference_mode()
def examples(run: Run) -> list[dict[str, Any]]:
    """Name, severity and three data URIs of each set shown; every set has a test image of its own.

    They lie evenly over the test set: none is chosen for how it looks.
    """
    index = np.linspace(0, len(run.clean) - 1, len(run.shown)).astype(int)
    found = []
    for item, i in zip(run.shown, index.tolist(), strict=True):
        seen = np.array(run.corrupted[key(item)][i : i + 1])
        back = as_bytes(run.reconstruct(torch.from_numpy(seen).float() / 255).float().numpy())
        shown = [thumbnail(image) for image in (run.clean[i], seen[0], back[0])]
        found.append({"corruption": item["name"], "severity": item["severity"], "images": shown})
    return found


def thumbnail(image: Images) -> str:
    """An image [C, H, W] as a data URI, no larger than SIDE."""
    small = Image.fromarray(np.array(image).transpose(1, 2, 0).squeeze())
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        small.save(buffer, "png", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
