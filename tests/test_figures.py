"""Figures carry the data and labels they should, and the same bytes every time."""

import base64
import dataclasses
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image
from scipy import stats
from sklearn import metrics as reference
from test_quantiles import of_scipy

from robustvae.models.autoencoder import Autoencoder
from robustvae.reporting import figures
from robustvae.reporting.figures import GALLERY, Run, charts, latent, pictures
from robustvae.reporting.figures.style import CLASSES, save
from robustvae.robustness.quantiles import Law, qq

N, SIDE = 40, 16
SETS = [
    {"name": name, "severity": 2, "group": group, "default": True}
    for name, group in (("shot_noise", "noise"), ("glass_blur", "blur"), ("shear", "geometric"))
]
KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"model.likelihood": {"name": "bernoulli"}},
    "student_t": {"loss.df": 3.0},
    "t3": {"loss": {"divergence": "t3", "df": 3.0}, "model.likelihood.name": "student_t"},
    "vq": {
        "model.latent": {"name": "vq", "codes": 8},
        "model.architecture": {"name": "conv", "channels": [4, 4]},
    },
}


def table(sets: list[dict[str, Any]]) -> pd.DataFrame:
    clean = {"name": "clean", "severity": 0, "group": "clean", "default": True}
    rows = []
    for (place, item), method in itertools.product(
        enumerate([clean, *sets]), ["model", "identity", "mean_image"]
    ):
        known = {"corruption": item["name"], "method": method, "n": N}
        values = dict.fromkeys(("e_den", "skill", "ssim_den", "auroc", "probe"), 0.01 * (place + 1))
        if method != "model":
            values |= {"auroc": np.nan, "probe": np.nan}
        errors = {f"{q}_se": 0.001 for q in values}
        rows.append(
            {**known, "group": item["group"], "severity": item["severity"], **values, **errors}
        )
    return pd.DataFrame(rows)


@pytest.fixture
def make_run(make_params: Callable[..., Any]) -> Callable[..., Run]:
    def make(kind: str = "gaussian", channels: int = 1, latent_dim: int = 4,
             sets: list[dict[str, Any]] = SETS, **changes: Any) -> Run:  # fmt: skip
        settings = make_params({
            "model.latent_dim": latent_dim, "model.architecture": {"name": "mlp", "channels": [16]},
            "plots.examples": 4, "plots.steps": 5, "plots.dpi": 50, **KINDS[kind],
        })  # fmt: skip
        rng = np.random.default_rng(0)
        torch.manual_seed(0)
        shape = (channels, SIDE, SIDE)
        model = Autoencoder.build(settings.model, settings.loss, shape).eval()
        model.config = {
            "run": {"seed": 0}, "best_epoch": 2, "data": {"counts": {"train": 80, "val": 10}},
        }  # fmt: skip
        images = rng.integers(0, 256, (N, *shape), np.uint8)
        keys = [figures.key(item) for item in sets]
        mu = rng.standard_normal((N, latent_dim)).astype(np.float32)
        scores = {
            f"{name}/{quantity}": rng.random(N)
            for name in ["clean", *keys] for quantity in ("neg_elbo", "e_den")
        }  # fmt: skip
        codes = {"code_counts": np.arange(8)}
        continuous = {
            "mu": mu, "logvar": np.full_like(mu, -2.0),
            "df": np.float32(settings.loss.df), "active": np.arange(latent_dim) > 0,
            "kl_per_dim": np.linspace(0, 3, latent_dim),
            **{f"mu/{name}": mu + 0.1 for name in keys},
        }  # fmt: skip
        epochs, terms = np.arange(1, 4), itertools.product(("train", "val"), charts.TERMS)
        history = {f"{split}_{term}": 1.0 / epochs for split, term in terms}
        run = Run(
            name="toy", own=model, reconstruct=model.reconstruct, generate=model.sample,
            score="negative ELBO, nats", seed=0, settings=settings.plots, clean=images, sets=sets,
            corrupted={name: np.roll(images, 1, -1) for name in keys},
            labels=np.arange(N) % 3, classes=["a", "b", "c"],
            history=pd.DataFrame({"epoch": epochs, **history}), table=table(sets),
            latents=codes if kind == "vq" else continuous, scores=scores,
        )  # fmt: skip
        return dataclasses.replace(run, **changes)

    return make


def drawn(figure: Any) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gets_the_figures_that_have_a_meaning_for_it(
    kind: str, channels: int, make_run: Callable[..., Run]
) -> None:
    run = make_run(kind, channels, latent_dim=2 if channels == 3 else 4)
    with torch.random.fork_rng():
        names = {name for name, entry in GALLERY.items() if entry.draw(run, entry.title)}
    always = {"robustness", "structure", "corrupted", "worst", "roc", "corruptions", "losses",
              "reconstructions", "interpolations", "samples"}  # fmt: skip
    latents = {"qq", "qq-pooled", "kl", "latents", "plane" if channels == 3 else "traversals"}
    assert names == always | ({"codes"} if kind == "vq" else latents)


def test_several_severities_add_curves_and_a_heat_map(make_run: Callable[..., Run]) -> None:
    sets = [{**item, "severity": s, "default": s == 2} for item in SETS for s in (1, 2, 5)]
    run = make_run(sets=sets)
    curves = GALLERY["severity"].draw(run, "t")
    lines = [
        line for axes in drawn(curves) for line in axes.get_lines() if len(line.get_xdata()) == 4
    ]
    assert [line.get_label() for line in lines] == ["shot noise", "glass blur", "shear"]
    np.testing.assert_array_equal(lines[0].get_xdata(), [0, 1, 2, 5])
    np.testing.assert_allclose(lines[0].get_ydata(), [0.01, 0.02, 0.03, 0.04])
    (axes,) = drawn(GALLERY["heatmap"].draw(run, "t"))
    np.testing.assert_allclose(axes.images[0].get_array()[0], [0.02, 0.03, 0.04])
    assert [item["severity"] for item in run.shown] == [2, 2, 2]
    assert GALLERY["corruptions"].draw(run, "t") is not None


@pytest.mark.parametrize("labels", [np.full(N, -1), np.arange(N) % 13], ids=["none", "13 classes"])
def test_unlabelled_images_and_many_classes_are_drawn(
    labels: np.ndarray, make_run: Callable[..., Run]
) -> None:
    run = make_run(labels=labels, classes=[str(c) for c in range(13)])
    clean = drawn(GALLERY["latents"].draw(run, "t"))[0]
    offsets = clean.collections[0].get_offsets()
    assert len(offsets) == N
    assert len(clean.texts) == (0 if labels[0] < 0 else len(CLASSES))


def test_written_files_are_the_same_bytes_every_time(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    listed = [figures.write(make_run(), tmp_path / name, tmp_path / name) for name in ("a", "b")]
    assert listed[0] == listed[1]
    first = sorted((tmp_path / "a").iterdir())
    assert {path.suffix for path in first} == {".json", ".png", ".svg"}
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert {path.name for path in first} - {"examples.json"} == {
        item["file"] for item in listed[0]
    } | {item["vector"] for item in listed[0] if item["vector"]}


def test_a_pdf_has_no_date(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    for name in ("a", "b"):
        save(GALLERY["kl"].draw(run, "t"), tmp_path / f"{name}.pdf", 80)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content == (tmp_path / "b.pdf").read_bytes()
    assert b"CreationDate" not in content


def test_every_figure_says_what_it_shows_and_of_how_many(make_run: Callable[..., Run]) -> None:
    for run in (make_run(), make_run("vq")):
        for name, entry in GALLERY.items():
            figure = entry.draw(run, entry.title)
            if figure is not None:
                title, note = (text.get_text() for text in figure.texts[:2])
                assert title == entry.title
                assert "toy" in note, name
                assert "n = " in note, name
                assert entry.caption.endswith("."), name


def test_bars_carry_values_intervals_and_baselines(make_run: Callable[..., Run]) -> None:
    error, skill = drawn(GALLERY["robustness"].draw(make_run(), "t"))
    np.testing.assert_allclose([bar.get_width() for bar in error.patches], [0.02, 0.03, 0.04])
    assert [t.get_text() for t in error.get_yticklabels()] == [
        "shot noise 2",
        "glass blur 2",
        "shear 2",
    ]
    whiskers = error.collections[0].get_segments()
    np.testing.assert_allclose([s[1, 0] - s[0, 0] for s in whiskers], 2 * 1.96 * 0.001)
    marks = {line.get_label(): line.get_xdata() for line in error.get_lines()}
    np.testing.assert_allclose(marks["mean training image"], [0.02, 0.03, 0.04])
    assert "corrupted image itself" in marks
    assert len(skill.patches) == 3


def test_low_skill_is_cut_and_written_on_the_bar() -> None:
    rows = pd.DataFrame({"group": ["noise"] * 2, "skill": [-4.3, 0.5], "skill_se": [0.1, 0.1]})
    (axes,) = charts.bars(rows, ["a", "b"], ["skill"], {}, "t", "n").axes
    assert [bar.get_width() for bar in axes.patches] == [-1.0, 0.5]
    assert [text.get_text() for text in axes.texts] == ["-4.3"]


def test_qq_panels_come_worst_first_with_their_distance(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.latents["mu"][:, 2] += 3.0
    panels = drawn(GALLERY["qq"].draw(run, "t"))
    names, distances = zip(
        *([text.get_text() for text in axes.texts] for axes in panels), strict=True
    )
    assert names[0] == "z2"
    assert "z0 inactive" in names
    values = [float(text.split()[1]) for text in distances]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("law", [Law(), Law(df=3.0)], ids=str)
def test_qq_panel_holds_points_band_and_diagonal(law: Law) -> None:
    sample = of_scipy(law).rvs(100, random_state=np.random.default_rng(0))
    points = qq(sample, law)
    (axes,) = latent.qq_pooled(points, law, "t", "n").axes
    diagonal, dots = axes.get_lines()
    (theory, ordered), _ = stats.probplot(sample, dist=of_scipy(law))
    np.testing.assert_allclose(dots.get_xdata(), theory)
    np.testing.assert_allclose(dots.get_ydata(), ordered)
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    band = axes.collections[0].get_paths()[0].vertices
    assert {points.lower[3], points.upper[3]} <= set(band[:, 1])
    assert str(law) in axes.get_xlabel()
    assert f"{points.distance:.3f}" in axes.texts[0].get_text()


def test_roc_points_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    clean, corrupted = rng.integers(0, 9, 60) / 2.0, rng.integers(3, 12, 80) / 2.0  # with ties
    truth = np.repeat([0, 1], [60, 80])
    x, y, _ = reference.roc_curve(truth, np.r_[clean, corrupted], drop_intermediate=False)
    found = charts.roc_points(clean, corrupted)
    np.testing.assert_allclose(found[0], x)
    np.testing.assert_allclose(found[1], y)


def test_mosaic_keeps_every_pixel_and_separates_tiles() -> None:
    tiles = np.random.default_rng(0).integers(0, 255, (2, 3, 3, 4, 5), np.uint8)
    picture = pictures.mosaic(tiles)
    assert picture.shape == (2 * 4 + 2, 3 * 5 + 4, 3)
    np.testing.assert_array_equal(picture[6:10, 7:12], tiles[1, 1].transpose(1, 2, 0))
    assert (picture[4:6] == 255).all()
    assert pictures.mosaic(tiles[:, :, :1]).ndim == 2


def test_worst_images_are_those_with_the_largest_error(make_run: Callable[..., Run]) -> None:
    run = make_run()
    index = np.argsort(-run.scores["shot_noise-2/e_den"])[:3]
    shown = drawn(GALLERY["worst"].draw(run, "t"))[0].images[0].get_array()
    np.testing.assert_array_equal(shown[:SIDE], pictures.mosaic(run.clean[index][None]))


def test_losses_show_both_splits_and_the_epoch_kept(make_run: Callable[..., Run]) -> None:
    panels = drawn(GALLERY["losses"].draw(make_run(), "t"))
    assert [axes.get_title("left") for axes in panels] == ["total", "reconstruction", "divergence"]
    train, val, kept = panels[0].get_lines()
    np.testing.assert_allclose(train.get_ydata(), [1, 1 / 2, 1 / 3])
    assert (train.get_label(), val.get_label()) == ("training", "validation")
    assert (kept.get_xdata()[0], kept.get_label()) == (2, "kept: 2")
    assert panels[0].get_ylabel() == "nats per image"


def test_no_text_of_the_losses_is_cut_off(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    wide = run.history.copy()
    wide[[name for name in wide if name != "epoch"]] *= -1250.5
    figure = GALLERY["losses"].draw(dataclasses.replace(run, history=wide), "t")
    save(figure, tmp_path / "losses.png", 100)
    panels = drawn(figure)
    assert any(len(label.get_text()) > 4 for label in panels[0].get_yticklabels())
    boxes = [axes.get_tightbbox() for axes in panels]
    assert boxes[0].x0 > 4  # pixels from the edge
    assert boxes[-1].x1 < figure.bbox.x1
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_without_vector_files_their_folder_is_not_empty(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(figures, "GALLERY", {"losses": GALLERY["losses"]})
    run = make_run()
    run = dataclasses.replace(run, settings=run.settings.model_copy(update={"vector": "none"}))
    (listed,) = figures.write(run, tmp_path / "figures", tmp_path / "charts")
    assert listed["vector"] is None
    assert [path.name for path in (tmp_path / "charts").iterdir()] == ["examples.json"]


def test_the_strip_shows_epochs_from_left_to_right_and_the_images_at_the_end(
    make_run: Callable[..., Run],
) -> None:
    rng = np.random.default_rng(0)
    seen, images = (rng.integers(0, 256, (n, SIDE, SIDE), np.uint8) for n in (2 * 4, 3))
    seen, images = seen.reshape(2, 4, 1, SIDE, SIDE), images[:, None]
    strip = {"epochs": np.array([1, 9]), "seen": seen, "images": images}
    (axes,) = drawn(GALLERY["strip"].draw(make_run(strip=strip), "t"))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "9", "image"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["mean"] * 3 + ["drawn"]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown[-SIDE:, :SIDE], seen[0, 3, 0])
    np.testing.assert_array_equal(shown[-SIDE:, -SIDE:], images[0, 0])
    assert GALLERY["strip"].draw(make_run(), "t") is None


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_an_image_of_each_set_with_what_comes_back(
    channels: int, make_run: Callable[..., Run]
) -> None:
    run = make_run(channels=channels, reconstruct=lambda x: 1 - x)
    found = figures.examples(run)
    assert [(item["corruption"], item["severity"]) for item in found] == [
        ("shot_noise", 2), ("glass_blur", 2), ("shear", 2)
    ]  # fmt: skip
    decoded = [np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
               for uri in found[2]["images"]]  # fmt: skip
    clean = run.clean[-1].transpose(1, 2, 0).squeeze()
    np.testing.assert_array_equal(decoded[0], clean)
    np.testing.assert_array_equal(decoded[1], np.roll(clean, 1, 1))
    np.testing.assert_array_equal(decoded[2], 255 - np.roll(clean, 1, 1))


@pytest.mark.parametrize(("kind", "words"), [("vq", "a squared distance"), ("t3", "no nats")])
def test_losses_that_are_no_nats_are_not_called_so(
    make_run: Callable[..., Run], kind: str, words: str
) -> None:
    figure = GALLERY["losses"].draw(make_run(kind), "t")
    assert drawn(figure)[0].get_ylabel() == "per image"
    assert words in " ".join(text.get_text() for text in figure.findobj(Text))


def test_a_model_of_anyone_gets_what_images_and_tables_give(make_run: Callable[..., Run]) -> None:
    run = make_run("gaussian", own=None, generate=None, history=None, score="surprise")
    names = {name for name in GALLERY if figures.draw(run, name)}
    apart = {
        "attack-output",
        "damage-output",
        "foreign",
        "sorted-samples",
    }  # measured by no one here
    assert names == figures.FOR_ANYONE - {"severity", "heatmap", "samples"} - apart
    figure = figures.draw(run, "roc")
    assert "score: surprise" in " ".join(text.get_text() for text in figure.findobj(Text))
