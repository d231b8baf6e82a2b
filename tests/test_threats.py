"""Attacks, foreign images and samples from the measurement to files, figures and the page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import short
import tiny
import torch
from conftest import ROOT

import robustvae as rv
from robustvae import params
from robustvae.models import folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.params.results import AttackSettings
from robustvae.robustness import attacked
from robustvae.robustness.finding import Finding

BASE = {"images": 12, "norm": "l2", "radii": (0.5, 1.0), "steps": 3, "restarts": 1,
        "kinds": ("output",)}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return short.fit({"train.epochs": 20})[1].eval()


def _find(model: Autoencoder, x: torch.Tensor, **changes: object) -> Finding:
    settings = AttackSettings.model_validate(BASE | changes)
    return attacked.find(model, x, settings, 0, attacked.likelihood(model, 0))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.from_numpy(short.images(12, 5)).float() / 255


@pytest.mark.parametrize(
    "change",
    [{"norm": "linf", "radii": (0.1, 0.2)}, {"radii": (0.5, 2.0)}, {"steps": 4}, {"restarts": 2},
     {"kinds": ("latent",)}],
    ids=str,
)  # fmt: skip
def test_each_setting_changes_the_table(
    model: Autoencoder, x: torch.Tensor, change: dict[str, object]
) -> None:
    first, other = _find(model, x).table, _find(model, x, **change).table
    assert first is not None
    assert other is not None
    assert not first.equals(other)


def test_a_table_of_attacks_has_intervals_and_the_headline_the_margin(
    model: Autoencoder, x: torch.Tensor
) -> None:
    found = _find(model, x, kinds=("output", "latent"))
    table = found.table
    assert table is not None
    assert list(table["kind"]) == ["output"] * 2 + ["latent"] * 2
    assert (table["damage"] > table["random"]).all()
    assert (table["auroc_low"] <= table["auroc"]).all()
    assert found.headline["damage_1"] == table["damage"].iloc[1]
    assert {"margin", "latent_margin"} <= set(found.headline)
    assert "random directions" in found.sentence


def test_no_images_is_off_and_a_codebook_has_no_latent_attack(x: torch.Tensor) -> None:
    vq = folder.load(tiny.model("vq"))
    pictures = torch.from_numpy(tiny.shapes(4)).float() / 255
    found = _find(vq, pictures, kinds=("output", "latent"))
    assert found.table is not None
    assert list(found.table["kind"]) == ["output"] * 2
    assert "straight-through" in found.sentence
    assert "posterior density" in found.reasons["attacks.latent"]
    assert _find(vq, pictures, images=0).table is None


def test_a_finding_comes_back_from_its_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"kind": ["output"], "damage": [0.5]})
    found = Finding(table, {"margin": float("inf"), "damage_1": 0.5}, "It moves.", ["careful"],
                    {"latent": "no"}, {"radii": np.array([1.0])})  # fmt: skip
    found.save(tmp_path / "attack")
    back = Finding.load(tmp_path / "attack")
    assert back.table is not None
    assert back.table.equals(table)
    headline = json.loads((tmp_path / "attack.json").read_text())
    assert headline == {"margin": None, "damage_1": 0.5}
    assert (back.sentence, back.warnings, back.reasons) == (
        "It moves.",
        ["careful"],
        {"latent": "no"},
    )
    assert back.arrays["radii"] == 1
    Finding(reasons={"attacks": "off"}).save(tmp_path / "off")
    assert Finding.load(tmp_path / "off").table is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluate.outliers": ["nosie"]}, "no set is named 'nosie' (did you mean 'noise'?)"),
        ({"evaluate.attacks.radii": [2.0, 1.0]}, "radii: must rise, got [2.0, 1.0]"),
        ({"evaluate.attacks.radii": []}, "evaluate.attacks.radii"),
        ({"evaluate.attacks.norm": "l1"}, "evaluate.attacks.norm"),
        ({"evaluate.samples.components": 0}, "evaluate.samples.components"),
        ({"evaluate.regret": -1}, "evaluate.regret"),
    ],
)
def test_a_wrong_setting_gets_its_line(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match="evaluate") as caught:
        params.check(params.overlay(params.read(ROOT / "params.yaml"), change))
    assert said in str(caught.value)


def test_a_notebook_gets_the_same_tables_of_anyones_model(tmp_path: Path) -> None:
    x = short.images(40)
    shrink = 0.5 * torch.eye(64)
    result = rv.evaluate(
        lambda images: (images.flatten(1) @ shrink).view_as(images), x, names=["fog"], train=x,
        train_labels=np.arange(40) % 2, labels=np.arange(40) % 2, attacks=BASE,
        outliers=["noise", "black"], samples=20, score=lambda images: images.sum((1, 2, 3)),
        sample=lambda n: torch.rand(n, 1, 8, 8),
    )  # fmt: skip
    assert result.attacks is not None
    radius = result.attacks["radius"]
    assert result.attacks["damage"].to_numpy() == pytest.approx(radius**2 / 256, rel=0.03)
    assert result.outliers is not None
    assert list(result.outliers["set"].unique()) == ["noise", "black"]
    assert result.samples is not None
    assert list(result.samples["images"]) == ["train", "reconstructions", "prior", "mean image"]
    assert any("black look likelier" in text for text in result.warnings)
    assert "samples.mixture" in result.reasons
    page = result.report(tmp_path / "page.html").read_text()
    assert "black look likelier" in page
    assert "Damage of the output attack by radius" in page


def test_a_model_that_torch_cannot_differentiate_says_so_and_goes_on() -> None:
    x = short.images(20)
    result = rv.evaluate(
        lambda y: y.numpy().copy(), x, names=["fog"], attacks={}, outliers=["noise"]
    )
    assert result.attacks is None
    assert "an array has no gradient" in result.reasons["attacks.output"]
    assert "posterior density" in result.reasons["attacks.latent"]
    assert result.outliers is not None
    assert set(result.outliers["score"]) == {"e_self"}
    assert "outliers.neg_elbo" in result.reasons
    rounded = rv.evaluate(lambda y: y.round(), x, names=["fog"], attacks=BASE)
    assert rounded.attacks is None or not rounded.attacks["damage"].isna().any()


def test_our_model_gives_the_tables_and_new_images_of_a_mixture() -> None:
    vae = rv.load(tiny.model("gaussian"), data=tiny.data("gaussian"))
    x = tiny.shapes(32)
    labels = np.arange(32) % 2
    result = rv.evaluate(
        vae, x, names=["fog"], attacks=BASE | {"kinds": ["output", "latent"]},
        samples={"images": 8}, outliers=["noise"], train=x, train_labels=labels, labels=labels,
    )  # fmt: skip
    assert result.attacks is not None
    assert set(result.attacks["kind"]) == {"output", "latent"}
    assert result.outliers is not None
    assert {"neg_elbo", "weighted", "typicality", "complexity"} < set(result.outliers["score"])
    assert result.samples is not None
    assert {"prior", "mixture"} < set(result.samples["images"])
    made = vae.generate(5, mixture=x, components=2)
    assert made.shape == (5, 1, 16, 16)
    assert (made != vae.generate(5, mixture=x, components=5)).any()
    assert rv.evaluate(vae, x, names=["fog"]).attacks is None
