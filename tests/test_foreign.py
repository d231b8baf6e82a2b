"""Foreign images and how well scores tell them from a model's own."""

from pathlib import Path

import numpy as np
import pytest
import short
from PIL import Image

import robustvae
from robustvae.data import elsewhere
from robustvae.data.downloads import Library
from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params.results import MADE
from robustvae.robustness import foreign

X = short.images(30)


@pytest.mark.parametrize("name", foreign.FOREIGN)
def test_sets_repeat_and_keep_shape(name: str) -> None:
    made = foreign.make(name, X, 0)
    assert made.shape == X.shape
    assert made.dtype == np.uint8
    assert (made == foreign.make(name, X, 0)).all()
    assert (made != X).any()


def test_sets_are_what_they_are_called() -> None:
    shuffled = foreign.make("shuffle", X, 1).reshape(len(X), -1)
    flat = X.reshape(len(X), -1)
    assert (np.sort(shuffled) == np.sort(flat)).all()
    columns = {c.tobytes() for c in flat.T.copy()}
    assert {c.tobytes() for c in shuffled.T.copy()} == columns  # one permutation for all
    assert (foreign.make("constant", X, 1).reshape(len(X), -1).std(1) == 0).all()
    assert not foreign.make("black", X, 1).any()
    assert (foreign.make("flip", foreign.make("flip", X, 0), 0) == X).all()
    assert (foreign.make("invert", X, 0).astype(int) + X == 255).all()


def test_the_sets_are_those_that_the_parameters_name() -> None:
    assert tuple(foreign.FOREIGN) == MADE


def test_a_set_of_another_size_is_compared_with_as_many_own_images() -> None:
    rows = foreign.table({"e_self": np.arange(30.0)}, {"few": {"e_self": np.full(10, 4.5)}})
    assert rows["images"].item() == 10
    assert rows["auroc"].item() == 0.5


def test_likelier_sets_are_flagged_and_the_dependable_score_is_named() -> None:
    def score(images: np.ndarray, _name: str) -> dict[str, np.ndarray]:
        grey = images.reshape(len(images), -1).mean(1)
        return {
            "neg_elbo": grey,
            "e_self": np.abs(grey - grey[0]) if len(set(grey)) > 1 else 1e9 + grey,
        }

    found = foreign.find(score, X, X, {"black": foreign.make("black", X, 0)})
    by_score = found.table.set_index("score")
    assert by_score["auroc"]["neg_elbo"] == 0
    assert by_score["likelier"]["neg_elbo"]
    assert found.headline == {"mean_auroc": 0.0, "worst_auroc": 0.0, "likelier": 1}
    assert found.warnings[0].startswith("foreign images: black look likelier")
    assert found.sentence.endswith("that of the negative ELBO is 0.00, on black.")
    assert foreign.find(score, X, X, {}).table is None


def test_complexity_takes_the_length_of_the_picture_off() -> None:
    noise, black = foreign.make("noise", X, 0), foreign.make("black", X, 0)
    assert foreign.png_nats(noise).min() > foreign.png_nats(black).max()
    rows = foreign.find(lambda x, _: {"neg_elbo": x.mean((1, 2, 3))}, X, None, {"black": black})
    assert rows.table is not None
    assert set(rows.table["score"]) == {
        "neg_elbo",
        "complexity",
    }  # typicality needs what was learnt
    assert (rows.arrays["black/complexity"] == np.float32(-foreign.png_nats(black))).all()


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    trained = short.fit({"train.epochs": 40})[1].eval()
    trained.zero_grad(set_to_none=True)
    return trained


def test_a_trained_model_notices_noise_and_shuffled_images(model: Autoencoder) -> None:
    sets = {name: foreign.make(name, X, 0) for name in foreign.FOREIGN}
    found = foreign.find(foreign.ours(model, 7, 0), X, short.TRAIN, sets)
    assert found.table is not None
    auroc = found.table[found.table["score"] == "neg_elbo"].set_index("set")["auroc"]
    assert auroc["noise"] > 0.99
    assert auroc["shuffle"] > 0.99
    other = foreign.find(foreign.ours(model, 30, 0), X, short.TRAIN, sets)
    for name, values in found.arrays.items():
        assert values == pytest.approx(other.arrays[name], rel=1e-4), name


@pytest.mark.slow
def test_the_model_of_mnist_takes_black_for_its_own_and_nothing_else(tmp_path: Path) -> None:
    own = robustvae.datasets.load("mnist-5k", "test", limit=200)[0]
    sets = {name: foreign.make(name, own, 0) for name in ("noise", "shuffle", "black")}
    sets["digits"] = elsewhere.images("digits", own.shape[1:], 200, Library(tmp_path), 0)
    score = foreign.ours(robustvae.load("mnist").model, 100, 0)
    found = foreign.find(score, own, robustvae.datasets.load("mnist-5k", limit=200)[0], sets)
    assert found.table is not None
    auroc = found.table[found.table["score"] == "neg_elbo"].set_index("set")["auroc"]
    assert min(auroc["noise"], auroc["shuffle"]) > 0.99
    assert auroc["black"] < 0.5
    assert any("black" in text and "likelier" in text for text in found.warnings)
    assert 0 <= auroc["digits"] <= 1  # reported either way


def test_regret_is_what_an_own_posterior_gains(model: Autoencoder) -> None:
    found = foreign.ours(model, 30, 0, 20)(X, "own")
    noisy = foreign.ours(model, 30, 0, 20)(foreign.make("noise", X, 0), "noise")
    assert (found["regret"] >= 0).all()
    assert noisy["regret"].mean() > found["regret"].mean()
    assert all(p.grad is None for p in model.parameters())


def test_another_data_set_comes_in_the_own_shape_and_never_from_the_network(tmp_path: Path) -> None:
    library = Library(tmp_path)
    found = elsewhere.images("digits", (1, 8, 8), 20, library, 0)
    assert found.shape == (20, 1, 8, 8)
    assert (found == elsewhere.images("digits", (1, 8, 8), 20, library, 0)).all()
    with pytest.raises(UserError, match=r"^evaluate.outliers: kmnist: .*no address.*data.mirror"):
        elsewhere.images("kmnist", (1, 8, 8), 20, library, 0)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (30, 40), "red").save(folder / "a.png")
    assert elsewhere.images(f"{folder}/", (1, 8, 8), 20, library, 0).shape == (1, 1, 8, 8)
    with pytest.raises(UserError, match=r"^evaluate.outliers: ./no: .*no such folder"):
        elsewhere.images("./no", (1, 8, 8), 20, library, 0)
