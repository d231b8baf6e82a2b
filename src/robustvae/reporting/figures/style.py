"""How every figure looks, and how it is written: the same bytes for the same data."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette: distinct for every common form of colour blindness.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
CYCLE = [BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", RED, "#000000"]
# Paul Tol's muted palette, for classes.
CLASSES = [
    "#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933",
    "#AA4499", "#555555",
]  # fmt: skip
INK, MUTED, FAINT = "#1d2733", "#5d6975", "#d9dee3"

STYLE: Any = {  # matplotlib types its keys one by one
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#9aa4ae",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "robustvae",  # otherwise ids in an SVG are drawn at random
    "svg.fonttype": "path",
}
DPI = 110  # in a notebook
WIDTH = 8.0  # inches: a column of text
HEAD = 0.62  # inches above the axes for title and note
NO_DATE: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
styled = matplotlib.rc_context(STYLE)  # decorator of every function that makes a Figure


class Shown(Figure):
    """A figure that a notebook shows, without pyplot."""

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as buffer:
            savefig(self, buffer, "png", DPI)
            return buffer.getvalue()


def sheet(body: float, title: str, note: str, width: float = WIDTH) -> Figure:
    """Figure with `body` inches below its title and a note: of what, in which unit, of how many."""
    figure = Shown(figsize=(width, body + HEAD))
    FigureCanvasAgg(figure)
    top = body + HEAD
    figure.text(0.1 / width, 1 - 0.10 / top, title, va="top", size=11.5, weight="bold")
    figure.text(0.1 / width, 1 - 0.34 / top, note, va="top", size=8.5, color=MUTED)
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def grid(
    figure: Figure, count: int, columns: int, *,
    left: float = 0.6, right: float = 0.15, bottom: float = 0.5, top: float = 0.25,
    gap: tuple[float, float] = (0.3, 0.3), share: bool = False,
) -> list[Axes]:  # fmt: skip
    """So many Axes, `columns` in a row; margins and gaps in inches, `top` below the note."""
    width, height = figure.get_size_inches()
    rows = -(-count // columns)
    w = (width - left - right - gap[0] * (columns - 1)) / columns
    h = (height - HEAD - top - bottom - gap[1] * (rows - 1)) / rows
    axes = figure.subplots(
        rows, columns, squeeze=False, sharex=share, sharey=share,
        gridspec_kw={
            "left": left / width, "right": 1 - right / width,
            "bottom": bottom / height, "top": 1 - (HEAD + top) / height,
            "wspace": gap[0] / w, "hspace": gap[1] / h,
        },
    ).flat  # fmt: skip
    for spare in axes[count:]:
        spare.set_visible(False)
    return list(axes[:count])


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], **how: Any) -> None:
    """One row for all Axes, between the note and them."""
    below = (0, 1 - 0.54 / figure.get_size_inches()[1])
    figure.legend(handles, labels, ncols=len(labels), loc="upper left", bbox_to_anchor=below,
                  columnspacing=1.0, **how)  # fmt: skip


def save(figure: Figure, path: Path, dpi: float) -> None:
    """Write a figure in the format that the name ends in."""
    with path.open("wb") as file:
        savefig(figure, file, path.suffix[1:], dpi)


def savefig(figure: Figure, file: IO[bytes], form: str, dpi: float) -> None:
    """Write a figure without a date or a random id."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format=form, dpi=dpi, metadata=NO_DATE[form])
