"""One self-contained page: tables and figures in, HTML out; opening it fetches nothing."""

import base64
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from robustvae.reporting import first
from robustvae.reporting.cells import Cell, number, se_of, with_error
from robustvae.reporting.tables import Results, groups, judged, tables, unit
from robustvae.runtime import files

LIMIT = 3_000_000  # bytes of the page
WIDTHS = (1800, 1200, 880, 600, 400)  # pixels of the pictures, the first that keeps the limit
QUALITY = 90  # of 100: no blur that the eye finds, in a fifth of the time of a PNG of 256 colours
NORMS = {"l2": "L2 distance of an image", "linf": "change of every pixel"}  # on [0, 1]
SVG_LIMIT = 130_000  # bytes: beyond it an SVG costs more than its sharpness is worth


def page(results: Results, title: str) -> str:
    """The page, its pictures as wide as the limit of three megabytes allows."""
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    ).get_template("page.html")  # fmt: skip
    data, bars = results.config["data"], first.bars(results)
    told = [describe(results.config), *trained(results.config)]
    content = {
        "title": title,
        "eyebrow": "\N{NO-BREAK SPACE}· ".join(dict.fromkeys([data["name"], *told])),
        "verdict": first.verdict(bars),
        "bars": bars,
        "severities": first.severities(results),
        "lead": lead(results),
        "cards": list(cards(results)),
        "warnings": warnings(results),
        "reasons": reasons(results),
        "tables": list(tables(results)),
        "parameters": parameters(results),
        "facts": facts(results),
        "checksums": checksums(results),
        "score": results.evaluation["score"],
        "intros": intros(results),
        "groups": ", ".join(groups(results)) or "none of these was chosen",
    }
    html = ""
    for width in WIDTHS:
        html = template.render(content, sections=pictures(results, width))
        if len(html.encode()) <= LIMIT:
            break
    return html


def warnings(results: Results) -> list[str]:
    """Of training, of the evaluation, of what was measured apart."""
    apart = [text for finding in results.found.values() for text in finding.warnings]
    return [*results.training_warnings, *results.evaluation.get("warnings", []), *apart]


def reasons(results: Results) -> dict[str, str]:
    """What is not reported, and why."""
    found: dict[str, str] = dict(results.evaluation.get("reasons", {}))
    for finding in results.found.values():
        found |= finding.reasons
    return found


def intros(results: Results) -> dict[str, str]:
    """The sentences that say what a section of figures has found."""
    apart = {name: finding.sentence for name, finding in results.found.items()}
    return {"Outliers": outlier_sentence(results), **apart}


def describe(config: Mapping[str, Any]) -> str:
    """The kind of model, its divergence and weight; what it is called, where it is not ours."""
    if "model" not in config:
        return str(config["what"])
    loss, latent, size = config["loss"], config["model"]["latent"], config["model"]["latent_dim"]
    if latent["name"] == "vq":
        return f"VQ-VAE, {latent['codes']} codes of {size} dimensions"
    rest = f"beta {loss['beta']:g}, {size} latents"
    if loss["df"]:
        which = "gamma" if loss["divergence"] == "auto" else loss["divergence"]
        kind = "t3-VAE" if which == "t3" else f"t-VAE, {which.replace('_', ' ')}-divergence"
        return f"{kind}, df {loss['df']:g}, {rest}"
    alpha = 1 if loss["alpha"] is None else loss["alpha"]
    if loss["divergence"] not in ("auto", "alpha", "renyi"):
        return f"VAE, {loss['divergence'].replace('_', ' ')}-divergence, {rest}"
    if loss["divergence"] == "renyi":
        return f"VAE, Rényi divergence of order {alpha:g}, {rest}"
    known = {1: "KL divergence", 0: "reverse KL divergence"}
    kind = known.get(alpha, f"alpha-divergence, alpha {alpha:g}")
    return f"VAE, {kind}, {rest}"


def trained(config: Mapping[str, Any]) -> Iterator[str]:
    """On what, and by what, where a reader would expect clean images and a plain mean."""
    facts, train = config["data"].get("contamination"), config.get("train", {})
    if facts:
        what = {"classes": "other classes", "invert": "inverted"}.get(facts["kind"], facts["kind"])
        if facts["kind"] == "corruption" and "names" in facts:
            what = first.listed([name.replace("_", " ") for name in facts["names"]])
        yield f"trained with {facts['fraction']:.0%} outliers ({what})"
    robust = config.get("loss", {}).get("robust", {"name": "none"})
    if robust["name"] != "none":
        yield f"{robust['name']} {robust['strength']:g}"
    if (noise := train.get("input_noise", {})).get("amount"):
        kind = "Gaussian noise" if noise["name"] == "gaussian" else noise["name"]
        yield f"trained with {kind} {noise['amount']:g}"
    if (mixture := train.get("mixture", {})).get("fraction"):
        yield f"trained with {mixture['fraction']:.0%} {mixture['corruption'].replace('_', ' ')}"


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
    far = f"{abs(gain):.0%}" if abs(gain) >= 0.01 else f"{abs(gain):.1%}"
    return (
        f"Shown a corrupted image, this model gives back the clean one with a mean squared error "
        f"of {error.text}{interval} per pixel. Doing nothing leaves {nothing.text}, the mean "
        f"training image {constant.text}, the better of the two for each corruption {best.text}: "
        f"the model's error is {far} {'below' if gain >= 0 else 'above'} that "
        f"(skill, the mean over corruptions of such shares: {skill.text})."
    )


def cards(results: Results) -> Iterator[tuple[str, Cell, str]]:
    """The few numbers that stand first: name, value, unit or remark."""
    first, collapse = results.metrics["robustness"], results.evaluation.get("collapse", {})
    likelihood, losses = (results.evaluation.get(name, {}) for name in ("likelihood", "losses"))
    error, of = _headline(results, "e_den"), f"mean of {', '.join(groups(results)) or 'none'}"
    yield "Error to the clean image", error, f"squared, per pixel; {of}"
    skill = _headline(results, "skill")
    yield "Skill", skill, f"1 perfect, 0 as the better of identity and mean image; {of}"
    clean = number(results.metrics["test"]["mse"], se_of(losses.get("test", {}).get("mse")))
    yield "Clean error", clean, "squared, per pixel; test images as they are"
    worst = Cell(str(first.get("worst") or "–").replace("_", " ").replace("-", " "))
    yield (
        f"Worst {unit(results)}",
        worst,
        f"error {number(first.get('worst_e_den')).text} per pixel",
    )
    skills = judged(results).groupby("corruption")["skill"].mean(skipna=False).dropna()
    below = number(first.get("skill_below_0"))
    many = "corruption has" if len(skills) == 1 else "corruptions have"
    wins = f"a constant wins on {number(first.get('constant_wins')).text}"
    yield "Worse than a baseline", below, f"of {len(skills)} {many} skill below 0; {wins}"
    yield from _beyond(results)
    if "active_units" in collapse:
        used = Cell(f"{collapse['active_units']} of {collapse['latent_dim']}")
        yield "Active units", used, "latents that vary with the image"
    elif collapse:
        used = number(collapse.get("perplexity"))
        yield "Perplexity", used, f"effective number of {collapse.get('codes')} codes"
    if likelihood:
        what = "density, lower bound" if likelihood.get("density_only") else "lower bound"
        bound = with_error(likelihood.get("log_likelihood"))
        yield "Log-likelihood", bound, f"nats per image; {what}"
    geometric = number(first.get("geometric_e_den"))
    yield "Geometric error", geometric, "per pixel; apart, never in the headline"


def _beyond(results: Results) -> Iterator[tuple[str, Cell, str]]:
    """The same of outliers in training, adversaries, foreign images, samples: what was measured."""
    found = (results.evaluation.get("outliers") or {}).get("headline", {})
    if found.get("found_first") is not None:
        remark = f"of the training images it finds least likely; {found['outliers']:.0%} of all are"
        yield "Outliers found first", Cell(f"{found['found_first']:.0%}"), remark
    attack, foreign, sample = (finding.headline for finding in results.found.values())
    if "margin" in attack and (rows := results.attack.table) is not None:
        margin = attack["margin"]
        known = margin is not None and math.isfinite(margin)
        text = f"{margin:.2g}" if known else f"over {rows['radius'].max():g}"
        unit = NORMS[rows["norm"].iloc[0]]
        remark = f"{unit} that moves a reconstruction by the clean error; median over images"
        yield "Margin under attack", Cell(text), remark
    if "worst_auroc" in foreign and (rows := results.foreign.table) is not None:
        own = rows[rows["score"] == "neg_elbo"].set_index("set")["auroc"]
        remark = f"on {own.idxmin()}, the worst of {len(own)} foreign sets; negative ELBO, AUROC"
        yield "Foreign images noticed", Cell(f"{foreign['worst_auroc']:.2f}"), remark
    if sample.get("fd") is not None:
        floor = number(sample.get("fd_floor")).text
        remark = f"Frechet distance of samples to test images; {floor} for training images"
        yield "Samples", number(sample["fd"]), remark


def pictures(results: Results, width: int) -> dict[str, list[dict[str, str]]]:
    """Figures by section, each as a data URI; those that are not there are left out."""
    sections: dict[str, list[dict[str, str]]] = {}
    for item in results.figures:
        if (results.folder / item["file"]).exists():
            source = embed(results, item, width)
            sections.setdefault(item["section"], []).append({**item, **source})
    return sections


def embed(results: Results, item: Mapping[str, Any], width: int) -> dict[str, str]:
    """A data URI: the SVG where it is small, otherwise the picture as WebP, half of a PNG."""
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
        small.save(buffer, "webp", quality=QUALITY)
        return {"uri": _uri("webp", buffer.getvalue()), **size}


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def outlier_sentence(results: Results) -> str:
    """What the outliers among the training images came to; '' where there were none."""
    found = results.evaluation.get("outliers")
    if not found:
        return ""
    purity, text = found["purity"], found["sentence"]
    if "outlier_like" not in purity:
        return f"{text} Purity of samples: not measured ({purity['reason']})."
    share, low, high = (f"{purity[name]:.2%}" for name in ("outlier_like", "low", "high"))
    wrong = f"{purity['false_alarms']:.1%} of clean test images, {purity['misses']:.1%}"
    return (
        f"{text} Of {purity['samples']:,} samples from the prior {share} look like outliers (95 % "
        f"interval {low} to {high}), to a detector that is wrong on {wrong} of test outliers."
    )


def parameters(results: Results) -> dict[str, list[tuple[str, str]]]:
    """Section -> (key, value) of everything the run was made of."""
    config, data = results.config, results.config["data"]
    kept = ("name", "shape", "counts", "binarize", "threshold", "split_seed")
    stained = data.get("contamination", {})
    sections = {
        "run": config.get("run", {}), "data": {k: data[k] for k in kept if k in data},
        "contamination": {k: v for k, v in stained.items() if k not in ("checksums", "counts")},
        "corruptions": {k: v for k, v in results.corrupted.items() if k != "sets"},
        **{name: config.get(name, {}) for name in ("model", "loss", "train")},
    }  # fmt: skip
    return {name: list(_flat(section)) for name, section in sections.items() if section}


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
    """SHA-256 of the prepared, the contaminated and the corrupted images."""
    data = results.config["data"]
    stained = data.get("contamination", {}).get("checksums", {})
    corrupted = {item["file"]: item["sha256"] for item in results.corrupted.get("sets", [])}
    apart = {f"contaminated {file}": digest for file, digest in stained.items()}
    return [*data.get("checksums", {}).items(), *apart.items(), *corrupted.items()]


def _headline(results: Results, name: str) -> Cell:
    """A mean over groups."""
    error = results.evaluation.get("headline_se", {}).get(name)
    return number(results.metrics["robustness"].get(name), math.nan if error is None else error)
