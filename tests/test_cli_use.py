"""The verbs that use a trained model: what they write and say."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import robustvae
from robustvae import cli
from robustvae.reporting.figures.pictures import as_bytes
from robustvae.runtime import files

VERBS = {
    "reconstruct": ["test"],
    "generate": ["--n", "5"],
    "encode": ["test"],
    "interpolate": ["test:0", "test:1"],
    "traverse": ["--steps", "3"],
    "arithmetic": ["--plus", "train:0:4", "--minus", "train:4:8", "--to", "test:0:2"],
    "score": ["test"],
    "export": ["--format", "torchscript"],
    "info": ["--card"],
}


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a verb on a small model; what it printed. Results lie in tmp_path/out/VERB."""
    monkeypatch.chdir(tmp_path)

    def run(verb: str, *words: object, kind: str = "gaussian") -> str:
        own = ["--model", tiny.model(kind), "--data", tiny.data(kind), "--device", "cpu"]
        cli.main([verb, *map(str, [*own, *words])])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(use, capsys: pytest.CaptureFixture[str]):
    """Run a verb that must stop with exit code 2; its message."""

    def run(*words: object, **how: str) -> str:
        with pytest.raises(SystemExit) as stop:
            use(*words, **how)
        assert stop.value.code == 2
        return capsys.readouterr().err

    return run


def vae(kind: str = "gaussian"):
    return robustvae.load(tiny.model(kind), device="cpu", data=tiny.data(kind))


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def column(path: str, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in table(path)])


# ---- each verb


def test_reconstruct_writes_images_errors_and_pairs(use) -> None:
    printed = use("reconstruct", "test", "--batch-size", "10")
    x, x_hat = vae().images("test").pixels, vae().reconstruct("test")
    np.testing.assert_array_equal(np.load("out/reconstruct/reconstructions.npy"), as_bytes(x_hat))
    rows = "out/reconstruct/reconstructions.csv"
    mse = np.square(x_hat - x / 255).mean((1, 2, 3))
    np.testing.assert_allclose(column(rows, "mse"), mse, rtol=1e-4)
    assert [row["image"] for row in table(rows)] == [str(i) for i in range(32)]
    assert printed.startswith(f"32 images: mse {mse.mean():.5g} per pixel, SSIM ")
    assert ((column(rows, "ssim") > 0) & (column(rows, "ssim") < 1)).all()
    assert np.asarray(Image.open("out/reconstruct/side-by-side.png")).std() > 10


def test_reconstruct_writes_a_pair_per_picture(use, tmp_path: Path) -> None:
    x = vae().images("test:3").pixels
    Image.fromarray(x[0, 0]).save(tmp_path / "mine.png")
    use("reconstruct", tmp_path / "mine.png")
    pair = np.asarray(Image.open("out/reconstruct/pictures/0-mine.png"))
    np.testing.assert_array_equal(pair[:, :16], x[0, 0])
    np.testing.assert_array_equal(pair[:, -16:], as_bytes(vae().reconstruct(x))[0, 0])


def test_reconstruct_draws_differ_between_batches_and_seeds(use) -> None:
    first = vae().images("test:0").pixels
    np.save("same.npy", np.repeat(first, 4, 0))
    drawn = []
    for seed in (1, 1, 2):
        use("reconstruct", "same.npy", "--sample", "--seed", seed, "--batch-size", 2)
        drawn.append(np.load("out/reconstruct/reconstructions.npy"))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert (drawn[0][:2] != drawn[0][2:]).any()


def test_generate_writes_samples_and_a_grid(use) -> None:
    printed = use("generate", "--n", 5, "--grid", "--seed", 3)
    samples = np.load("out/generate/samples.npy")
    np.testing.assert_array_equal(samples, as_bytes(vae().generate(5, seed=3)))
    grid = np.asarray(Image.open("out/generate/grid.png"))
    assert grid.shape == (2 * 16 + 2, 3 * 16 + 4)
    np.testing.assert_array_equal(grid[-16:, 18:34], samples[4, 0])
    assert (grid[-16:, -16:] == 255).all()
    assert "5 images, z from the prior: normal, scale 1, temperature 1" in printed


def test_generate_writes_a_picture_each(use) -> None:
    use("generate", "--n", 3, "--temperature", 0.5)
    samples = np.load("out/generate/samples.npy")
    for i, sample in enumerate(samples):
        picture = np.asarray(Image.open(f"out/generate/pictures/{i:04}.png"))
        np.testing.assert_array_equal(picture, sample[0])


@pytest.mark.parametrize(("kind", "words", "law"), [
    ("gamma", (), "z from the prior: Student-t with 3 degrees of freedom and one chi-square per"),
    ("t3", (), "z from p* of the t3VAE: Student-t with 259 degrees of freedom"),
    ("vq", (), "independent codes, uniform"),
    ("vq", ("--codes", "empirical"), "independent codes, as used in training (perplexity "),
])  # fmt: skip
def test_generate_says_what_it_draws_from(use, kind: str, words: tuple, law: str) -> None:
    assert f"2 images, {law}" in use("generate", "--n", 2, *words, kind=kind)


def test_encode_writes_latents_twice(use) -> None:
    assert "32 images: mu [32, 4], logvar [32, 4]" in use("encode", "test")
    kept = np.load("out/encode/latents.npz")
    np.testing.assert_allclose(kept["mu"], vae().latents("test"), atol=1e-5)
    np.testing.assert_allclose(
        column("out/encode/latents.csv", "logvar_2"), kept["logvar"][:, 2], rtol=1e-4
    )


def test_encode_writes_codes_of_vq_models(use) -> None:
    use("encode", "test:0:3", kind="vq")
    codes = np.load("out/encode/latents.npz")["codes"]
    assert codes.shape == (3, 4, 4)
    np.testing.assert_array_equal(column("out/encode/latents.csv", "codes_5"), codes[:, 1, 1])


def test_interpolate_goes_from_one_to_the_other(use) -> None:
    use("interpolate", "test:0", "test:1", "--steps", 4)
    steps = np.load("out/interpolate/interpolation.npy")
    ends = as_bytes(vae().reconstruct("test:0:2"))
    assert steps.shape == (4, 1, 16, 16)
    assert abs(steps[[0, -1]].astype(int) - ends).max() <= 1
    assert Path("out/interpolate/interpolation.png").exists()


def test_traverse_shows_the_dimensions_asked_for(use) -> None:
    printed = use("traverse", "--dims", "3,1", "--image", "test:2", "--range", 2, "--steps", 3)
    rows = np.load("out/traverse/traversal.npy")
    np.testing.assert_array_equal(rows, as_bytes(vae().traverse("test:2", [3, 1], 2.0, 3)))
    assert printed.startswith("dimensions 3, 1 in 3 steps")


def test_arithmetic_applies_the_difference_of_two_sets(use) -> None:
    use("arithmetic", "--plus", "train:1", "--minus", "train:0", "--to", "train:0", "test:0",
        "--factors", "0,1")  # fmt: skip
    result = np.load("out/arithmetic/arithmetic.npy").astype(int)
    assert result.shape == (2, 2, 1, 16, 16)
    ends = as_bytes(vae().reconstruct("train:0:2"))
    assert abs(result[0] - ends).max() <= 1
    assert abs(result[1, 0] - as_bytes(vae().reconstruct("test:0"))[0]).max() <= 1


def test_arithmetic_with_an_attribute_does_what_it_says(use) -> None:
    words = ("--attribute", "Wide", "--to", "test:0:16", "--factors=-1..1")
    printed = use("arithmetic", *words)
    wide = np.load(tiny.data("gaussian") / "train_labels.npy")[:, 0]
    assert f"16 images, {wide.sum()} plus, {(1 - wide).sum()} minus" in printed
    result = np.load("out/arithmetic/arithmetic.npy")
    widths = (result.max(3) > 128).any(2).sum(-1).mean(0)
    assert widths[-1] > widths[0] + 0.5


def test_score_ranks_noise_beyond_every_test_image(use, capsys) -> None:
    np.save("noise.npy", np.random.default_rng(0).random((3, 16, 16)))
    said = use("score", "noise.npy", "test")  # of the test images the most unlikely may be, too
    assert re.search(r"; [34] beyond the 0\.99 quantile of 32 test images", said)
    assert (column("out/score/scores.csv", "quantile")[:3] == 1).all()
    own = column("out/score/scores.csv", "quantile")[3:]
    assert own.mean() == pytest.approx(0.5, abs=0.05)
    values = column("out/score/scores.csv", "negative_elbo")
    assert np.argsort(own).tolist() == np.argsort(values[3:]).tolist() or len(set(own)) < 32


def test_score_with_k_is_the_importance_weighted_bound(use) -> None:
    use("score", "test:0:4", "--k", 8, "--seed", 2)
    expected = vae().score("test:0:4", k=8, seed=2)
    np.testing.assert_allclose(column("out/score/scores.csv", "iwae_8"), expected, rtol=1e-5)


def test_score_says_where_its_numbers_need_care(use, tmp_path: Path, capsys) -> None:
    cli.main(["score", str(tiny.data("gamma") / "test.npy"), "--device", "cpu",
              "--model", str(tiny.model("gamma"))])  # fmt: skip
    said = capsys.readouterr().err
    assert "warning: for df <= 4 with a Gaussian decoder the Monte-Carlo ELBO may have" in said
    assert "note: no quantiles, data/prepared holds no prepared data" in said
    assert list(table("out/score/scores.csv")[0]) == ["image", "negative_elbo"]
    use("score", "test:0:4", kind="cross_entropy")
    assert "cross_entropy_negative_elbo" in table("out/score/scores.csv")[0]


def test_black_and_white_models_say_what_they_do_to_images(use, capsys) -> None:
    tiny.model("binary")
    cli.main(["reconstruct", "test", "--device", "cpu", "--model", str(tiny.model("binary")),
              "--data", str(tiny.data("binary"))])  # fmt: skip
    assert "note: images are made black and white (threshold)" in capsys.readouterr().err


def test_export_writes_both_parts_and_a_card(use) -> None:
    printed = use("export", "--format", "onnx", "--card")
    assert {p.name for p in Path("out/export").iterdir()} == {
        "encoder.onnx", "decoder.onnx", "README.md",
    }  # fmt: skip
    assert re.match(r"onnx: largest difference from the model: encoder \d", printed)


def test_export_names_missing_packages(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused("export") == (
        "format: onnx needs more packages: `pip install onnx onnxruntime`\n"
    )


def test_info_says_what_the_model_is(use) -> None:
    printed = use("info", kind="t3")
    assert f"{vae('t3').model.parameters_count:,} parameters" in printed
    for fact in ("shapes, 16 x 16 grey, 32 train, 8 val, 32 test", "t3, df 3, beta 1", "CC0",
                 "best epoch 3 of 5, seed 0"):  # fmt: skip
        assert fact in printed


def test_the_card_holds_data_parameters_metrics_and_licence(use, tmp_path: Path) -> None:
    files.write_json(tmp_path / "m.json", {"test": {"mse": 0.0123}})
    use("info", "--card", "--metrics", "m.json")
    card = Path("out/info/README.md").read_text()
    weights = files.sha256(tiny.model("gaussian") / "model.safetensors")
    for text in ("# Autoencoder for shapes, 16 x 16 grey", "Licence of the data: CC0",
                 "| `test.mse` | 0.0123 |", "| `model.latent_dim` | 4 |", weights,
                 files.sha256(tiny.data("gaussian") / "train.npy")):  # fmt: skip
        assert text in card


def test_the_card_finds_the_pipelines_metrics(use, tmp_path: Path) -> None:
    files.write_json(tiny.model("vq").parent / "reports" / "metrics.json", {"val": {"mse": 0.5}})
    use("info", "--card", kind="vq")
    assert "| `val.mse` | 0.5 |" in Path("out/info/README.md").read_text()


def test_the_card_has_standard_errors_and_use_of_latents_where_they_are_known(
    use, tmp_path: Path
) -> None:
    files.write_json(tmp_path / "m.json", {"likelihood": {"elbo": -480.0}})
    known = {"likelihood": {"elbo": {"value": -480.0, "se": 0.5}}, "collapse": {"active_units": 3}}
    files.write_json(tmp_path / "evaluation.json", known | {"warnings": ["not here"]})
    use("info", "--card", "--metrics", "m.json")
    card = Path("out/info/README.md").read_text()
    for line in ("| `likelihood.elbo.value` | -480 |", "| `likelihood.elbo.se` | 0.5 |",
                 "| `collapse.active_units` | 3 |"):  # fmt: skip
        assert line in card
    assert "not here" not in card


@pytest.mark.parametrize("words", [(), ("--dims", "1")], ids=["default", "dims"])
def test_traverse_refuses_codes(refused, words: tuple[str, ...]) -> None:
    said = refused("traverse", *words, kind="vq")
    assert said == "traverse: vq models have codes, no dimensions; use interpolate\n"


# ---- all verbs


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["t3", "vq", "colour"])
def test_every_verb_works_for_every_kind_of_model(use, verb: str, kind: str) -> None:
    if (verb, kind) == ("traverse", "vq"):
        pytest.skip("vq models have no dimensions to traverse")
    use(verb, *VERBS[verb], "--out", "here", kind=kind)
    assert any(Path("here").iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_writes_the_same_bytes_for_the_same_seed(use, verb: str) -> None:
    for out in ("a", "b"):
        use(verb, *VERBS[verb], "--out", out, "--seed", 4, kind="gamma")
    names = sorted(p.relative_to("a") for p in Path("a").rglob("*") if p.is_file())
    assert names == sorted(p.relative_to("b") for p in Path("b").rglob("*") if p.is_file())
    for name in names:
        if name.suffix != ".pt":  # TorchScript numbers its classes per process
            assert (Path("a") / name).read_bytes() == (Path("b") / name).read_bytes()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"python -m robustvae {verb} " in text
    for option in ("--model", "--out", "--device", "--seed", "--batch-size"):
        assert option in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_a_missing_or_foreign_model(verb: str, refused, tmp_path: Path) -> None:
    words = [verb, *VERBS[verb], "--model"]
    assert refused(*words, "nowhere") == (
        "nowhere: no model there (config.json is missing); train one with `dvc repro`, "
        "or name a folder that holds model.safetensors and config.json\n"
    )
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"architectures": ["Other"]}')
    (tmp_path / "foreign" / "model.safetensors").write_bytes(b"")
    assert "foreign/config.json: not the settings of a robustvae model" in refused(
        *words, "foreign"
    )


@pytest.mark.parametrize(("words", "message"), [
    (["reconstruct", "big.png"], "big.png: 20 x 20 grey; the model takes 16 x 16 grey; --resize"),
    (["encode", "none"], "none: no such file or folder; name pictures, a folder of them, a .npy"),
    (["score", "text.png"], "text.png: not a readable picture ("),
    (["interpolate", "test", "test:0"], "test: 32 images, one is wanted; name one, as in test:3"),
    (["arithmetic", "--to", "test:0"], "arithmetic: needs --to, and either --plus and --minus or"),
    (["arithmetic", "--to", "test:0", "--attribute", "Wdie"],
     "--attribute: shapes has no 'Wdie'; did you mean 'Wide'?"),
    (["generate", "--out", "text.png"], "--out: text.png is a file; name a folder"),
], ids=["size", "missing", "broken", "many", "sets", "attribute", "out"])  # fmt: skip
def test_mistakes_are_one_line(refused, words: list[str], message: str) -> None:
    Image.new("L", (20, 20)).save("big.png")
    Path("text.png").write_text("no picture")
    said = refused(*words)
    assert said.startswith(message)
    assert said.count("\n") == 1


@pytest.mark.parametrize(("words", "message"), [
    (["generate", "--n", "0"], "--n: must be an integer >= 1, got '0'"),
    (["generate", "--seed", "-1"], "--seed: must be an integer >= 0, got '-1'"),
    (["interpolate", "test:0", "test:1", "--steps", "1"],
     "--steps: must be an integer >= 2, got '1'"),
    (["traverse", "--dims", "a"], "--dims: must be an integer >= 0, got 'a'"),
    (["arithmetic", "--factors", "x"], "--factors: must be numbers such as 0,0.5,1 or a range"),
], ids=["n", "seed", "steps", "dims", "factors"])  # fmt: skip
def test_wrong_options_say_what_is_allowed(refused, words: list[str], message: str) -> None:
    assert message in refused(*words)
