"""The tables of the page, and what it is made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robustvae.reporting.cells import Cell, measured, name_of, number, se_of, with_error
from robustvae.robustness.finding import Finding

APART = ("geometric", "clean")  # groups that have no part in the headline
METHODS = {"model": "this model", "identity": "identity", "mean_image": "mean image"}
COLUMNS = {  # quantities of the tables: heading, what it is
    "e_den": ("e_den", "squared error per pixel to the clean image; lower is better"),
    "psnr": ("PSNR", "the same in dB, mean over images; higher is better"),
    "skill": ("skill", "1 - e_den / e_best; above 0 is better than either baseline"),
    "skill_id": ("vs identity", "1 - e_den / e_id; above 0 is better than doing nothing"),
    "skill_const": ("vs mean", "1 - e_den / e_const; above 0 is better than a constant"),
    "ssim_den": ("SSIM", "structural similarity to the clean image; 1 is identical"),
    "delta_elbo": ("ΔELBO", "rise of the negative ELBO, nats"),
    "auroc": ("AUROC", "how well the score tells corrupted from clean"),
    "fpr95": ("FPR95", "false alarms where 95 % of the corrupted are found"),
    "drift": ("drift", "shift of the posterior mean in its own standard deviations"),
    "skl": ("SKL", "median symmetric KL between the two posteriors, nats"),
    "probe": ("probe", "accuracy of a linear probe learnt on clean posterior means"),
    "e_id": ("e_id", "squared error per pixel of the corrupted image itself"),
    "e_const": ("e_const", "squared error per pixel of the mean training image"),
    "e_self": ("e_self", "squared error per pixel to the corrupted image"),
    "e_stab": ("e_stab", "squared distance per pixel between both reconstructions"),
}
BESIDE = ("neg_elbo", "ssim_id", "e_best")  # what others are made of: in the file, not on the page


@dataclass(frozen=True)
class Table:
    """A table whose rows can be sorted; `quiet` rows are baselines."""

    name: str
    note: str
    columns: Sequence[tuple[str, str]]  # heading, explanation
    rows: Sequence[tuple[bool, Sequence[Cell]]]  # quiet, cells


@dataclass(frozen=True)
class Results:
    """What the stages before left; `figures` is the content of figures.json."""

    metrics: dict[str, Any]
    evaluation: dict[str, Any]
    losses: pd.DataFrame
    robustness: pd.DataFrame
    config: dict[str, Any]
    corrupted: dict[str, Any]
    figures: Sequence[dict[str, Any]]
    folder: Path  # of the figures
    vectors: Path  # of their vector files
    training_warnings: Sequence[str] = ()
    attack: Finding = field(default_factory=Finding)  # without a table: not measured
    foreign: Finding = field(default_factory=Finding)
    sample: Finding = field(default_factory=Finding)

    @property
    def found(self) -> dict[str, Finding]:
        """What was measured apart, by the section of the page that tells it."""
        return {"Attacks": self.attack, "Foreign images": self.foreign, "Samples": self.sample}


def tables(results: Results) -> Iterator[Table]:
    """Everything that was measured, the short tables first."""
    images = f"n = {results.config['data']['counts']['test']:,} test images"
    if len(results.losses):
        yield from _of_our_model(results)
    table = results.robustness
    known = {*COLUMNS, *BESIDE}
    own = [q for q in map(str, table) if f"{q}_se" in table and q not in known]  # of plug-ins
    columns = COLUMNS | {name: (name.replace("_", " "), "a metric of a plug-in") for name in own}
    shown = [name for name in columns if name in table and table[name].notna().any()]
    heads = [columns[name] for name in shown]
    one = unit(results)
    note = f"Means over the {one}s of a group; geometric ones have no part in the headline."
    if shares := results.evaluation.get("shares"):
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares["groups"].items())
        most = max(shares["corruptions"], key=shares["corruptions"].get)
        alone = f"{most.replace('_', ' ')} alone {shares['corruptions'][most]:.0%}"
        note += f" Shares of the headline's error: {listed}; {alone}."
    yield Table("Groups", note, [("group", ""), ("method", ""), *heads], [
        (method != "model", [_text(group), _text(METHODS[method]),
                             *(number(values.get(name)) for name in shown)])
        for method, groups in results.evaluation.get("aggregates", {}).items()
        for group, values in groups.items()
    ])  # fmt: skip
    note = f"{images} per row. Small figures: half a 95 % interval over images, of rates both ends."
    if {"auroc", "fpr95"} & set(shown):
        note += f" AUROC and FPR95: of the {results.evaluation['score']}."
    yield from outliers(results)
    yield from _apart(results)
    heads = [("corruption", "with its severity"), ("group", ""), ("method", ""), *heads]
    yield Table(f"Every {one}", note, heads, [
        (row["method"] != "model", [
            _text(_set(row)), _text(row["group"]), _text(METHODS[row["method"]]),
            *(measured(row, name) for name in shown)])
        for row in table.to_dict("records")
    ])  # fmt: skip


def _of_our_model(results: Results) -> Iterator[Table]:
    """Losses, likelihood, latents."""
    names = [str(name) for name in results.losses.columns[1:]]
    known = results.evaluation.get("losses", {})
    seen = known.get("train", {}).get("images")
    note = f" Train: {seen:,} of the training images." if seen else ""
    yield Table("Losses", units(results.config) + note,
        [("split", ""), *((name, "") for name in names)], [
        (False, [_text(row["split"]), *(
            number(row[name], se_of(known.get(row["split"], {}).get(name))) for name in names)])
        for row in results.losses.to_dict("records")
    ])  # fmt: skip
    likelihood = results.evaluation.get("likelihood", {})
    note = f"Likelihood: the first {likelihood.get('images', '?')} test images; latents: all."
    yield Table("Likelihood and use of the latents", note, [("quantity", ""), ("value", "")], [
        (False, [_text(name_of(name)), cell]) for name, cell in _measured(results)
    ])  # fmt: skip


def units(config: Mapping[str, Any]) -> str:
    """What the terms of the loss are in: nats, but not for every kind of model."""
    total = (
        "total: recon + beta · divergence; mse: per pixel; psnr: dB; residual: squared, over the "
        "decoder's variance."
    )
    if config["model"]["latent"]["name"] == "vq":
        return (
            "Per image. recon: nats; divergence: squared distance of features from their codes, "
            f"which is no nats; {total}"
        )
    if config["loss"]["divergence"] == "t3":
        return (
            "Per image, no nats. recon: ½‖x − x̂‖²/σ²; divergence: the t3 regulariser of the "
            f"posterior; {total}"
        )
    return f"Nats per image. {total}"


def _measured(results: Results) -> Iterator[tuple[str, Cell]]:
    """Name and value of what was found of likelihood and latents."""
    for name, pair in results.evaluation["likelihood"].items():
        if pair is None or isinstance(pair, Mapping):  # others are facts
            yield name, with_error(pair)
    for name, value in results.evaluation["collapse"].items():
        if name != "verdict":
            yield name, number(value)


def judged(results: Results) -> pd.DataFrame:
    """What the model makes of the sets that the headline is made of."""
    table = results.robustness
    return table[(table["method"] == "model") & ~table["group"].isin(APART)]


def groups(results: Results) -> list[str]:
    """Those that the headline is made of."""
    return [str(name) for name in judged(results)["group"].unique()]


def unit(results: Results) -> str:
    """A row of the table: a corruption, or where some have several severities, one of its sets."""
    table = results.robustness
    several = table[table["method"] == "model"].duplicated("corruption").any()
    return "corrupted set" if several else "corruption"


def _text(text: str) -> Cell:
    return Cell(text, text)


def _set(row: Mapping[Any, Any]) -> str:
    name = str(row["corruption"]).replace("_", " ")
    return name if name == "clean" else f"{name} {row['severity']}"


def outliers(results: Results) -> Iterator[Table]:
    """How well each score finds outliers, in training and in testing."""
    found = results.evaluation.get("outliers")
    if found:
        names = ("auroc", "ap", "fpr95")
        note = "Small figures: 95 % intervals over images. Grey rows: without this model."
        heads = [HEADS[name] for name in ("set", "score", *names)]
        yield Table("Outliers", note, heads, [
            (not row["model"], [_text(row["set"]), _text(row["score"].replace("_", " ")),
                                *(measured(row, name) for name in names)])
            for row in found["table"]
        ])  # fmt: skip


HEADS = {  # of the tables of measurements apart: heading, what it is
    "kind": ("attack", ""), "norm": ("norm", "how the change of an image is measured"),
    "radius": ("radius", "largest change of an image, on [0, 1]"),
    "damage": ("damage", "squared distance per pixel between both reconstructions"),
    "random": ("random", "the same, worst of as many random directions as the attack had steps"),
    "ratio": ("ratio", "damage over that of random directions"), "e_den": COLUMNS["e_den"],
    "set": ("images", ""), "score": ("score", ""), "auroc": ("AUROC", "ties half"),
    "ap": ("average precision", ""), "fpr95": ("FPR95", COLUMNS["fpr95"][1]),
    "images": ("images", ""),
    "fd": ("FD", "Frechet distance of features to those of test images"),
    "kd": ("KD", "squared kernel distance, polynomial of degree 3"),
    "precision": ("precision", "share of these images near test images"),
    "recall": ("recall", "share of test images near these images"),
    "sure": ("sure", "share that the classifier names with more than 0.9"),
    "entropy": ("entropy", "of the shares of the classes, nats"),
}  # fmt: skip
NOTES = {
    "Attacks": "Projected gradient on some test images. Small figures: half a 95 % interval "
    "over images, of AUROC (of the negative ELBO, attacked against clean) both ends.",
    "Foreign images": "Small figures: 95 % intervals over images. Grey rows: the model finds these "
    "images likelier than its own.",
    "Samples": "Features of a classifier of this data set: no FID of the literature, and only "
    "comparable between models of the same data. Grey rows are no samples.",
}
SAMPLED = ("prior", "mixture")


def _apart(results: Results) -> Iterator[Table]:
    """What was measured apart: attacks, foreign images, samples."""
    for name, finding in results.found.items():
        if finding.table is not None:
            shown = [column for column in HEADS if column in finding.table]
            if name == "Samples":
                shown.remove("images")
                shown.insert(0, "images")
            elif name == "Foreign images":
                shown.remove("images")
            yield Table(name, NOTES[name], [HEADS[column] for column in shown], [
                (_quiet(row), [_text(str(row[c]).replace("_", " ")) if isinstance(row[c], str)
                               else measured(row, c) for c in shown])
                for row in finding.table.to_dict("records")
            ])  # fmt: skip


def _quiet(row: Mapping[Any, Any]) -> bool:
    return bool(row.get("likelier", "fd" in row and row["images"] not in SAMPLED))
