"""What a measurement apart from evaluate came to, and the files that it becomes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustvae.runtime import files

if TYPE_CHECKING:
    import pandas as pd


def plain(obj: Any) -> Any:
    """For JSON: six significant digits, null where there is no number."""
    if isinstance(obj, Mapping):
        return {key: plain(value) for key, value in obj.items()}
    if isinstance(obj, list):
        return [plain(item) for item in obj]
    if isinstance(obj, float | np.floating):
        return float(f"{obj:.6g}") if math.isfinite(obj) else None
    return obj.item() if isinstance(obj, np.generic) else obj


@dataclass(frozen=True)
class Finding:
    """A table (None: nothing was measured), its headline, and in words what it says."""

    table: "pd.DataFrame | None" = None
    headline: dict[str, Any] = field(default_factory=dict)  # the numbers of `dvc metrics show`
    sentence: str = ""
    warnings: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # what was not measured, and why
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)  # for figures

    def save(self, stem: Path) -> None:
        """STEM.csv, STEM.json with the headline, STEM.npz with arrays and words."""
        words = {name: getattr(self, name) for name in ("sentence", "warnings", "reasons")}
        words["headline"] = plain(self.headline)
        text = "\n"
        if self.table is not None:
            text = self.table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        with files.replace(stem.with_suffix(".csv")) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        files.write_json(stem.with_suffix(".json"), words["headline"])
        said = np.array(json.dumps({"measured": self.table is not None, **words}))
        files.save_npz(stem.with_suffix(".npz"), **self.arrays, words=said)

    @classmethod
    def load(cls, stem: Path) -> "Finding":
        """All that `save` wrote, from the table and the arrays."""
        path = stem.with_suffix(".npz")
        arrays = files.read_npz(path)
        try:
            words = json.loads(str(arrays.pop("words")))
            measured = words.pop("measured")
        except (KeyError, ValueError) as error:
            raise files.damaged(path, error) from error
        table = files.read_csv(stem.with_suffix(".csv")) if measured else None
        return cls(table, **words, arrays=arrays)

    @property
    def lines(self) -> list[str]:
        """The words, for the output of a stage."""
        return [
            *([self.sentence] if self.sentence else []),
            *(f"warning: {text}" for text in self.warnings),
            *(f"{what}: {why}" for what, why in self.reasons.items()),
        ]
