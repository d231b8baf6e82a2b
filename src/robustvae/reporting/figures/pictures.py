"""Grids of images: one tiled array per Axes, every pixel the same size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustvae.reporting.figures.style import MUTED, WIDTH, place, sheet, styled

Images = NDArray[np.uint8]  # [..., C, H, W]
GAP = 2  # white pixels between tiles
TILE = 0.75  # inches, at most
TALLEST = 8.5  # inches of a picture
NARROW = 5.5  # inches that a title needs


@styled
def rows(tiles: Images, names: Sequence[str], title: str, note: str,
         columns: Sequence[str] = (), across: str = "", down: str = "") -> Figure:  # fmt: skip
    """Rows of images [R, K, C, H, W] named at the left and, if given, above the columns."""
    left = 0.16 + 0.075 * max(map(len, names), default=0) + (0.2 if down else 0)
    above = (0.26 if columns else 0) + (0.2 if across else 0)
    width, height = _size(tiles, WIDTH - left - 0.1)
    figure = sheet(height + above + 0.12, title, note, max(NARROW, left + width + 0.1))
    axes = place(figure, left, 0.1, width, height)
    _show(axes, tiles, names, columns)
    axes.xaxis.tick_top()
    axes.set_xlabel(across, color=MUTED)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel(down, color=MUTED)
    return figure


@styled
def blocks(groups: Mapping[str, Images], names: Sequence[str], title: str, note: str,
           ) -> Figure:  # fmt: skip
    """One block of named rows of images [R, K, C, H, W] per entry, side by side under its name."""
    first = next(iter(groups.values()))
    across = max(1, min(len(groups), 16 // first.shape[1]))
    left, gap, label = 0.16 + 0.075 * max(map(len, names)), 0.16, 0.3
    width, height = _size(first, (WIDTH - left - 0.1 - gap * (across - 1)) / across)
    top = -(-len(groups) // across) * (height + label) + 0.1
    figure = sheet(top, title, note)
    for index, (name, tiles) in enumerate(groups.items()):
        row, column = divmod(index, across)
        x, y = left + column * (width + gap), top - (row + 1) * (height + label)
        axes = place(figure, x, y, width, height)
        _show(axes, tiles, names if column == 0 else ())
        axes.set_title(name, loc="left", pad=3, size=8.5)
    return figure


def mosaic(tiles: Images) -> Images:
    """Tiles [R, K, C, H, W] as one picture [H', W'] or [H', W', 3], white between them."""
    r, k, c, h, w = tiles.shape
    canvas: Images = np.full((r, h + GAP, k, w + GAP, c), 255, np.uint8)
    canvas[:, :h, :, :w] = tiles.transpose(0, 3, 1, 4, 2)
    flat: Images = canvas.reshape(r * (h + GAP), k * (w + GAP), c)[:-GAP, :-GAP]
    return flat.squeeze(2) if c == 1 else flat


def as_bytes(x: NDArray[Any]) -> Images:
    """Images in [0, 1] to 0 .. 255, rounded."""
    images: Images = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return images


def _size(tiles: Images, widest: float) -> tuple[float, float]:
    """Width and height in inches of a picture, as large as the limits allow."""
    r, k, _, h, w = tiles.shape
    shape = (k * (w + GAP) - GAP) / (r * (h + GAP) - GAP)
    width = min(widest, TILE * k, TALLEST * shape)
    return width, width / shape


def _show(axes: Axes, tiles: Images, names: Sequence[str], columns: Sequence[str] = ()) -> None:
    height, width = tiles.shape[-2:]
    axes.imshow(mosaic(tiles), cmap="gray", vmin=0, vmax=255, interpolation="auto", aspect="auto")
    axes.grid(visible=False)
    axes.tick_params(length=0, colors=MUTED)
    axes.set_xticks(np.arange(len(columns)) * (width + GAP) + width / 2 - 0.5, columns)
    axes.set_yticks(np.arange(len(names)) * (height + GAP) + height / 2 - 0.5, names)
    axes.spines[:].set_visible(False)
