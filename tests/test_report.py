"""The page: complete, small, sortable, and silent towards the network."""

import base64
import dataclasses
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robustvae.errors import UserError
from robustvae.reporting import cells, first, tables
from robustvae.reporting import page as report
from robustvae.reporting.tables import Results
from robustvae.robustness.finding import Finding
from robustvae.runtime import files

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
SETS = [
    ("clean", "clean", 0),
    ("shot_noise", "noise", 5),
    ("fog", "photometric", 5),
    ("shear", "geometric", 2),
]


def table() -> pd.DataFrame:
    rows = []
    for place, (name, group, severity) in enumerate(SETS):
        for method in ("model", "identity", "mean_image"):
            row: dict[str, Any] = {"corruption": name, "group": group, "severity": severity}
            row |= {"default": True, "method": method, "n": 50}
            row |= {
                "e_id": 0.02,
                "e_den": 0.01 * (4 - place),
                "e_den_se": 0.001,
                "skill": 0.3 - place,
                "skill_se": 0.1,
                "skill_id": 0.3 - place,
                "skill_const": 0.3 - place,
            }
            row |= {"auroc": 0.9 if method == "model" and place else np.nan, "auroc_se": np.nan}
            rows.append(row)
    return pd.DataFrame(rows)


def picture(path: Path, side: int = 64, noise: bool = False) -> None:
    pixels = np.full((side, side, 3), 200, np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    figures = []
    for name in ("one", "two", "gone"):
        figures.append({
            "file": f"{name}.png", "vector": None, "section": "Robustness",
            "title": f"Figure {name}", "caption": "How to read <it>.",
        })  # fmt: skip
    picture(tmp_path / "one.png")
    picture(tmp_path / "two.png")
    (tmp_path / "two.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><path d="M0 0h9"/></svg>'
    )
    figures[1]["vector"] = "two.svg"
    mean = {"value": 0.0123, "se": 0.0004}
    return Results(
        metrics={
            "test": {"recon": 1.0, "divergence": 1.0, "total": 2.0, "mse": 0.0123},
            "likelihood": {"elbo": -480.25, "iwae_64": None, "bits_per_dim": 1.5},
            "robustness": {"e_den": 0.025, "skill": -0.2, "worst": "shot_noise-5",
                           "worst_e_den": 0.03, "skill_below_0": 1, "geometric_e_den": None},
        },
        evaluation={
            "warnings": ["skill below 0 on <fog>"], "losses": {"test": {"mse": mean}},
            "likelihood": {"elbo": {"value": -480.25, "se": 0.5}, "iwae_64": None,
                           "log_likelihood": {"value": -480.25, "se": 0.5}, "images": 50},
            "collapse": {"verdict": "partly unused", "active_units": 3, "latent_dim": 16,
                         "aggregate_gap": None},
            "score": "cross-entropy + KL", "headline_se": {"e_den": 0.00102, "skill": 0.05},
            "reasons": {"likelihood.iwae_64": "vq has nothing to weight"},
            "shares": {"groups": {"noise": 0.25, "blur": 0.75}, "corruptions": {"fog": 0.75}},
            "aggregates": {"model": {"headline": {"e_den": 0.025, "e_id": 0.0204,
                                                  "e_const": 0.03, "e_best": 0.02},
                                     "noise": {"e_den": 0.03}}},
        },
        losses=pd.DataFrame({"split": ["train", "val", "test"], "recon": [2.0, np.nan, 10.0]}),
        robustness=table(),
        config={
            "data": {"name": "toy", "counts": {"test": 50}, "licence": "CC0",
                     "checksums": {"test.npy": "ab12"}},
            "model": {"latent_dim": 16, "latent": {"name": "auto"}},
            "loss": {"divergence": "auto", "alpha": 1.0, "beta": 4.0, "df": 0},
            "versions": {"torch": "2.0"},
        },
        corrupted={"seed": 7, "sets": [{"file": "fog-5.npy", "sha256": "cd34"}]},
        figures=figures, folder=tmp_path, vectors=tmp_path, training_warnings=("stopped early",),
    )  # fmt: skip


def test_page_holds_numbers_figures_parameters_origin_and_warnings(results: Results) -> None:
    page = report.page(results, "A <title>")
    for text in (
        "<h1>A &lt;title&gt;</h1>", "toy\xa0· VAE, KL divergence, beta 4, 16 latents",
        "a mean squared error of 0.0250 ± 0.0020 per pixel. Doing nothing leaves 0.0204, the mean "
        "training image 0.03, the better of the two for each corruption 0.02: the model&#39;s "
        "error is 25% above that (skill, the mean over corruptions of such shares: −0.200).",
        "headline&#39;s error: noise 25%, blur 75%; fog alone 75%.",
        "mean of noise, photometric", "here of: noise, photometric", "Every corruption",
        "AUROC and FPR95: of the cross-entropy + KL.", "of 2 corruptions have skill below 0",
        "Nats per image.", "importance-weighted bound, K = 64 / nats",
        "stopped early", "skill below 0 on &lt;fog&gt;", "vq has nothing to weight", "3 of 16",
        "shot noise 5", "ab12", "cd34", "CC0", "<dt>seed</dt><dd>7</dd>", "How to read &lt;it&gt;.",
    ):  # fmt: skip
        assert text in page, text
    assert not re.search(r"\b(nan|None|inf)\b", re.sub("data:[^\"']+", "", page))


def first_screen(results: Results, **of: dict[str, float]) -> dict[str, list[first.Bar]]:
    """Bars of a table in which quantities of corruptions have other values."""
    table = results.robustness.copy()
    for name, values in of.items():
        for quantity, value in values.items():
            table.loc[(table["corruption"] == name) & (table["method"] == "model"), quantity] = (
                value
            )
    return first.bars(dataclasses.replace(results, robustness=table))


def test_bars_fall_by_skill_and_lose_where_their_interval_lies_below_a_baseline(
    results: Results,
) -> None:
    parts = first_screen(
        results,
        fog={"skill": 0.5, "skill_id": 0.5, "skill_const": 0.9},
        shot_noise={"skill": -3.0, "skill_id": 0.1, "skill_const": -3.0},
        shear={"skill": 0.05, "skill_se": 0.04, "skill_id": 0.05, "skill_const": 0.4},
    )
    won, lost = parts["headline"]
    assert (won.name, won.severity, won.state, won.verdict) == ("fog", 5, "wins", "beats both")
    assert won.fill == (50, 25)  # from 0 to 0.5 on an axis from -1 to 1
    assert won.ends == (65.2, 19.6)  # 0.5 +- 1.96 * 0.1
    assert (lost.name, lost.state, lost.verdict) == ("shot noise", "loses", "mean image better")
    assert lost.fill == (0, 50)  # cut at -1
    assert (parts["apart"][0].name, parts["apart"][0].state) == ("shear", "unclear")
    assert first.verdict(parts) == (
        "On 1 of 2 corruptions this model beats both doing nothing and the mean training image; "
        "the mean image is better on shot noise."
    )


@pytest.mark.parametrize(
    ("skill", "text"),
    [(0.9, "On all 2 corruptions this model beats both"),
     (0.0, "On none of 2 corruptions does this model beat both")],
)  # fmt: skip
def test_the_verdict_names_all_and_none(results: Results, skill: float, text: str) -> None:
    same = {"skill": skill, "skill_id": skill, "skill_const": skill}
    said = first.verdict(first_screen(results, fog=same, shot_noise=same))
    assert said.startswith(text)
    if not skill:
        assert said.endswith("; shot noise and fog are too close to call.")


def test_the_first_screen_shows_the_default_severity_or_the_strongest(results: Results) -> None:
    table = results.robustness
    other = table[table["corruption"] == "fog"].assign(severity=1)
    for default, shown in ((True, 5), (False, 1)):
        both = pd.concat([table.assign(default=default), other.assign(default=not default)])
        several = dataclasses.replace(results, robustness=both)
        assert [bar.severity for bar in first.bars(several)["headline"] if bar.name == "fog"] == [
            shown
        ]
        assert "Of several severities" in report.page(several, "t")


@pytest.mark.parametrize("group", ["photometric", "geometric"])
def test_one_kind_of_corruption_alone_has_its_picture(results: Results, group: str) -> None:
    table = results.robustness
    one = dataclasses.replace(results, robustness=table[table["group"].isin([group, "clean"])])
    assert report.page(one, "t").count('<span class="bar"') == 1


def test_results_without_skill_or_small_pictures_have_a_page(results: Results) -> None:
    page = report.page(results, "t")
    assert page.count("<img") == 2  # the figures: no small pictures were written
    without = results.robustness.assign(skill=np.nan)
    page = report.page(dataclasses.replace(results, robustness=without), "t")
    assert "this model beat" not in page
    assert '<figure class="bars">' not in page


class Elements(HTMLParser):
    """Every element with its attributes; those that hold others must be closed in order."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_can_be_read_without_seeing_it(results: Results) -> None:
    image = "data:image/png;base64,AAAA"
    files.write_json(results.vectors / "examples.json", [
        {"corruption": "fog", "severity": 5, "images": [image] * 3}
    ])  # fmt: skip
    elements = Elements(report.page(results, "t"))
    assert not elements.open
    assert elements.of("html") == [{"lang": "en"}]
    texts = [img["alt"] for img in elements.of("img")]
    assert texts[:3] == ["a test image, clean", "the same image with fog",
                         "what the model gives back"]  # fmt: skip
    assert all(texts)
    pictures = [a["aria-label"] for _, a in elements.found if a.get("role") == "img"]
    assert pictures[0] == "skill −0.70 plus or minus 0.20"
    named = [a["id"] for _, a in elements.found if "id" in a]
    assert len(named) == len(set(named))
    assert {a["href"].removeprefix("#") for a in elements.of("a")} <= set(named)
    scrolling = [a for a in elements.of("div") if "wide" in (a.get("class") or "").split()]
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolling)
    assert len(scrolling) == len(elements.of("table"))


def test_the_lead_compares_the_numbers_that_it_gives(results: Results) -> None:
    # skill is a mean of ratios: one corruption that barely changes the image can turn its sign
    results.metrics["robustness"] |= {"e_den": 0.073, "skill": -0.84}
    means = {"e_den": 0.073, "e_id": 0.098, "e_const": 0.2, "e_best": 0.0976}
    results.evaluation["aggregates"]["model"]["headline"] = means
    said = report.lead(results)
    assert "the model's error is 25% below that" in said
    assert said.endswith("such shares: −0.840).")
    means["e_best"] = 0.0733
    assert "the model's error is 0.4% below that" in report.lead(results)


@pytest.mark.parametrize("gone", ["e_den", "skill"])
def test_the_lead_gives_the_reason_where_there_is_no_headline(results: Results, gone: str) -> None:
    results.metrics["robustness"][gone] = None
    results.evaluation["reasons"][f"robustness.{gone}"] = "no corruption was chosen"
    said = "The error to the clean image and its skill are not reported: no corruption was chosen."
    assert report.lead(results) == said


def test_sets_are_called_sets_where_a_corruption_has_several_severities(results: Results) -> None:
    table = results.robustness
    more = table[table["corruption"] == "fog"].assign(severity=1)
    both = dataclasses.replace(results, robustness=pd.concat([table, more], ignore_index=True))
    page = report.page(both, "t")
    for text in ("Every corrupted set", "Worst corrupted set", "of 2 corruptions have"):
        assert text in page
    one = dataclasses.replace(results, robustness=table[table["corruption"] != "fog"])
    assert "of 1 corruption has skill below 0" in report.page(one, "t")


@pytest.mark.parametrize(
    ("latent", "divergence", "text"),
    [("auto", "auto", "Nats per image."), ("vq", "auto", "which is no nats"),
     ("auto", "t3", "no nats. recon: ½‖x − x̂‖²/σ²")],
)  # fmt: skip
def test_only_what_is_in_nats_is_said_to_be(latent: str, divergence: str, text: str) -> None:
    config = {"model": {"latent": {"name": latent}}, "loss": {"divergence": divergence}}
    assert text in tables.units(config)


def test_missing_figures_are_left_out_and_the_svg_is_taken_where_there_is_one(
    results: Results,
) -> None:
    page = report.page(results, "t")
    uris = re.findall(r'<img src="data:image/([^;]+);base64,([^"]+)"', page)
    assert [kind for kind, _ in uris] == ["webp", "svg+xml"]
    with Image.open(io.BytesIO(base64.b64decode(uris[0][1]))) as image:
        assert image.convert("RGB").getpixel((0, 0)) == pytest.approx((200, 200, 200), abs=2)


def test_nothing_on_the_page_points_outside(results: Results) -> None:
    page = re.sub(r'data:image/[^"]+', "", report.page(results, "t"))
    assert not re.findall(
        r"""(?:https?:)?//[\w.]+|url\(|@import|<link(?! rel="icon")|<iframe""", page
    )


def test_pictures_shrink_until_the_page_is_below_its_limit(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report.LIMIT == 3_000_000
    results.figures[1]["vector"] = None
    for item in results.figures[:2]:
        picture(results.folder / item["file"], 200, noise=True)
    monkeypatch.setattr(report, "WIDTHS", (400, 100))
    natural = len(report.page(results, "t").encode())
    monkeypatch.setattr(report, "LIMIT", natural - 1)
    assert len(report.page(results, "t").encode()) < natural


@pytest.mark.parametrize(
    ("value", "se", "text", "interval"),
    [
        (0.0336259, 0.0005, "0.03363", "0.00098"), (-482.475, 0.175, "−482.48", "0.34"),
        (12345.6, None, "12,346", ""), (0.5, 0.0, "0.5", ""), (None, None, "–", ""),
        (float("nan"), 1.0, "–", ""), (153.2, 12.0, "153", "24"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_to_their_interval(
    value: float | None, se: float | None, text: str, interval: str
) -> None:
    cell = cells.number(value, se)
    assert (cell.text, cell.interval) == (text, interval)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("iwae_64", "importance-weighted bound, K = 64 / nats"),
        ("iwae_64_wide_1.5", "bound, K = 64, proposal 1.5 times as wide as the posterior / nats"),
        ("iwae_alt_prior_8", "the same, K = 8, under the law that samples are drawn from / nats"),
        ("iwae_alt_prior_8_wide_2", "the same, K = 8, proposal 2 times as wide as the posterior,"),
        ("rise_1024", "its rise with K = 1024, the first few images / nats"),
    ],
)
def test_bounds_are_named_with_their_draws_and_width(key: str, text: str) -> None:
    assert text in cells.name_of(key)


def test_a_rate_shows_both_ends_of_its_interval(results: Results) -> None:
    row = {"auroc": 0.998, "auroc_se": 0.001, "auroc_low": 0.9941, "auroc_high": 0.99932}
    cell = cells.measured(row, "auroc")
    assert (cell.text, cell.interval, cell.ends) == ("0.9980", "", "0.9941 … 0.9993")
    assert cells.measured(row | {"auroc": float("nan")}, "auroc").text == "–"
    both = {f"auroc{end}": row[f"auroc{end}"] for end in ("", "_low", "_high")}
    shown = dataclasses.replace(results, robustness=results.robustness.assign(**both))
    assert '<span class="pm">0.9941 … 0.9993</span>' in report.page(shown, "t")


@pytest.mark.parametrize(
    ("loss", "latent", "text"),
    [
        ({"df": 3.0}, "auto", "t-VAE, gamma-divergence, df 3, beta 1, 8 latents"),
        ({"df": 3.0, "divergence": "t3"}, "auto", "t3-VAE, df 3, beta 1, 8 latents"),
        ({"alpha": 0.5}, "auto", "VAE, alpha-divergence, alpha 0.5, beta 1, 8 latents"),
        ({"divergence": "renyi", "alpha": 2.0}, "auto",
         "VAE, Rényi divergence of order 2, beta 1, 8 latents"),
        ({"alpha": None}, "auto", "VAE, KL divergence, beta 1, 8 latents"),
        ({"divergence": "renyi", "alpha": None}, "auto",
         "VAE, Rényi divergence of order 1, beta 1, 8 latents"),
        ({}, "vq", "VQ-VAE, 64 codes of 8 dimensions"),
    ],
)  # fmt: skip
def test_the_kind_of_model_is_named(loss: dict[str, Any], latent: str, text: str) -> None:
    known = {"divergence": "auto", "alpha": 1.0, "beta": 1.0, "df": 0.0}
    model = {"latent_dim": 8, "latent": {"name": latent, "codes": 64}}
    assert report.describe({"loss": known | loss, "model": model}) == text


def test_the_first_screen_says_on_what_the_model_was_trained(results: Results) -> None:
    config = results.config
    assert f">toy\xa0· {report.describe(config)}</p>" in report.page(results, "t")
    stained = {"kind": "corruption", "fraction": 0.3, "names": ["stripe", "fog"], "severity": 5}
    stained |= {"checksums": {"train.npy": "ef56"}}
    config["data"]["contamination"] = stained
    config["loss"]["robust"] = {"name": "trimmed", "strength": 0.35, "after": 1.0}
    config["train"] = {
        "input_noise": {"name": "gaussian", "amount": 0.1},
        "mixture": {"fraction": 0.2, "corruption": "shot_noise"},
    }
    page = report.page(results, "t")
    assert list(report.trained(config)) == [
        "trained with 30% outliers (stripe and fog)",
        "trimmed 0.35",
        "trained with Gaussian noise 0.1",
        "trained with 20% shot noise",
    ]
    assert all(text in page for text in report.trained(config))
    assert "<dt>severity</dt><dd>5</dd>" in page
    assert "<dt>contaminated train.npy</dt><dd><code>ef56</code></dd>" in page
    foreign = {"data": {**config["data"], "name": "AE"}, "what": "AE"}
    assert ">AE\xa0· trained with 30% outliers" in report.page(
        dataclasses.replace(results, config=foreign, losses=pd.DataFrame()), "t"
    )
    stained |= {"kind": "classes", "inliers": [3]}
    assert next(report.trained(config)).endswith("(other classes)")


@pytest.mark.parametrize("margin", [2.13, None, math.inf])
def test_attacks_foreign_images_samples_and_outliers_stand_beside_the_corruptions(
    results: Results, margin: float | None
) -> None:
    before = {name for name, _, _ in report.cards(results)}
    radii = pd.DataFrame({"kind": ["output"] * 2, "norm": ["l2"] * 2, "radius": [1.0, 3.0],
                          "damage": [0.1, 0.2]})  # fmt: skip
    sets = pd.DataFrame({"set": ["black", "black", "noise"], "score": ["e_self", *["neg_elbo"] * 2],
                         "auroc": [0.01, 0.02, 0.99], "likelier": [True, True, False],
                         "images": 9})  # fmt: skip
    drawn = pd.DataFrame({"images": ["train", "prior"], "fd": [0.711, 39.7]})
    outliers = {"headline": {"found_first": 0.98, "outliers": 0.1}, "sentence": "", "table": []}
    shown = dataclasses.replace(
        results,
        attack=Finding(radii, {"margin": margin}),
        foreign=Finding(sets, {"worst_auroc": 0.02}),
        sample=Finding(drawn, {"fd": 39.7, "fd_floor": 0.711}),
        evaluation={**results.evaluation, "outliers": outliers},
    )
    told = {name: (cell.text, remark) for name, cell, remark in report.cards(shown)}
    added = {name: told[name] for name in told if name not in before}
    assert list(added) == [
        "Outliers found first", "Margin under attack", "Foreign images noticed", "Samples"
    ]  # fmt: skip
    assert added["Margin under attack"][0] == ("2.1" if margin == 2.13 else "over 3")
    assert added["Margin under attack"][1].startswith("L2 distance of an image that moves")
    linf = dataclasses.replace(shown, attack=Finding(radii.assign(norm="linf"), {"margin": margin}))
    remarks = {name: remark for name, _, remark in report.cards(linf)}
    assert remarks["Margin under attack"].startswith("change of every pixel that moves")
    assert added["Foreign images noticed"][0] == "0.02"
    assert added["Foreign images noticed"][1].startswith("on black, the worst of 2 foreign sets")
    assert added["Samples"] == (
        "39.7", "Frechet distance of samples to test images; 0.711 for training images"
    )  # fmt: skip
    assert added["Outliers found first"][0] == "98%"
    purity = {"reason": "too few"}
    outliers |= {"purity": purity}
    page = report.page(shown, "t")
    for what in ("damage, margin", "scores of images", "FD, KD"):
        assert f"<td>{what}</td>" in page
        assert f"<td>{what}</td>" not in report.page(results, "t")


def test_a_finding_comes_back_from_its_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"set": ["black"], "auroc": [0.02]})
    words = {"worst_auroc": 0.02, "margin": math.inf}
    told = Finding(table, words, "A sentence.", ["a warning"], {"x": "why"}, {"a": np.ones(2)})
    told.save(tmp_path / "foreign")
    read = Finding.load(tmp_path / "foreign")
    assert read.table is not None
    assert read.table.equals(table)
    assert read.headline == {"worst_auroc": 0.02, "margin": None}
    assert (read.sentence, read.warnings, read.reasons) == (
        "A sentence.",
        ["a warning"],
        {"x": "why"},
    )
    assert read.arrays["a"].tolist() == [1, 1]
    assert files.read_json(tmp_path / "foreign.json") == read.headline
    Finding(reasons={"outliers": "none"}).save(tmp_path / "foreign")
    read = Finding.load(tmp_path / "foreign")
    assert read.table is None
    assert read.reasons == {"outliers": "none"}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        reason = (
            "no Chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)"
        )
        print(reason)
        pytest.skip(reason)
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def column(browser: Any, number: int, index: int) -> list[str]:
    return browser.execute_script(
        "const t = document.querySelectorAll('table.sortable')[arguments[0]];"
        "return [...t.tBodies[0].rows].map(r => r.cells[arguments[1]].firstChild.data)",
        number, index,
    )  # fmt: skip


@pytest.mark.slow
def test_a_real_browser_shows_sorts_and_stays_silent(
    browser: Any, results: Results, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "report.html"
    path.write_text(report.page(results, "t"), encoding="utf-8")
    browser.get(path.as_uri())

    widths = browser.execute_script(
        "return [...document.images].map(i => i.complete && i.naturalWidth)"
    )
    assert widths == [64, 64]

    heads = browser.find_elements(By.CSS_SELECTOR, "table.sortable")[0].find_elements(
        By.TAG_NAME, "button"
    )
    heads[1].click()  # recon, with a gap
    assert column(browser, 0, 1) == ["2", "10", "–"]
    heads[1].send_keys(Keys.ENTER)
    assert column(browser, 0, 1) == ["10", "2", "–"]
    heads[0].send_keys(Keys.SPACE)
    assert column(browser, 0, 0) == ["test", "train", "val"]
    state = "return document.querySelectorAll('th[aria-sort=ascending]').length"
    assert browser.execute_script(state) == 1

    rows = "return [...document.querySelectorAll('tr.quiet')].filter(r => r.offsetHeight).length"
    assert browser.execute_script(rows) == 8
    browser.find_element(By.ID, "baselines").click()
    assert browser.execute_script(rows) == 0

    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    bottom = "return document.querySelector('.bars').getBoundingClientRect().bottom"
    for width in (1440, 768, 390):  # only tables and figures scroll sideways
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script(wide) <= 0
        if width == 1440:
            assert browser.execute_script(bottom) < 900

    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    asked = {e["request"]["url"] for e in sent if e["documentURL"] == path.as_uri()}
    assert path.as_uri() in asked
    assert {url.split(":")[0] for url in asked} == {"file", "data"}


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_figure_is_one_line(results: Results, content: bytes) -> None:
    name = results.figures[0]["file"]
    (results.folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: damaged or missing .*dvc checkout"):
        report.pictures(results, 400)
