"""Several models side by side, on the same images under the same corruptions."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustvae.api.evaluate import evaluate
from robustvae.api.result import Result
from robustvae.errors import UserError
from robustvae.reporting import sheet
from robustvae.robustness.inference import LEVEL, holm, paired
from robustvae.robustness.table import HEADLINE
from robustvae.runtime import files
from robustvae.runtime.progress import say

FIRST = ("e_den", "skill", "skill_id", "ssim_den", "clean_e_den", "constant_wins", "worst")
INTRO = (
    "Squared errors per pixel of what comes back of corrupted images, to the clean ones. Every "
    "model was shown the same images, so differences are means over images of paired "
    "differences, with 95 % intervals; p values of a t test, the last column holds for all rows "
    "together (Holm). They say nothing about training again with another seed. Negative: less "
    "error than {}."
)


class Comparison:
    """Results of several models, the first of which is the one to compare with.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    >>> both = rv.compare({"nothing": lambda x: x, "grey": lambda x: x * 0 + 0.5}, x, names=["fog"])
    measuring nothing
    measuring grey
    >>> both.table.query("corruption == 'fog'")["model"].tolist()
    ['nothing', 'grey']
    """

    def __init__(self, results: Mapping[str, Result]) -> None:
        self.results = dict(results)
        self.first = next(iter(self.results))

    @property
    def summary(self) -> pd.DataFrame:
        """A row per model: the headline's numbers."""
        rows = {name: result.headline for name, result in self.results.items()}
        return pd.DataFrame({n: {k: row.get(k) for k in FIRST} for n, row in rows.items()}).T

    @property
    def table(self) -> pd.DataFrame:
        """A row per model and set: e_den, and its difference to the first model's."""
        rows, base = [], _errors(self.results[self.first])
        for name, result in self.results.items():
            for (corruption, severity), values in _errors(result).items():
                row = {"model": name, "corruption": corruption, "severity": severity}
                row |= {"e_den": values.mean(), "n": len(values)}
                if name != self.first:
                    row |= paired(values, base[corruption, severity])
                rows.append(row)
        table = pd.DataFrame(rows)
        return table.assign(p_holm=holm(table["p"])) if "p" in table else table

    def _beside(self) -> sheet.Table:
        """A row per set, a column per model: its error, and whether that is the first one's."""
        rows: dict[tuple[str, int], list[str]] = {}
        for row in self.table.to_dict("records"):
            text = f"{row['e_den']:.4g}"
            if row["model"] != self.first:
                better = "better" if row["difference"] < 0 else "worse"
                text += f": {better if row['p_holm'] < LEVEL else 'cannot tell'}"
            rows.setdefault((row["corruption"], row["severity"]), []).append(text)
        named = [[f"{name} {s or ''}".strip().replace("_", " "), *row]
                 for (name, s), row in rows.items()]  # fmt: skip
        return (
            f"Error to the clean image, against {self.first}",
            ["corruption", *self.results],
            named,
        )

    def report(self, path: Path | str, title: str = "Models side by side") -> Path:
        """Write one self-contained page: what is better or worse, both tables, figures."""
        pictures = []
        for name, result in self.results.items():
            for figure in ("robustness", "corrupted"):
                shown = sheet.picture(result.plot(figure))
                pictures.append((f"{name}: {figure}", shown))
        notes = [f"{n}: {text}" for n, r in self.results.items() for text in r.warnings]
        summary = self.summary.reset_index(names="model")
        tables = [
            self._beside(), sheet.table("Headline", summary),
            sheet.table("Every corruption", self.table),
        ]  # fmt: skip
        text = sheet.sheet(title, INTRO.format(self.first), notes, tables, pictures)
        with files.replace(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return Path(path)

    def __repr__(self) -> str:
        return self.summary.to_string()

    def _repr_html_(self) -> str:
        name = escape(self.first)
        html: str = self.summary.to_html() + self.table.to_html(index=False)
        return f"<p>{escape(INTRO).format(name)}</p>{html}"


def compare(models: Mapping[str, Any], images: Any, **how: Any) -> Comparison:
    """Measure every model by `evaluate`, whose keywords `how` are, and compare with the first.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    >>> both = {"nothing": lambda x: x, "grey": lambda x: x * 0 + 0.5}
    >>> comparison = rv.compare(both, x, names=["fog"])
    measuring nothing
    measuring grey
    >>> comparison.summary.index.tolist()
    ['nothing', 'grey']
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise UserError(
            'compare: needs two models or more by name, e.g. {"mine": vae, "theirs": net}'
        )
    results = {}
    for name, model in models.items():
        say(f"measuring {name}")
        results[name] = evaluate(model, images, name=name, **how)
    return Comparison(results)


def _errors(result: Result) -> dict[tuple[str, int], Any]:
    """Squared error of each image: headline, clean, every set."""
    rows = result.table.query("method == 'model'")
    sets = {(row["corruption"], int(row["severity"])): row["group"] for _, row in rows.iterrows()}
    found = {
        (name, severity): result.values("e_den", name if name == "clean" else f"{name}-{severity}")
        for name, severity in sets
    }
    groups: dict[str, list[Any]] = {}
    for place, group in sets.items():
        groups.setdefault(group, []).append(found[place])
    counted = [np.mean(groups[group], 0) for group in HEADLINE if group in groups]
    headline = {("headline", 0): np.mean(counted, 0)} if counted else {}
    return headline | found
