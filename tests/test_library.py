"""robustvae as a library: fit, evaluate, compare, corrupt, for anyone's models."""

import doctest
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import ROOT
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import robustvae as rv
from robustvae import corruptions, params
from robustvae.api import evaluate as evaluating
from robustvae.data import prepared
from robustvae.models import folder as model_folder
from robustvae.runtime import torchvision_shim
from robustvae.training.run import train

QUICK = {
    "model.architecture.name": "mlp", "model.architecture.channels": [16], "train.epochs": 2,
    "model.latent_dim": 3, "run.device": "cpu", "train.batch_size": 16,
}  # fmt: skip
SMALL: dict[str, Any] = {"names": ["fog", "shot_noise"], "settings": {"evaluate.iwae_samples": 4}}


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return tiny.shapes(64)


@pytest.fixture(scope="module")
def y(x: np.ndarray) -> np.ndarray:
    return (x[:, 0].any(1).sum(1) > 5).astype(np.int64)


@pytest.fixture(scope="module")
def vae(x: np.ndarray, y: np.ndarray) -> rv.VAE:
    return rv.fit(x, QUICK, labels=y, seed=0)


def weights(vae: rv.VAE) -> bytes:
    return b"".join(v.numpy().tobytes() for v in vae.model.state_dict().values())


# ---- the package


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, robustvae; assert 'torch' not in sys.modules; dir(robustvae)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


def test_every_public_name_is_there_and_explained() -> None:
    assert set(rv.PUBLIC) | {"__version__"} == set(rv.__all__)
    for name in rv.PUBLIC:
        assert inspect.getdoc(getattr(rv, name)), name
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = rv.fitt  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [
        "fit",
        "evaluate",
        "compare",
        "corrupting",
        "transforms",
        "datasets",
        "adapters",
        "screening",
        "attack",
    ],
)
def test_examples_run_as_they_are_written(name: str) -> None:
    module = importlib.import_module(f"robustvae.api.{name}")
    found = doctest.testmod(module, extraglobs={"rv": rv})
    assert found.attempted
    assert not found.failed


def test_a_users_mistake_is_a_value_error() -> None:
    assert issubclass(rv.UserError, ValueError)


# ---- fit


def test_fit_gives_the_bytes_of_the_train_stage_on_the_same_data(tmp_path: Path) -> None:
    data = prepared.load(tiny.data("gaussian"))
    chosen = params.complete({**QUICK, "run.seed": 3})
    sections = chosen.model, chosen.loss, chosen.train, chosen.run
    train(*sections, data, lambda t: model_folder.save(t.model, t.config, tmp_path / "stage"))
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    draw = torch.random.get_rng_state()
    rv.fit(data.train, QUICK, val=data.val, seed=3).save(tmp_path / "library")
    names = [tmp_path / place / "model.safetensors" for place in ("stage", "library")]
    assert names[0].read_bytes() == names[1].read_bytes()
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    assert torch.equal(draw, torch.random.get_rng_state())


def test_settings_are_flat_nested_or_a_file(x: np.ndarray, tmp_path: Path, vae: rv.VAE) -> None:
    nested = {"model": {"architecture": {"name": "mlp", "channels": [16]}, "latent_dim": 3},
              "train": {"epochs": 2, "batch_size": 16}, "run": {"device": "cpu"}}  # fmt: skip
    path = tmp_path / "some.yaml"
    path.write_text("model: {architecture: {name: mlp, channels: [16]}, latent_dim: 3}\n"
                    "train: {epochs: 2, batch_size: 16}\nrun: {device: cpu}\n")  # fmt: skip
    found = [weights(rv.fit(x, how, seed=0)) for how in (QUICK, nested, path)]
    assert found[0] == found[1] == found[2]
    assert found[0] != weights(rv.fit(x, {**QUICK, "loss.df": 3.0}, seed=0))
    assert found[0] != weights(rv.fit(x, QUICK, seed=1))


class Pictures:
    """A data set of (PIL image, class)."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.x[i, 0]), i % 2


def test_images_come_in_every_usual_form(x: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[0]).save(tmp_path / "folder" / f"{i:02}.png")
    forms = (
        x, x[:, 0], np.moveaxis(x, 1, -1), x / 255, torch.from_numpy(x),
        torch.from_numpy(x / np.float32(255)), TensorDataset(torch.from_numpy(x)), Pictures(x),
        tmp_path / "x.npy", tmp_path / "folder", list(x[:, 0]),
    )  # fmt: skip
    assert len({weights(rv.fit(form, {**QUICK, "train.epochs": 1}, seed=0)) for form in forms}) == 1
    vae = rv.fit(Pictures(x), {**QUICK, "train.epochs": 1})
    assert vae.reference is not None
    assert set(vae.reference.labels) == {0, 1}


def test_a_folder_of_pictures_is_resized_where_a_size_is_given(tmp_path: Path) -> None:
    for i in range(24):
        size = (20 + i % 3, 18)
        Image.new("RGB", size, (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    how = {**QUICK, "train.epochs": 1, "preprocess.image_size": 16}
    assert rv.fit(tmp_path, how).shape == (3, 16, 16)
    with pytest.raises(rv.UserError, match="images of 3 different shapes"):
        rv.fit(tmp_path, QUICK)


def test_history_callbacks_saving_and_loading(
    x: np.ndarray, y: np.ndarray, vae: rv.VAE, tmp_path: Path
) -> None:
    rows: list[Any] = []
    again = rv.fit(x, QUICK, labels=y, seed=0, on_epoch=rows.append)
    assert isinstance(again.history, pd.DataFrame)
    assert again.history.to_dict("records") == rows
    assert len(rows) == 2
    again.save(tmp_path / "mine")
    loaded = rv.load(tmp_path / "mine", device="cpu")
    pd.testing.assert_frame_equal(loaded.history, again.history)
    np.testing.assert_array_equal(loaded.reconstruct(x), vae.reconstruct(x))
    assert "8 val" not in loaded.describe()
    assert "images, 16 x 16 grey, 58 train, 6 val" in loaded.describe()
    with pytest.raises(rv.UserError, match="card: the model is in no folder yet; save it first"):
        vae.card()


def test_a_training_that_was_cut_goes_on(x: np.ndarray, tmp_path: Path) -> None:
    def stop(row: Any) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    how = {**QUICK, "train.epochs": 4}
    with pytest.raises(KeyboardInterrupt):
        rv.fit(x, how, seed=0, resume=tmp_path, on_epoch=stop)
    seen: list[Any] = []
    vae = rv.fit(x, how, seed=0, resume=tmp_path, on_epoch=seen.append)
    assert [row["epoch"] for row in seen] == [3, 4]
    assert weights(vae) == weights(rv.fit(x, how, seed=0))
    assert not list(tmp_path.rglob("last.pt"))


@pytest.mark.parametrize(
    ("images", "how", "text"),
    [
        (np.zeros((4, 8, 8)) - 1, {}, "images: floats must lie in [0, 1], found -1 .. -1"),
        (np.full((4, 8, 8), np.nan), {}, "images: floats must lie in [0, 1], found nan .. nan"),
        (np.zeros((4, 8, 8), int), {}, "images: int64; use uint8 in 0 .. 255, or floats in [0, 1]"),
        (np.zeros((4, 8)), {}, "images: float64 [4, 8]; give an array or tensor"),
        (np.zeros((0, 8, 8), np.uint8), {}, "images: uint8 [0, 8, 8]; give an array or tensor"),
        (7, {}, "images: int holds no images; give an array or tensor"),
        ("nowhere.npy", {}, "images: nowhere.npy is no .npy file; give an array or tensor"),
        (None, {"loss.dff": 3.0}, "settings: loss.dff: no such setting (did you mean 'df'?)"),
        (None, {"loss.df": 1.0}, "settings: loss.df: 0 switches it off; otherwise must be > 2"),
        (None, {"data.name": "mnist"}, "settings: data.name: has no effect, the images are given"),
        (None, ["loss.df"], "settings: must be a mapping such as"),
        (None, {"train.epochs": "2"}, "settings: train.epochs: must be an integer, got '2'"),
    ],
)
def test_bad_use_of_fit_is_one_line(images: Any, how: Any, text: str, x: np.ndarray) -> None:
    with pytest.raises(rv.UserError) as error:
        rv.fit(x if images is None else images, how)
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


def test_labels_that_do_not_fit_are_refused(x: np.ndarray) -> None:
    for labels in (np.zeros(3, int), np.zeros(64), np.zeros((64, 2), int)):
        with pytest.raises(rv.UserError, match=r"labels: .* for 64 images; give a whole number"):
            rv.fit(x, QUICK, labels=labels)


# ---- evaluate: our models


def test_results_have_tables_figures_and_the_page(
    vae: rv.VAE, x: np.ndarray, y: np.ndarray, tmp_path: Path
) -> None:
    result = rv.evaluate(vae, x, labels=y, severities=[1, 3], **SMALL)
    rows = result.table.query("method == 'model'")
    assert list(zip(rows["corruption"], rows["severity"], strict=True)) == [
        ("clean", 0), ("fog", 1), ("fog", 3), ("shot_noise", 1), ("shot_noise", 3),
    ]  # fmt: skip
    assert rows["probe"].notna().all()
    assert result.headline["e_den"] == pytest.approx(
        rows.query("corruption != 'clean'").groupby("group")["e_den"].mean().mean(), rel=1e-5
    )
    assert result.headline["e_den_se"] > 0  # type: ignore[operator]
    assert result.metrics["test"]["mse"] == pytest.approx(rows["e_den"].iloc[0], rel=1e-5)
    np.testing.assert_allclose(
        result.values("e_den", "fog-3").mean(), rows["e_den"].iloc[2], rtol=1e-12
    )
    assert result.plot("severity")._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
    assert "fog" in result._repr_html_()
    page = result.report(tmp_path / "report.html").read_text()
    assert "Likelihood and use of the latents" in page
    assert "Loss while training" in page
    with pytest.raises(rv.UserError, match=r"plot: unknown 'robustnes' \(did you mean 'robustness"):
        result.plot("robustnes")
    with pytest.raises(rv.UserError, match=r"corruption: no set 'fog-2' \(did you mean 'fog-"):
        result.values("e_den", "fog-2")


@pytest.mark.parametrize("kind", ["gaussian", "binary", "vq", "gamma"])
def test_numbers_are_those_of_the_pipeline(kind: str, tmp_path: Path) -> None:
    from robustvae.robustness import evaluation, measure

    vae = rv.load(tiny.model(kind), device="cpu", data=tiny.data(kind))
    data, chosen = prepared.load(tiny.data(kind)), params.complete(SMALL["settings"])
    fog = corruptions.corrupt_images(np.array(data.grey("test")), "fog", 2, 7)
    if kind == "binary":
        fog = np.where(fog > 127, 255, 0).astype(np.uint8)
    listed = {"group": "photometric", "severity": 2, "default": False}
    material = evaluation.Material(
        {"test": data.test, "train": data.train, "val": data.val},
        {"clean": data.test, "fog-2": fog},
        [evaluation.CLEAN, {"name": "fog-2", "corruption": "fog", **listed}],
        np.asarray(data.train.mean(0) / 255, np.float32), {}, kind == "binary",
    )  # fmt: skip
    assert measure.of_training(32, 7).tolist() == list(range(32))
    stage = evaluation.own(vae.model, material, chosen.evaluate, 7)
    assert stage is not None
    found = rv.evaluate(vae, "test", names=["fog"], severities=[2], settings=SMALL["settings"],
                        seed=7)  # fmt: skip
    pd.testing.assert_frame_equal(found.table, stage.rows)
    assert found.found.metrics["likelihood"] == stage.metrics["likelihood"]


def test_of_a_loaded_model_the_constant_is_said_to_be_that_of_the_images(
    vae: rv.VAE, x: np.ndarray, y: np.ndarray, tmp_path: Path
) -> None:
    vae.save(tmp_path)
    loaded = rv.load(tmp_path, device="cpu")
    result = rv.evaluate(loaded, x, labels=y, **SMALL)
    assert evaluating.TESTED in result.warnings
    assert "no labelled training images were given" in result.reasons["robustness.probe"]
    known = rv.evaluate(loaded, x, labels=y, train=x, train_labels=y, **SMALL)
    assert evaluating.TESTED not in known.warnings
    assert "robustness.probe" not in known.reasons


# ---- evaluate: anyone's models


class Convolutional(nn.Module):
    """An untrained autoencoder with dropout, batch norm, and (mean, log-variance) codes."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.up = nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.down(x)
        return h, torch.zeros_like(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.down(x)
        return torch.sigmoid(self.up(h)), h

    def log_likelihood(self, x: Tensor) -> Tensor:
        return -(self(x)[0] - x).square().flatten(1).sum(1)

    def sample(self, n: int) -> Tensor:
        return torch.rand(n, 1, 16, 16)


def test_doing_nothing_has_skill_exactly_zero_and_the_mean_is_the_constant(
    x: np.ndarray, tmp_path: Path
) -> None:
    result = rv.evaluate(lambda x: x, x, **SMALL)
    rows = result.table.query("method == 'model' and corruption != 'clean'")
    assert (rows["skill_id"] == 0).all()
    mean = torch.from_numpy(x.mean(0) / np.float32(255))
    result = rv.evaluate(lambda x: mean.expand_as(x), x, train=x, **SMALL)
    rows = result.table.query("method == 'model' and corruption != 'clean'")
    assert (rows["skill_const"].abs() < 1e-6).all()
    assert result.headline["constant_wins"] in (0, 1, 2)
    assert result.reasons["robustness.auroc"] == evaluating.NO_SCORE
    assert result.reasons["robustness.drift"] == evaluating.NO_CODES
    page = result.report(tmp_path / "report.html").read_text()
    assert "&lt;lambda&gt;" in page
    assert "Likelihood and use" not in page
    assert evaluating.NO_SCORE.split(" (")[0] in page


def test_principal_components_in_numpy_are_measured(x: np.ndarray, y: np.ndarray) -> None:
    flat = x.reshape(64, -1) / 255
    mean, axes = flat.mean(0), np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:8]

    def encode(x: Tensor) -> np.ndarray:
        codes: np.ndarray = (x.flatten(1).double().numpy() - mean) @ axes.T
        return codes

    def reconstruct(x: Tensor) -> np.ndarray:
        return np.clip(mean + encode(x) @ axes, 0, 1).reshape(x.shape)

    result = rv.evaluate(reconstruct, x, labels=y, train=x, train_labels=y, encode=encode, **SMALL)
    rows = result.table.query("method == 'model'").set_index("corruption")
    expected = np.square(reconstruct(torch.from_numpy(x / 255)) - x / 255).mean()
    assert rows.loc["clean", "e_den"] == pytest.approx(expected, rel=1e-4)
    assert rows.loc["fog", "drift"] > 0
    assert rows.loc["clean", "probe"] > 0.8
    assert result.reasons["robustness.skl"] == evaluating.NO_LAWS


def test_a_module_with_methods_is_measured_by_all_of_them_and_left_as_it_was(
    x: np.ndarray, y: np.ndarray, tmp_path: Path
) -> None:
    model = Convolutional()
    model.down[1].eval()
    before = {name: v.clone() for name, v in model.state_dict().items()}
    result = rv.evaluate(model, x, labels=y, train=x, train_labels=y, **SMALL)
    rows = result.table.query("method == 'model' and corruption == 'fog'")
    for name in ("auroc", "drift", "skl", "probe", "delta_elbo", "ssim_den"):
        assert rows[name].notna().all(), name
    assert [part.training for part in (model, model.down, model.down[1])] == [True, True, False]
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()
    assert result.warnings[0] == evaluating.TESTED or "draws at random" not in result.warnings[0]
    assert "Samples from the prior" in result.report(tmp_path / "page.html").read_text()
    double = rv.evaluate(Convolutional().double(), x, **SMALL)
    assert double.table["e_den"].notna().all()


def test_a_denoiser_beats_doing_nothing(x: np.ndarray) -> None:
    blur = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    noisy = rv.evaluate(blur, x, names=["gaussian_noise"])
    assert noisy.headline["skill_id"] > 0.3  # type: ignore[operator]


def test_a_model_that_draws_is_said_to(x: np.ndarray) -> None:
    result = rv.evaluate(lambda x: torch.rand_like(x), x, **SMALL)
    again = rv.evaluate(lambda x: torch.rand_like(x), x, **SMALL)
    assert any("draws at random" in text for text in result.warnings)
    pd.testing.assert_frame_equal(result.table, again.table)  # by the seed


def spoilt(x: Tensor) -> Tensor:
    x[:] = 0
    return x


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (spoilt, "the model: changes its input in place"),
        (lambda x: x[:, :, ::2], "the model: gives [2, 1, 8, 16] for images [2, 1, 16, 16]"),
        (lambda x: x / 0, "the model: reconstructions of 2 of 2 images are NaN or infinite"),
        (lambda x: 2 * x - 1, "the model: reconstructions lie in -1 .. "),
        (lambda x: "no", "the model: gives str; it must give a tensor or an array"),
        (object(), "model: object gives no images back; give a module, a function"),
    ],
)
def test_a_model_that_is_no_autoencoder_is_one_line(model: Any, text: str, x: np.ndarray) -> None:
    with pytest.raises(rv.UserError) as error:
        rv.evaluate(model, x, **SMALL)
    assert str(error.value).startswith(text)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"encode": lambda x: x.flatten()}, "encode: gives [16384] for 64 images"),
        ({"encode": lambda x: x * np.nan}, "encode: codes of "),
        ({"encode": lambda x: (x, x[:, :, 0])}, "encode: means [64, 1, 16, 16] and log-variances"),
        ({"score": lambda x: x}, "the score: gives [64, 1, 16, 16] for 64 images"),
        (
            {"names": ["fogg"]},
            "corruption: unknown 'fogg' (did you mean 'fog'?); one of shot_noise",
        ),
        ({"severities": [6]}, "severities: must be a list of 1 .. 5, or default, got [6]"),
        ({"severities": "all"}, "severities: must be a list of 1 .. 5, or default, got 'all'"),
        ({"settings": {"evaluate.iwae": 1}}, "settings: evaluate.iwae: no such setting"),
    ],
)
def test_bad_use_of_evaluate_is_one_line(how: Any, text: str, x: np.ndarray) -> None:
    with pytest.raises(rv.UserError) as error:
        rv.evaluate(lambda x: x, x, **{**SMALL, **how})
    assert str(error.value).startswith(text)


def test_our_models_take_no_parts_and_images_of_their_size(vae: rv.VAE, x: np.ndarray) -> None:
    with pytest.raises(rv.UserError, match="encode: our models have their own; leave it out"):
        rv.evaluate(vae, x, encode=lambda x: x)
    with pytest.raises(rv.UserError, match=r"images: \[1, 8, 16\], but the model takes"):
        rv.evaluate(vae, x[:, :, ::2])


def test_batches_are_as_large_as_memory_allows(x: np.ndarray) -> None:
    seen = []

    def model(x: Tensor) -> Tensor:
        if len(x) > 20:
            raise torch.OutOfMemoryError
        seen.append(len(x))
        return x

    result = rv.evaluate(model, np.concatenate([x] * 3), **SMALL)
    assert max(seen) == 16
    assert result.headline["skill_id"] == 0


def fake(library: str, name: str, **parts: Any) -> Any:
    """An object of a class of that name from that library."""
    return type(name, (nn.Module,), {"__module__": f"{library}.models", **parts})()


class Output:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


def test_models_of_other_libraries_come_in_their_adapter(x: np.ndarray) -> None:
    scale = nn.Parameter(torch.ones(()))
    pythae = fake(
        "pythae", "VAE", latent_dim=256,
        encoder=lambda self, x: Output(embedding=x.flatten(1), log_covariance=0 * x.flatten(1)),
        decoder=lambda self, z: Output(reconstruction=z.view(-1, 1, 16, 16)),
    )  # fmt: skip
    pythae.register_parameter("scale", scale)
    rows = rv.evaluate(pythae, x, **SMALL).table.query("method == 'model'")
    assert rows["skl"].notna().all()
    assert (rows["skill_id"].dropna() == 0).all()
    kl = fake(
        "diffusers", "AutoencoderKL", config=Output(in_channels=3),
        encode=lambda self, x: Output(latent_dist=Output(mean=x, logvar=0 * x)),
        decode=lambda self, z: Output(sample=z),
    )  # fmt: skip
    rows = rv.evaluate(kl, x, **SMALL).table.query("method == 'model'")
    assert (rows["skill_id"].dropna().abs() < 1e-6).all()
    with pytest.raises(rv.UserError, match="pythae: Linear has no encoder and decoder"):
        rv.adapters.Pythae(nn.Linear(1, 1))


def test_a_real_model_of_pythae_is_measured(x: np.ndarray) -> None:
    models = pytest.importorskip("pythae.models")
    config = models.VAEConfig(input_dim=(1, 16, 16), latent_dim=4)
    rows = rv.evaluate(models.VAE(config), x, **SMALL).table.query("method == 'model'")
    assert rows[["e_den", "drift", "skl"]].notna().all().all()


def test_a_real_autoencoder_of_diffusers_is_measured(x: np.ndarray) -> None:
    torchvision_shim.prepare()  # which it imports
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    )  # fmt: skip
    rows = rv.evaluate(model, x, **SMALL).table.query("method == 'model'")
    assert rows[["e_den", "drift", "skl"]].notna().all().all()


def test_the_verb_measures_a_factorys_model(
    x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from robustvae import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    np.save("x.npy", x)
    (tmp_path / "colleague.py").write_text("def make():\n    return lambda x: x\n")
    cli.main(["evaluate", "--model", "colleague:make", "--images", "x.npy", "--names", "fog"])
    assert "make: e_den" in capsys.readouterr().out
    out = tmp_path / "out" / "evaluate"
    assert {p.name for p in out.iterdir()} == {"report.html", "robustness.csv", "headline.json"}
    for model, text in (("colleague:made", "no attribute 'made'"), ("nobody:make", "No module")):
        with pytest.raises(SystemExit):
            cli.main(["evaluate", "--model", model, "--images", "x.npy"])
        assert text in capsys.readouterr().err


# ---- compare


def test_models_side_by_side_are_compared_image_by_image(
    vae: rv.VAE, x: np.ndarray, tmp_path: Path
) -> None:
    both = rv.compare({"ours": vae, "nothing": lambda x: x}, x, train=x, **SMALL)
    table = both.table.set_index(["model", "corruption"])
    ours, nothing = (both.results[name].values("e_den", "fog-5") for name in both.results)
    row = table.loc[("nothing", "fog")]
    assert row["difference"] == pytest.approx((nothing - ours).mean())
    error = (nothing - ours).std(ddof=1) / 8
    assert row["high"] - row["low"] == pytest.approx(2 * 1.9983 * error, rel=1e-3)  # t, 63 df
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()
    assert {"headline", "clean", "fog", "shot_noise"} == {name for _, name in table.index}
    assert list(both.summary.index) == ["ours", "nothing"]
    page = both.report(tmp_path / "both.html").read_text()
    assert "Models side by side" in page
    assert "less error than ours" in page
    for name in ("headline", "clean", "fog", "shot noise"):
        row = table.loc[("nothing", name.replace(" ", "_"))]
        word = (
            "cannot tell"
            if row["p_holm"] >= 0.05
            else "better"
            if row["difference"] < 0
            else "worse"
        )
        style = "open" if word == "cannot tell" else word
        own = table.loc[("ours", name.replace(" ", "_")), "e_den"]
        severity = "" if name in ("headline", "clean") else f" {row['severity']:.0f}"
        cells = f'<td class="text">{name}{severity}</td><td>{own:.4g}</td>'
        assert f'{cells}<td class="{style}">{row["e_den"]:.4g}<small>{word}</small></td>' in page
    named = rv.api.compare.Comparison({"ours: v2": both.results["ours"], **both.results})
    assert '<td class="text">ours: v2</td>' in named.report(tmp_path / "v2.html").read_text()
    with pytest.raises(rv.UserError, match="compare: needs two models or more by name"):
        rv.compare({"ours": vae}, x)


# ---- attack


def test_an_attack_is_told_by_radius_with_chance_beside_it(vae: rv.VAE, x: np.ndarray) -> None:
    found = rv.attack(vae, x[:20], radii=[0.5, 2.0], steps=10, batch_size=7)
    table = found.table
    assert (table["damage"] > table["random"]).all()
    assert table["damage"].is_monotonic_increasing
    assert (table["ratio"] == table["damage"] / table["random"]).all()
    far = np.linalg.norm((found.hit.attacked[1] - x[:20] / 255).reshape(20, -1), axis=1)
    assert (far <= 2 + 1e-5).all()
    assert found.margin["lower"] <= found.margin["median"] <= found.margin["upper"]
    assert found.plot("strips").axes
    assert found.plot().axes
    again = rv.attack(vae, x[:20], radii=[0.5, 2.0], steps=10, batch_size=20)
    np.testing.assert_allclose(again.hit.damage, found.hit.damage, atol=1e-5)
    latent = rv.attack(vae, x[:20], radii=[2.0], steps=10, kind="latent")
    assert latent.table["damage"].item() > 0
    assert all(p.grad is None for p in vae.model.parameters())


def test_anyones_model_is_attacked_where_it_has_a_gradient(x: np.ndarray) -> None:
    model = Convolutional()
    found = rv.attack(model, x[:10], radii=[1.0], steps=5)
    assert found.table["ratio"].item() > 1
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    for broken, text in (
        (lambda x: x.detach(), "attacks: reconstruct has no gradient"),
        (lambda x: x.detach().numpy(), "model: must give a tensor of reconstructions"),
    ):
        with pytest.raises(rv.UserError, match=text):
            rv.attack(broken, x[:4], radii=[1.0], steps=2)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"norm": "l1"}, "norm: must be l2 or linf, got 'l1'"),
        ({"kind": "input"}, "kind: must be output or latent, got 'input'"),
        ({"radii": [2, 1]}, "radii: must be rising numbers > 0, got [2, 1]"),
        ({"steps": 0}, "steps, restarts, batch_size: must be 1 or more"),
        ({"kind": "latent"}, "kind: latent needs a posterior density"),
    ],
)
def test_bad_use_of_attack_is_one_line(how: Any, text: str, x: np.ndarray) -> None:
    with pytest.raises(rv.UserError) as error:
        rv.attack(lambda x: x, x[:4], **{"radii": [1.0], **how})
    assert str(error.value).startswith(text)


# ---- corrupt


def test_corrupted_images_keep_kind_type_shape_and_layout(x: np.ndarray) -> None:
    plain = corruptions.corrupt_images(x, "fog", 3, 5)
    forms: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (x, lambda found: found),
        (x[:, 0], lambda found: found[:, None]),
        (np.moveaxis(x, 1, -1), lambda found: np.moveaxis(found, -1, 1)),
        (torch.from_numpy(x), lambda found: found.numpy()),
        ((x / 255).astype(np.float32), lambda found: np.rint(found * 255)),
        (torch.from_numpy(x).double() / 255, lambda found: (found * 255).round().numpy()),
    )
    for images, back in forms:
        found = rv.corrupt(images, "fog", 3, seed=5)
        assert type(found) is type(images)
        assert found.dtype == images.dtype
        assert found.shape == images.shape
        np.testing.assert_array_equal(back(found), plain)
    one = rv.corrupt(x[0], "fog", 3, seed=5)
    np.testing.assert_array_equal(one, plain[0])
    np.testing.assert_array_equal(rv.corrupt(x[0, 0], "fog", 3, seed=5), plain[0, 0])
    np.testing.assert_array_equal(rv.corrupt(x[9:], "fog", 3, seed=5, start=9), plain[9:])
    colour = np.repeat(np.moveaxis(x, 1, -1), 3, -1)[:, :, :12]
    assert rv.corrupt(colour, "zigzag").shape == colour.shape
    assert rv.corrupt(x > 127, "impulse_noise").dtype == bool


@pytest.mark.parametrize(
    ("images", "how", "text"),
    [
        (np.zeros((2, 28, 28)) + 2, {}, "images: floats must lie in [0, 1], found 2 .. 2"),
        (np.zeros((2, 4, 4), np.uint8), {}, "images: uint8 [2, 4, 4]; give [H, W], [N, H, W]"),
        (np.zeros((0, 9, 9), np.uint8), {}, "images: uint8 [0, 9, 9]; give [H, W], [N, H, W]"),
        (np.zeros((2, 9, 9), np.uint8), {"name": "mist"}, "corruption: unknown 'mist'"),
        (np.zeros((2, 9, 9), np.uint8), {"severity": 9}, "severity: must be 0 (clean) .. 5, or"),
    ],
)
def test_bad_use_of_corrupt_is_one_line(images: Any, how: Any, text: str) -> None:
    with pytest.raises(rv.UserError) as error:
        rv.corrupt(images, **{"name": "fog", **how})
    assert str(error.value).startswith(text)


def test_the_transform_fits_into_torchvisions(x: np.ndarray) -> None:
    fog = rv.transforms.Corrupt("fog", severity=3, seed=1)
    from torchvision.transforms import v2  # only now: ours makes it work beside any torch

    assert repr(fog) == "Corrupt('fog', severity=3, seed=1)"
    alone = fog(torch.from_numpy(x[3]))
    np.testing.assert_array_equal(alone.numpy(), rv.corrupt(x[3], "fog", 3, seed=1))
    picture, label = fog((Image.fromarray(x[3, 0]), 7))
    assert label == 7
    np.testing.assert_array_equal(np.asarray(picture), alone[0].numpy())
    drawing = v2.Compose([v2.ToImage(), rv.transforms.Corrupt("impulse_noise")])
    data = [(drawing(Image.fromarray(image[0])), i) for i, image in enumerate(x[:4])]
    images, _ = next(iter(DataLoader(data, batch_size=4)))  # type: ignore[arg-type]
    assert images.shape == (4, 1, 16, 16)
    torch.manual_seed(0)
    first = [drawing(Image.fromarray(x[0, 0])) for _ in range(2)]
    torch.manual_seed(0)
    again = [drawing(Image.fromarray(x[0, 0])) for _ in range(2)]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], first[1])
    batch = fog(torch.from_numpy(x[:4]))
    np.testing.assert_array_equal(batch.numpy(), rv.corrupt(x[:4], "fog", 3, seed=1))
    with pytest.raises(rv.UserError, match="corruption: unknown 'mist'"):
        rv.transforms.Corrupt("mist")


# ---- data sets


def test_data_sets_are_those_of_the_pipeline() -> None:
    x, y = rv.datasets.load("digits", "test", limit=50)
    assert x.shape == (50, 1, 28, 28)
    assert np.bincount(y).tolist() == [5] * 10
    with pytest.raises(rv.UserError, match=r"data set: unknown 'minst' \(did you mean 'mnist'"):
        rv.datasets.load("minst")
    with pytest.raises(rv.UserError, match="split: must be one of train, val, test, got 'all'"):
        rv.datasets.load("digits", "all")
