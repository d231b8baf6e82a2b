"""What came of measuring a model: a table, a headline, figures, the page."""

import tempfile
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustvae.errors import UserError, did_you_mean
from robustvae.reporting import page
from robustvae.reporting.figures import GALLERY, Run, draw, write
from robustvae.reporting.tables import Results
from robustvae.robustness.evaluation import Evaluation
from robustvae.robustness.finding import Finding, plain
from robustvae.runtime import files

if TYPE_CHECKING:
    import pandas as pd

APART = ("attack", "foreign", "sample")
TITLE = "How robust is this autoencoder?"
SHOWN = ("corruption", "severity", "group", "e_den", "skill", "ssim_den", "auroc", "probe")


class Result:
    """Everything that was measured; a notebook shows it as a table.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    >>> result = rv.evaluate(lambda x: x, x, names=["fog"])
    >>> result.table["method"].unique().tolist()
    ['model', 'identity', 'mean_image']
    >>> result.values("e_den", "clean").max()
    np.float64(0.0)
    >>> figure = result.plot("robustness")
    """

    def __init__(self, found: Evaluation, run: Run, config: dict[str, Any]) -> None:
        self.found, self.run, self.config = found, run, config
        self.apart: dict[str, Finding] = {}

    def add(self, apart: dict[str, Finding]) -> None:
        """What was measured besides, with its figures."""
        self.apart |= apart
        attack, foreign, sample = (self._apart(name).arrays for name in APART)
        self.run = replace(self.run, attack=attack, foreign=foreign, sample=sample)

    def _apart(self, name: str) -> Finding:
        return self.apart.get(name, Finding())

    @property
    def table(self) -> "pd.DataFrame":
        """A row per corruption, severity and method; each quantity with its standard error."""
        return self.found.rows

    @property
    def attacks(self) -> "pd.DataFrame | None":
        """A row per kind and radius of attacks; None: they were not measured."""
        return self._apart("attack").table

    @property
    def outliers(self) -> "pd.DataFrame | None":
        """A row per foreign set and score; None: none was shown."""
        return self._apart("foreign").table

    @property
    def samples(self) -> "pd.DataFrame | None":
        """A row per kind of images by the features of a classifier; None: not measured."""
        return self._apart("sample").table

    @property
    def headline(self) -> dict[str, float | int | str | None]:
        """Means over groups of corruptions, NAME_se their standard errors, and what stands beside.

        None where a number is missing; `reasons` says why.
        """
        errors = self.found.details["headline_se"]
        numbers: dict[str, Any] = self.found.metrics["robustness"]
        both = numbers | {f"{name}_se": error for name, error in errors.items()}
        return plain(both)  # type: ignore[no-any-return]

    @property
    def metrics(self) -> dict[str, Any]:
        """What the pipeline writes to metrics.json."""
        return plain(self.found.metrics)  # type: ignore[no-any-return]

    @property
    def warnings(self) -> list[str]:
        """What a reader must not overlook."""
        apart = [text for finding in self.apart.values() for text in finding.warnings]
        return [*self.found.details["warnings"], *apart]

    @property
    def reasons(self) -> dict[str, str]:
        """What was not measured, and why."""
        found = dict(self.found.details["reasons"])
        for finding in self.apart.values():
            found |= finding.reasons
        return found

    def values(self, quantity: str, corruption: str = "clean") -> NDArray[np.float64]:
        """A quantity of each image: of the clean ones, or of a set such as "fog-5"."""
        columns = {name: found for (name, method), found in self.found.values.items()
                   if method == "model"}  # fmt: skip
        if corruption not in columns:
            raise UserError(f"corruption: no set {corruption!r}"
                            f"{did_you_mean(corruption, columns)}")  # fmt: skip
        if quantity not in columns[corruption]:
            known = ", ".join(columns[corruption])
            raise UserError(f"quantity: {quantity!r} has no value per image; one of {known}")
        return columns[corruption][quantity]

    def plot(self, name: str = "robustness") -> Figure:
        """One of the pipeline's figures, by name; a notebook shows it."""
        if name not in GALLERY:
            raise UserError(f"plot: unknown {name!r}{did_you_mean(name, GALLERY)}; one of "
                            f"{', '.join(GALLERY)}")  # fmt: skip
        figure = draw(self.run, name)
        if figure is None:
            raise UserError(f"plot: {name!r} has no meaning for this model")
        return figure

    def report(self, path: Path | str, title: str = TITLE) -> Path:
        """Write the pipeline's page, one self-contained file."""
        with tempfile.TemporaryDirectory(prefix="robustvae-") as place:
            pictures, charts = Path(place) / "figures", Path(place) / "charts"
            listed = write(self.run, pictures, charts)
            config, found = self.config, self.found
            details = plain({**found.details, "data": config["data"]})
            shown = Results(
                self.metrics, details, found.losses, found.rows, config, {}, listed, pictures,
                charts, (), *(self._apart(name) for name in APART),
            )  # fmt: skip
            text = page.page(shown, title)
        with files.replace(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return Path(path)

    def __repr__(self) -> str:
        rows = self.table.query("method == 'model'")
        known = [name for name in SHOWN if name in rows and rows[name].notna().any()]
        first = {k: v for k, v in self.headline.items() if k in ("e_den", "skill", "clean_e_den")}
        said = ", ".join(f"{k} {v}" for k, v in first.items())
        return f"{self.run.name}: {said}\n{rows[known].to_string(index=False, float_format='%.4g')}"

    def _repr_html_(self) -> str:
        rows = self.table.query("method == 'model'")
        known = [name for name in SHOWN if name in rows and rows[name].notna().any()]
        error, skill = (self.headline.get(name) for name in ("e_den", "skill"))
        notes = "".join(f"<li>{text}</li>" for text in map(escape, self.warnings))
        return (
            f"<p><b>{escape(self.run.name)}</b>: error to the clean image {error}, skill {skill}"
            f"</p><ul>{notes}</ul>{rows[known].to_html(index=False, float_format='{:.4g}'.format)}"
        )
