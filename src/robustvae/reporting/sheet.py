"""A plain page of tables and pictures, for comparisons."""

import base64
import io
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from robustvae.reporting.figures.style import DPI, savefig

Table = tuple[str, list[str], list[list[str]]]  # title, head, rows


def sheet(
    title: str,
    intro: str,
    notes: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[tuple[str, str]],
) -> str:
    """The page as HTML; pictures are titles and data URIs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("sheet.html").render(
        title=title, intro=intro, notes=notes, tables=tables, pictures=pictures
    )


def table(title: str, frame: pd.DataFrame) -> Table:
    """A table with four significant digits."""
    rows = [[_text(value) for value in row] for row in frame.itertuples(index=False)]
    return title, [str(name) for name in frame.columns], rows


def picture(figure: Figure) -> str:
    """A figure as a data URI."""
    with io.BytesIO() as buffer:
        savefig(figure, buffer, "png", DPI)
        return uri(buffer.getvalue())


def uri(png: bytes) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _text(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, Real) and not isinstance(value, int) else str(value)
