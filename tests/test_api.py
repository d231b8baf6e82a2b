"""robustvae.load: reading images, and what the methods give."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT
from PIL import Image
from scipy import stats

import robustvae
from robustvae.api.export import TOLERANCE
from robustvae.api.vae import VAE
from robustvae.errors import UserError
from robustvae.robustness.bounds import Draws


def vae(kind: str = "gaussian", **how: int) -> VAE:
    loaded = robustvae.load(tiny.model(kind), device="cpu", data=tiny.data(kind), **how)
    assert isinstance(loaded, VAE)
    return loaded


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared differences of all pairs, [N, M]."""
    return np.square(a[:, None] - b[None]).mean((2, 3, 4))


@pytest.fixture
def x() -> np.ndarray:
    return np.load(tiny.data("gaussian") / "train.npy")


# ---- reading


def test_arrays_tensors_files_folders_and_splits_give_the_same_images(
    x: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "notes.txt").write_text("no picture")
    for i, image in enumerate(x):
        Image.fromarray(image[0]).save(tmp_path / "folder" / "deep" / f"{i:02}.png")
    sources = (
        "train", tmp_path / "x.npy", tmp_path / "folder", torch.from_numpy(x), x[:, 0],
        np.moveaxis(x, 1, -1), x / 255, ["train:0:16", f"{tmp_path / 'x.npy'}:16:32"],
        [str(tmp_path / "folder" / "deep" / f"{i:02}.png") for i in range(32)],
    )  # fmt: skip
    for source in sources:
        images = vae().images(source)
        pixels = images.pixels if images.pixels.dtype == np.uint8 else images.pixels * 255
        np.testing.assert_allclose(pixels, x, atol=1e-4)


def test_one_image_of_a_split_keeps_its_number(x: np.ndarray) -> None:
    images = vae().images("train:7")
    assert images.names == ["7"]
    np.testing.assert_array_equal(images.pixels, x[7:8])


def test_grey_saved_as_colour_and_16_bits_are_grey(x: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(x[0, 0]).convert("RGB").save(tmp_path / "a.png")
    Image.fromarray(x[0, 0].astype(np.uint16) * 257).save(tmp_path / "b.png")
    np.testing.assert_array_equal(vae().images(tmp_path).pixels, x[[0, 0]])


def test_resize_crops_the_centre_and_changes_colours(tmp_path: Path) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, 16:48] = 200
    Image.fromarray(picture).save(tmp_path / "wide.png")
    for source in (tmp_path / "wide.png", picture[None], np.moveaxis(picture, -1, 0)):
        assert (vae().images(source, resize=True).pixels == 200).all()


def test_threshold_models_see_black_and_white_images() -> None:
    grey = np.full((1, 16, 16), 100, np.uint8)
    grey[:, :8] = 200
    assert set(np.unique(vae("binary").images(grey).pixels)) == {0, 255}


def wrong_sources(folder: Path) -> dict[str, tuple[object, str]]:
    Image.new("RGB", (30, 20), "red").save(folder / "red.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    (folder / "broken.npy").write_bytes(b"not an array")
    (folder / "empty").mkdir()
    name = str(folder)
    known = "name pictures, a folder of them, a .npy file, or train, val or test of the prepared"
    layouts = "[N, 1, 16, 16], [N, 16, 16, 1] or [N, 16, 16]; --resize (in Python resize=True)"
    return {
        "size": (
            folder / "red.png",
            f"{name}/red.png: 30 x 20 colour; the model takes 16 x 16 grey; --resize (in Python",
        ),
        "broken picture": (folder / "broken.png", f"{name}/broken.png: not a readable picture ("),
        "broken array": (folder / "broken.npy", f"{name}/broken.npy: not a readable .npy file ("),
        "empty folder": (folder / "empty", f"{name}/empty: no pictures in this folder; {known}"),
        "missing": (folder / "none.png", f"{name}/none.png: no such file or folder; {known}"),
        "past the end": ("test:99", "test:99: no image there; there are 32, numbered from 0"),
        "shape": (
            np.zeros((5, 3, 32, 32), np.uint8),
            f"the array: uint8 [5, 3, 32, 32]; the model takes {layouts}",
        ),
        "integers": (np.zeros((1, 16, 16), np.int64), "the array: int64; use uint8 in 0 .. 255,"),
        "range": (np.full((1, 16, 16), 7.0), "the array: floats must lie in [0, 1], found 7 .. 7"),
        "nan": (np.full((1, 16, 16), np.nan), "the array: floats must lie in [0, 1], found nan"),
    }


@pytest.mark.parametrize("case", [
    "size", "broken picture", "broken array", "empty folder", "missing", "past the end", "shape",
    "integers", "range", "nan",
])  # fmt: skip
def test_wrong_images_are_refused_with_what_was_expected(case: str, tmp_path: Path) -> None:
    source, message = wrong_sources(tmp_path)[case]
    with pytest.raises(UserError) as error:
        vae().images(source)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_grey_image_is_no_colour_image(x: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(x[0, 0]).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match="16 x 16 grey; the model takes 16 x 16 colour"):
        vae("colour").images(tmp_path / "grey.png")
    assert vae("colour").images(tmp_path / "grey.png", resize=True).pixels.shape == (1, 3, 16, 16)


def test_missing_prepared_data_say_how_to_make_them(tmp_path: Path) -> None:
    loaded = robustvae.load(tiny.model("vq"), device="cpu", data=tmp_path)
    with pytest.raises(UserError, match=r"no prepared data for 'test'; run `dvc repro preprocess`"):
        loaded.images("test")


# ---- methods


def test_reconstructions_are_closest_to_their_own_images(x: np.ndarray) -> None:
    pairs = distances(vae().reconstruct(x), x / 255)
    assert (pairs.argmin(1) == np.arange(len(x))).mean() > 0.9


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_results_do_not_depend_on_the_batch_size(kind: str) -> None:
    one, other = vae(kind), vae(kind, batch_size=5)
    np.testing.assert_allclose(one.reconstruct("test"), other.reconstruct("test"), atol=1e-5)
    np.testing.assert_allclose(one.generate(7), other.generate(7), atol=1e-5)
    np.testing.assert_allclose(one.score("test:0:7"), other.score("test:0:7"), rtol=1e-4)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_interpolation_starts_and_ends_at_the_reconstructions(kind: str) -> None:
    model = vae(kind)
    path = model.interpolate("test:0:3", "test:3:6", 5)
    assert path.shape == (3, 5, *model.shape)
    np.testing.assert_allclose(path[:, 0], model.reconstruct("test:0:3"), atol=1e-5)
    np.testing.assert_allclose(path[:, -1], model.reconstruct("test:3:6"), atol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "gamma", "t3", "vq"])
def test_adding_nothing_is_the_reconstruction(kind: str) -> None:
    model = vae(kind)
    same = model.arithmetic("train", "train", "test:0:3", [0, 1, 2])
    none = model.arithmetic("train:0", "train:1", "test:0:3", [0])
    for result in (*same.swapaxes(0, 1), none[:, 0]):
        np.testing.assert_allclose(result, model.reconstruct("test:0:3"), atol=1e-5)


def test_adding_the_difference_of_two_images_leads_from_one_to_the_other() -> None:
    model = vae()
    result = model.arithmetic("train:1", "train:0", "train:0", [1.0])
    np.testing.assert_allclose(result[0], model.reconstruct("train:1"), atol=1e-5)


def test_traversal_moves_one_dimension_through_the_prior() -> None:
    model = vae()
    rows = model.traverse("train:3", [2, 0], reach=2, steps=3)
    z = np.repeat(model.latents("train:3"), 3, 0)
    z[:, 2] = [-2, 0, 2]
    np.testing.assert_allclose(rows[0], model.decode(z), atol=1e-6)
    assert rows.shape == (2, 3, 1, 16, 16)
    assert sorted(model.active_dims(4)) == [0, 1, 2, 3]


def test_active_dimensions_come_first() -> None:
    model = vae()
    first = next(m for m in model.model.decoder.modules() if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        first.weight[:, [0, 3]] = 0  # the decoder ignores them
    assert set(model.active_dims(2)) == {1, 2}


@pytest.mark.parametrize(
    ("kind", "law"),
    [("gaussian", stats.norm), ("gamma", stats.t(3)), ("t3", stats.t(259, scale=0.2403))],
)
def test_samples_follow_the_law_of_the_model(kind: str, law: stats.rv_continuous) -> None:
    z = vae(kind)._draw(4000, 1.0, "", 0)
    assert stats.kstest(z[:, 0], law.cdf).pvalue > 0.01
    wide = vae(kind)._draw(4000, 2.0, "", 0)
    np.testing.assert_allclose(wide, 2 * z, rtol=1e-4)


def test_student_samples_share_one_chi_square() -> None:
    z = vae("gamma")._draw(4000, 1.0, "", 0)
    assert stats.spearmanr(abs(z[:, 0]), abs(z[:, 1])).statistic > 0.1


def test_codes_are_drawn_uniformly_or_as_they_were_used() -> None:
    model = vae("vq")
    with torch.no_grad():
        model.latent.counts.zero_()[5] = 1.0  # type: ignore[union-attr, operator, index]
    only = model.decode(model._draw(2, 1.0, "empirical", 0))
    np.testing.assert_allclose(only, model.generate(2, codes="empirical"))
    code = model.latent.codebook[5].detach().numpy()  # type: ignore[union-attr, index]
    grid = np.tile(code[None, :, None, None], (2, 1, 4, 4))
    np.testing.assert_allclose(only, model.decode(grid), atol=1e-6)
    assert len(np.unique(model._draw(50, 1.0, "uniform", 0)[:, 0])) == 32


def test_encoding_gives_the_posterior() -> None:
    for kind in ("gaussian", "gamma", "t3"):
        model = vae(kind)
        found, q = model.encode("test"), model.model.posterior(torch.from_numpy(
            np.array(model.images("test").pixels)).float() / 255)  # fmt: skip
        np.testing.assert_allclose(found["mu"], q.mu.detach(), atol=1e-5)
        np.testing.assert_allclose(found["logvar"], q.logvar.detach(), atol=1e-5)
        assert ("df" in found) == (kind != "gaussian")
    assert vae("vq").encode("test")["codes"].shape == (32, 4, 4)


@pytest.mark.parametrize("kind", ["gaussian", "cross_entropy", "gamma", "vq"])
def test_noise_scores_worse_than_data(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 16), np.uint8)
    model = vae(kind)
    assert model.score(noise).min() > model.score("train").max()


def test_the_importance_weighted_score_is_tighter() -> None:
    model = vae()
    assert model.score("train", k=64).mean() < model.score("train").mean()


def test_seeds_repeat_and_differ() -> None:
    model = vae()
    for draw in (lambda s: model.generate(3, seed=s),
                 lambda s: model.reconstruct("test:0:3", sample=True, seed=s),
                 lambda s: model.score("test:0:3", seed=s)):  # fmt: skip
        np.testing.assert_array_equal(draw(1), draw(1))
        assert (draw(1) != draw(2)).any()


def test_using_a_model_leaves_torchs_generator_alone() -> None:
    model, before = vae(), torch.get_rng_state()
    model.generate(3)
    model.reconstruct("test", sample=True)
    model.score("test")
    assert torch.equal(before, torch.get_rng_state())


def test_sampled_reconstructions_scatter_by_sigma() -> None:
    model = vae()
    draws = model.reconstruct("train", sample=True) - model.reconstruct("train")
    middle = (model.reconstruct("train") > 0.4) & (model.reconstruct("train") < 0.6)
    assert draws[middle].std() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
@pytest.mark.parametrize("kind", ["gaussian", "t3", "vq"])
def test_exported_files_agree_with_the_model(kind: str, form: str, tmp_path: Path) -> None:
    model = vae(kind)
    found = model.export(tmp_path / "a", form)
    assert max(found.values()) <= TOLERANCE
    x = model.images("test").pixels.astype(np.float32) / 255
    codes = ["codes"] if kind == "vq" else ["mu", "logvar"]
    suffix = "onnx" if form == "onnx" else "pt"
    encoded = run(tmp_path / "a" / f"encoder.{suffix}", x)
    for array, name in zip(encoded, codes, strict=True):
        np.testing.assert_allclose(array, model.encode("test")[name], atol=1e-5)
    (decoded,) = run(tmp_path / "a" / f"decoder.{suffix}", encoded[0])
    np.testing.assert_allclose(decoded, model.reconstruct("test"), atol=1e-5)


def run(path: Path, x: np.ndarray) -> list[np.ndarray]:
    if path.suffix == ".pt":
        return [t.numpy() for t in torch.jit.load(path)(torch.from_numpy(x))]  # type: ignore[no-untyped-call]
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: x}))


def test_onnx_files_repeat_and_name_no_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        vae("t3").export(tmp_path / name)
    for part in ("encoder.onnx", "decoder.onnx"):
        content = (tmp_path / "a" / part).read_bytes()
        assert content == (tmp_path / "b" / part).read_bytes()
        assert str(ROOT).encode() not in content


def test_a_wrong_export_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustvae.api import export

    wrong = export.FORMATS["torchscript"]._replace(run=lambda content, x: [x.new_ones(7, 4)] * 2)
    monkeypatch.setitem(export.FORMATS, "torchscript", wrong)
    with pytest.raises(RuntimeError, match="the encoder differs from the model by"):
        vae().export(tmp_path, "torchscript")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("call", "message"), [
    (lambda: vae("vq").traverse(), "traverse: vq models have codes, no dimensions"),
    (lambda: vae("vq").generate(1, 0.5), "temperature: has no effect on uniform codes"),
    (lambda: vae("vq").score("test", k=4), "k: the code of a vq model is deterministic"),
    (lambda: vae().generate(1, 0.0), "temperature: must be > 0 and finite, got 0"),
    (lambda: vae().traverse(reach=float("inf")), "range, factors: must be finite, got inf"),
    (lambda: vae().traverse(dims=[9]), "dims: 9 is not one of 0 .. 3"),
    (lambda: vae().export("x", "jax"), "format: 'jax' is not known; use onnx or torchscript"),
    (lambda: robustvae.load("nowhere"), "nowhere: no model there"),
], ids=["traverse", "codes", "k", "cold", "infinite", "dims", "format", "folder"])  # fmt: skip
def test_what_makes_no_sense_is_refused(call: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        call()  # type: ignore[operator]
    assert str(error.value).startswith(message)


def test_noise_of_an_evaluation_is_named() -> None:
    p = vae().model.generating_prior(3)
    with torch.no_grad():
        z = vae()._draw(3, 1.0, "", 5)
        np.testing.assert_array_equal(z, Draws(5).standard(p, "generate").numpy())


def test_the_readmes_five_lines_work(tmp_path: Path) -> None:
    code = (
        "import robustvae\n"
        f"vae = robustvae.load({str(tiny.model('gaussian'))!r})\n"
        f"x = vae.images({str(tiny.data('gaussian') / 'test.npy')!r})\n"
        "assert vae.reconstruct(x).shape == (32, 1, 16, 16)\n"
        "assert vae.generate(4).shape == (4, 1, 16, 16)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=True)
