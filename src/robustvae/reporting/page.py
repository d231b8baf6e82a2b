"""One self-contained page: tables and figures in, HTML out; opening it fetches nothing."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image

from robustvae.reporting.cells import Cell, measured, name_of, number, se_of, with_error
from robustvae.runtime import files

APART = ("geometric", "clean")  # groups that have no part in the headline
LIMIT = 5_000_000  # bytes of the page
WIDTHS = (1800, 1200, 880, 600, 400)  # pixels of the pictures, the first that keeps the limit
SVG_LIMIT = 130_000  # bytes: beyond it an SVG costs more than its sharpness is worth
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


def page(results: Results, title: str) -> str:
    """The page, its pictures as wide as the limit of five megabytes allows."""
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    ).get_template("page.html")  # fmt: skip
    data = results.config["data"]
    content = {
        "title": title,
        "eyebrow": f"{data['name']} · {describe(results.config)}",
        "lead": lead(results),
        "cards": list(cards(results)),
        "warnings": [*results.training_warnings, *results.evaluation.get("warnings", [])],
        "reasons": results.evaluation.get("reasons", {}),
        "tables": list(tables(results)),
        "parameters": parameters(results),
        "facts": facts(results),
        "checksums": checksums(results),
        "score": results.evaluation["score"],
        "groups": ", ".join(_groups(results)) or "none of these was chosen",
    }
    html = ""
    for width in WIDTHS:
        html = template.render(content, sections=pictures(results, width))
        if len(html.encode()) <= LIMIT:
            break
    return html


def describe(config: Mapping[str, Any]) -> str:
    """The kind of model, its divergence and weight."""
    loss, latent, size = config["loss"], config["model"]["latent"], config["model"]["latent_dim"]
    if latent["name"] == "vq":
        return f"VQ-VAE, {latent['codes']} codes of {size} dimensions"
    rest = f"beta {loss['beta']:g}, {size} latents"
    if loss["df"]:
        kind = "t3-VAE" if loss["divergence"] == "t3" else "t-VAE, gamma-divergence"
        return f"{kind}, df {loss['df']:g}, {rest}"
    alpha = 1 if loss["alpha"] is None else loss["alpha"]
    if loss["divergence"] == "renyi":
        return f"VAE, Rényi divergence of order {alpha:g}, {rest}"
    known = {1: "KL divergence", 0: "reverse KL divergence"}
    kind = known.get(alpha, f"alpha-divergence, alpha {alpha:g}")
    return f"VAE, {kind}, {rest}"


def lead(results: Results) -> str:
    """The answer in one sentence."""
    error, skill = _headline(results, "e_den"), _headline(results, "skill")
    means = results.evaluation.get("aggregates", {}).get("model", {}).get("headline", {})
    bases = [number(means.get(name)) for name in ("e_id", "e_const", "e_best")]
    if error.value is None or skill.value is None or any(base.value is None for base in bases):
        reasons = results.evaluation.get("reasons", {})
        missing = "e_den" if error.value is None else "skill"
        why = reasons.get(f"robustness.{missing}", "it was not measured")
        return f"The error to the clean image and its skill are not reported: {why}."
    interval = f" ± {error.interval}" if error.interval else ""
    nothing, constant, best = bases
    gain = 1 - means["e_den"] / means["e_best"]
    return (
        f"Shown a corrupted image, this model gives back the clean one with a mean squared error "
        f"of {error.text}{interval} per pixel. Doing nothing leaves {nothing.text}, the mean "
        f"training image {constant.text}, the better of the two for each corruption {best.text}: "
        f"the model's error is {abs(gain):.0%} {'below' if gain >= 0 else 'above'} that "
        f"(skill, the mean over corruptions of such shares: {skill.text})."
    )


def cards(results: Results) -> Iterator[tuple[str, Cell, str]]:
    """The few numbers that stand first: name, value, unit or remark."""
    first, collapse = results.metrics["robustness"], results.evaluation["collapse"]
    likelihood, losses = (results.evaluation.get(name, {}) for name in ("likelihood", "losses"))
    error, groups = _headline(results, "e_den"), f"mean of {', '.join(_groups(results)) or 'none'}"
    yield "Error to the clean image", error, f"squared, per pixel; {groups}"
    skill = _headline(results, "skill")
    yield "Skill", skill, f"1 perfect, 0 as the better of identity and mean image; {groups}"
    clean = number(results.metrics["test"]["mse"], se_of(losses.get("test", {}).get("mse")))
    yield "Clean error", clean, "squared, per pixel; test images as they are"
    worst = Cell(str(first.get("worst") or "–").replace("_", " ").replace("-", " "))
    yield (
        f"Worst {_unit(results)}",
        worst,
        f"error {number(first.get('worst_e_den')).text} per pixel",
    )
    skills = _judged(results).groupby("corruption")["skill"].mean(skipna=False).dropna()
    below = number(first.get("skill_below_0"))
    many = "corruption has" if len(skills) == 1 else "corruptions have"
    wins = f"a constant wins on {number(first.get('constant_wins')).text}"
    yield "Worse than a baseline", below, f"of {len(skills)} {many} skill below 0; {wins}"
    if "active_units" in collapse:
        used = Cell(f"{collapse['active_units']} of {collapse['latent_dim']}")
        yield "Active units", used, "latents that vary with the image"
    else:
        used = number(collapse.get("perplexity"))
        yield "Perplexity", used, f"effective number of {collapse.get('codes')} codes"
    what = "density, lower bound" if likelihood.get("density_only") else "lower bound"
    yield "Log-likelihood", with_error(likelihood.get("log_likelihood")), f"nats per image; {what}"
    geometric = number(first.get("geometric_e_den"))
    yield "Geometric error", geometric, "per pixel; apart, never in the headline"


def tables(results: Results) -> Iterator[Table]:
    """Everything that was measured, the short tables first."""
    images = f"n = {results.config['data']['counts']['test']:,} test images"
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
    table = results.robustness
    shown = [name for name in COLUMNS if name in table and table[name].notna().any()]
    heads = [COLUMNS[name] for name in shown]
    one = _unit(results)
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
    heads = [("corruption", "with its severity"), ("group", ""), ("method", ""), *heads]
    yield Table(f"Every {one}", note, heads, [
        (row["method"] != "model", [
            _text(_set(row)), _text(row["group"]), _text(METHODS[row["method"]]),
            *(measured(row, name) for name in shown)])
        for row in table.to_dict("records")
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


def _judged(results: Results) -> pd.DataFrame:
    """What the model makes of the sets that the headline is made of."""
    table = results.robustness
    return table[(table["method"] == "model") & ~table["group"].isin(APART)]


def _groups(results: Results) -> list[str]:
    return [str(name) for name in _judged(results)["group"].unique()]


def _unit(results: Results) -> str:
    """A row of the table: a corruption, or where some have several severities, one of its sets."""
    table = results.robustness
    several = table[table["method"] == "model"].duplicated("corruption").any()
    return "corrupted set" if several else "corruption"


def _text(text: str) -> Cell:
    return Cell(text, text)


def _set(row: Mapping[Any, Any]) -> str:
    name = str(row["corruption"]).replace("_", " ")
    return name if name == "clean" else f"{name} {row['severity']}"


def pictures(results: Results, width: int) -> dict[str, list[dict[str, str]]]:
    """Figures by section, each as a data URI; those that are not there are left out."""
    sections: dict[str, list[dict[str, str]]] = {}
    for item in results.figures:
        if (results.folder / item["file"]).exists():
            source = embed(results, item, width)
            sections.setdefault(item["section"], []).append({**item, **source})
    return sections


def embed(results: Results, item: Mapping[str, Any], width: int) -> dict[str, str]:
    """A data URI: the SVG where it is small, otherwise the PNG in at most 256 colours."""
    picture, vector = results.folder / item["file"], results.vectors / str(item.get("vector"))
    try:
        with Image.open(picture) as image:
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise files.damaged(picture, error) from error
    size = {"width": str(small.width), "height": str(small.height)}
    if vector.suffix == ".svg" and vector.is_file() and vector.stat().st_size < SVG_LIMIT:
        drawing = vector.read_bytes()
        if not drawing.rstrip().endswith(b"</svg>"):
            raise files.damaged(vector, ValueError("no whole SVG drawing"))
        return {"uri": _uri("svg+xml", drawing), **size}
    small.thumbnail((width, 100 * width), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        small.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        return {"uri": _uri("png", buffer.getvalue()), **size}


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def parameters(results: Results) -> dict[str, list[tuple[str, str]]]:
    """Section -> (key, value) of everything the run was made of."""
    config, data = results.config, results.config["data"]
    kept = ("name", "shape", "counts", "binarize", "threshold", "split_seed")
    sections = {
        "run": config.get("run", {}), "data": {k: data[k] for k in kept if k in data},
        "corruptions": {k: v for k, v in results.corrupted.items() if k != "sets"},
        "model": config["model"], "loss": config["loss"], "train": config.get("train", {}),
    }  # fmt: skip
    return {name: list(_flat(section)) for name, section in sections.items()}


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "null" if value is None else str(value)


def facts(results: Results) -> list[tuple[str, str]]:
    """Size, origin and versions."""
    config, data = results.config, results.config["data"]
    known = {
        "parameters of the model": f"{config['parameters']:,}" if "parameters" in config else None,
        "epoch kept": config.get("best_epoch"), "precision": config.get("precision"),
        "compiled": config.get("compile"),
        "licence of the data": data.get("licence"), **config.get("versions", {}),
    }  # fmt: skip
    return [(name, str(value)) for name, value in known.items() if value is not None]


def checksums(results: Results) -> list[tuple[str, str]]:
    """SHA-256 of the prepared and the corrupted images."""
    prepared = results.config["data"].get("checksums", {})
    corrupted = {item["file"]: item["sha256"] for item in results.corrupted.get("sets", [])}
    return [*prepared.items(), *corrupted.items()]


def _headline(results: Results, name: str) -> Cell:
    """A mean over groups."""
    error = results.evaluation.get("headline_se", {}).get(name)
    return number(results.metrics["robustness"].get(name), math.nan if error is None else error)
