"""The model folder: what is saved comes back to the bit, anything else is refused in one line."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from robustvae.errors import UserError
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import files

FAMILIES = {
    "gaussian": {"loss.prior.mu": [0.5, -0.5, 0.0], "model.architecture.channels": [4, 8]},
    "gamma": {"loss.df": 3.0},
    "t3": {"loss.df": 3.0, "loss.divergence": "t3", "model.likelihood.name": "student_t"},
    "vq": {"model.latent.name": "vq"},
    "per_pixel": {"model.likelihood.variance": "per_pixel", "model.logvar_bound": 3.0},
}
SHAPE = (3, 12, 12)


@pytest.fixture
def make_model(make_params):
    def make(changes=None) -> Autoencoder:
        narrow = {"model.latent_dim": 3, "model.architecture.channels": [4, 4], **(changes or {})}
        settings = make_params(narrow)
        torch.manual_seed(0)
        model = Autoencoder.build(settings.model, settings.loss, SHAPE)
        model.terms(torch.rand(4, *SHAPE))  # batch norm and codebook leave their first values
        return model.eval()

    return make


@pytest.fixture
def folder(tmp_path, make_model) -> Path:
    model_folder.save(make_model(), {"train": {"epochs": 3}}, tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_reloaded_model_is_the_same_to_the_bit(tmp_path, make_model, family, memory):
    model = make_model(FAMILIES[family]).to(memory_format=memory)
    model_folder.save(model, {}, tmp_path)
    again = model_folder.load(tmp_path)
    x = torch.rand(5, *SHAPE)
    assert not again.training
    assert (again.settings, again.loss_settings, again.shape) == (
        model.settings, model.loss_settings, model.shape,
    )  # fmt: skip
    assert torch.equal(again.reconstruct(x), model.reconstruct(x))
    weights = []
    for each in (model, again):
        torch.manual_seed(1)
        weights.append(each.log_weights(x, 2))
    assert torch.equal(*weights)


def test_config_holds_what_training_adds_and_what_the_model_knows(folder):
    model = model_folder.load(folder)
    assert model.config["train"] == {"epochs": 3}
    assert model.config["format"] == 2
    assert model.config["shape"] == [3, 12, 12]
    assert model.config["parameters"] == model.parameters_count
    assert model.config["versions"]["torch"] == torch.__version__
    assert model.config == json.loads((folder / "config.json").read_text())


def test_the_same_model_gives_the_same_bytes(folder, tmp_path, make_model):
    model_folder.save(make_model(), {"train": {"epochs": 3}}, tmp_path / "other")
    for name in ("model.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_loading_leaves_the_random_stream_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model_folder.load(folder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"no model there \\({name} is missing\\); train one"):
        model_folder.load(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no model there"):
        model_folder.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: [1, 2], "not the settings of a robustvae model; name another folder"),
        (lambda c: {"architectures": ["Bert"]}, "not the settings of a robustvae model"),
        (lambda c: {**c, "format": 1}, "format 1, this version reads 2"),
        (lambda c: {k: v for k, v in c.items() if k != "loss"}, "'loss' is missing; train"),
        (lambda c: {**c, "model": {**c["model"], "depth": 3}}, "model: depth: Extra inputs"),
        (lambda c: {**c, "model": {**c["model"], "latent_dim": -1}}, "model: latent_dim: Input"),
        (lambda c: {**c, "shape": [3, 14, 14]}, "conv cannot halve 14 pixels twice"),
        (lambda c: {**c, "shape": None}, "not the settings of a model"),
    ],
    ids=["list", "foreign", "newer", "incomplete", "unknown", "range", "geometry", "shape"],
)
def test_settings_that_build_no_model_are_refused(folder, change, text):
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError) as error:
        model_folder.load(folder)
    assert text in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match="truncated or no safetensors file"):
        model_folder.load(folder)


def test_weights_of_another_model_are_refused(folder, tmp_path, make_model):
    model_folder.save(make_model({"model.latent_dim": 5}), {}, tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        model_folder.load(folder)
    expected = "latent.head.weight is 10x36 float32, not 6x36 float32 and 2 more"
    assert expected in str(error.value)


def test_missing_weights_are_named(folder):
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"likelihood.raw is missing and \d+ more"):
        model_folder.load(folder)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_loading_runs_nothing_that_it_reads(folder, tmp_path):
    marker = tmp_path / "ran"
    with (folder / "model.safetensors").open("wb") as file:
        pickle.dump(Trap(marker), file)
    with pytest.raises(UserError):
        model_folder.load(folder)
    assert not marker.exists()


def test_a_failed_save_leaves_the_old_model(folder, make_model, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(model_folder, "packed", lambda *_: (_ for _ in ()).throw(OSError(28, "")))
    with pytest.raises(Exception, match="no space left"):
        model_folder.save(make_model({"model.latent_dim": 5}), {}, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_card_of_the_model_that_comes_along_names_its_weights() -> None:
    folder = ROOT / "pretrained" / "mnist"
    assert files.sha256(folder / "model.safetensors") in (folder / "README.md").read_text()
