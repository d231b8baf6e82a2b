"""A page of images by suspicion, each with a thumbnail; opening it fetches nothing."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAST_SIDE = 56  # pixels of a thumbnail; smaller images are enlarged by whole numbers


@dataclass(frozen=True)
class Row:
    """An image of the table."""

    rank: int
    name: str
    suspicion: float
    values: Sequence[tuple[str, float]]  # heading, value
    pixels: NDArray[np.uint8]  # [C, H, W]


def thumbnail(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image as a picture that can be seen."""
    flat = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    picture = Image.fromarray(flat)
    factor = max(1, -(-LEAST_SIDE // picture.width))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def page(rows: Sequence[Row], title: str, lead: str) -> str:
    """HTML with the most suspicious images first."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    listed: list[dict[str, Any]] = [
        {"row": row, "uri": _uri(thumbnail(row.pixels))} for row in rows
    ]
    return environment.get_template("screen.html").render(title=title, lead=lead, rows=listed)


def _uri(picture: Image.Image) -> str:
    with io.BytesIO() as buffer:
        picture.save(buffer, "png", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
