"""The first screen: a verdict in a sentence, and a bar with its pictures for every corruption."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robustvae.reporting.cells import Z95, Cell, number
from robustvae.reporting.tables import APART, Results, unit
from robustvae.runtime import files

LEAST = -1.0  # where the axis begins; skill has no lower limit
LISTED = 4  # names in a sentence, at most
OTHERS = {"skill_id": "doing nothing", "skill_const": "the mean image"}


@dataclass(frozen=True)
class Bar:
    """A corruption's skill; `low`, `high`, `zero`, `marks` are places on the axis, in percent."""

    name: str
    severity: int
    skill: Cell
    verdict: str  # beats both | cannot tell | ... wins
    state: str  # wins | unclear | loses
    better: Sequence[str]  # baselines that are better
    fill: tuple[float, float]  # left end and width
    ends: tuple[float, float] | None
    marks: Mapping[str, float]  # nothing, mean; 0 for those beyond the axis
    images: Sequence[str]  # clean, corrupted, given back


def bars(results: Results) -> dict[str, list[Bar]]:
    """The bars of the headline and those apart from it, each by falling skill."""
    table = results.robustness
    known = (table["corruption"] != "clean") & table["skill"].notna()
    rising = table[known].sort_values(["default", "severity"], kind="stable")
    one = rising.drop_duplicates(["corruption", "method"], keep="last")
    of = {name: part.set_index("corruption") for name, part in one.groupby("method")}
    if "model" not in of:
        return {}
    pictures = _examples(results)
    model = of.pop("model").sort_values("skill", ascending=False, kind="stable")
    apart = model["group"].isin(APART)
    parts = {"headline": model[~apart], "apart": model[apart]}
    return {part: [_bar(name, row, of, pictures) for name, row in rows.iterrows()]
            for part, rows in parts.items() if len(rows)}  # fmt: skip


def _bar(
    name: Any,
    row: pd.Series,
    baselines: Mapping[Any, pd.DataFrame],
    pictures: Mapping[tuple[str, int], Sequence[str]],
) -> Bar:
    skill, severity = float(row["skill"]), int(row["severity"])
    arm = Z95 * float(row.get("skill_se", float("nan")))
    known = arm == arm
    low, high = (skill - arm, skill + arm) if known else (skill, skill)
    better = [text for column, text in OTHERS.items() if row.get(column, 0.0) < 0]
    state, verdict = "unclear", "cannot tell"
    if low > 0:
        state, verdict = "wins", "beats both"
    elif high < 0:
        other = better[0].removeprefix("the ") if len(better) == 1 else "both"
        state, verdict = "loses", f"{other} better"
    marks = {
        mark: _place(float(baselines[method]["skill"][name]))
        for mark, method in (("nothing", "identity"), ("mean", "mean_image"))
        if method in baselines and name in baselines[method].index
    }
    return Bar(
        str(name).replace("_", " "), severity, number(skill, arm / Z95), verdict, state, better,
        _span(min(skill, 0.0), max(skill, 0.0)), _span(low, high) if known else None, marks,
        pictures.get((str(name), severity), ()),
    )  # fmt: skip


def _place(value: float) -> float:
    """Percent of the axis, which ends at LEAST and 1."""
    return round(100 * (min(max(value, LEAST), 1.0) - LEAST) / (1 - LEAST), 2)


def _span(low: float, high: float) -> tuple[float, float]:
    """Where a stretch of the axis begins, and its width."""
    return _place(low), round(_place(high) - _place(low), 2)


def _examples(results: Results) -> dict[tuple[str, int], Sequence[str]]:
    path = results.vectors / "examples.json"
    listed = files.read_json(path) if path.exists() else []
    return {(item["corruption"], item["severity"]): item["images"] for item in listed}


def verdict(parts: Mapping[str, Sequence[Bar]]) -> str:
    """Which corruptions the model repairs, in plain words; '' where nothing can be said."""
    judged = parts.get("headline", ())
    if not judged:
        return ""
    won, of = sum(bar.state == "wins" for bar in judged), len(judged)
    share = {0: "none", of: "all"}.get(won, f"{won}")
    which = f"{of} corruption{'' if of == 1 else 's'}"
    first = f"On {share} {which}" if share == "all" else f"On {share} of {which}"
    verb = "this model beats" if won else "does this model beat"
    others = "".join(f"; {text}" for text in _others(judged))
    return f"{first} {verb} both doing nothing and the mean training image{others}."


def _others(judged: Sequence[Bar]) -> Iterator[str]:
    lost = [bar for bar in judged if bar.state == "loses"]
    for other in OTHERS.values():
        if names := [bar.name for bar in lost if other in bar.better]:
            yield f"{other} is better on {listed(names)}"
    if names := [bar.name for bar in judged if bar.state == "unclear"]:
        yield f"{listed(names)} {'is' if len(names) == 1 else 'are'} too close to call"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them; many are cut."""
    if len(names) > LISTED + 1:
        names = [*names[:LISTED], f"{len(names) - LISTED} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def severities(results: Results) -> str:
    """Which one is shown where there are several; '' where there is one."""
    if unit(results) == "corruption":
        return ""
    return "Of several severities the data set's own is shown, or else the strongest. "
