"""The models that come along: found by name, whole, and what their recipe and card say."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, overlay

import robustvae
from robustvae import UserError, cli, params
from robustvae.api import shipped
from robustvae.models.folder import WEIGHTS
from robustvae.runtime import files

NAMES = list(shipped.MODELS)
MADE = [name for name in NAMES if name != "mnist"]  # which is older than the limit, and kept


def test_the_table_is_what_there_is() -> None:
    assert sorted(NAMES) == sorted(p.name for p in (ROOT / "pretrained").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_loaded_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vae = robustvae.load(name)
    x_hat = vae.reconstruct(vae.generate(2))
    assert x_hat.shape == (2, *vae.shape)
    assert x_hat.std() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_its_card_has_its_weights_and_its_measured_skill(name: str) -> None:
    folder = ROOT / "pretrained" / name
    card, metrics = (folder / "README.md").read_text(), files.read_json(folder / "metrics.json")
    assert shipped.MODELS[name].sha256 in card
    assert f"| `robustness.skill` | {metrics['robustness']['skill']:.6g} |" in card
    assert f'robustvae.load("{name}")' in card


@pytest.mark.parametrize("name", MADE)
def test_it_is_small_and_of_its_recipe(name: str) -> None:
    folder = ROOT / "pretrained" / name
    assert (folder / WEIGHTS).stat().st_size < 2e6
    config, recipe = files.read_json(folder / "config.json"), ROOT / "recipes" / f"{name}.yaml"
    default = params.read(ROOT / "params.yaml")
    wanted = params.check(overlay(default, params.flatten(params.read(recipe))))
    for section in ("model", "loss", "train"):
        said = getattr(wanted, section).model_dump(mode="json")
        assert {k: said[k] for k in config[section]} == config[section]


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pretrained/mnist, one byte of which is another."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "pretrained" / "mnist", tmp_path / "pretrained" / "mnist")
    path = tmp_path / "pretrained" / "mnist" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def test_a_damaged_file_is_one_line(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"pretrained/mnist/model.safetensors: .* `git checkout --"):
        robustvae.load("mnist")
    with pytest.raises(SystemExit):
        cli.main(["info", "--model", "mnist"])
    assert len(capsys.readouterr().err.splitlines()) == 1
    damaged.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        robustvae.load("mnist")


def test_without_the_repository_it_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "SOURCE", tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"^mnist: this model comes with .*path/to/pretrained/mnist$"
    ):
        robustvae.load("mnist")
    cli.main(["models"])
    assert "mnist" in capsys.readouterr().out


def test_a_name_that_is_nearly_one_gets_it() -> None:
    with pytest.raises(UserError, match=r"did you mean 'mnist'\?.*`robustvae models`"):
        robustvae.load("mnsit")


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "pretrained" / "mnist", tmp_path / "mnist")
    assert shipped.resolve("mnist") == Path("mnist")
    (tmp_path / "mnist" / "config.json").unlink()  # a folder of something else
    assert shipped.resolve("mnist") == shipped.SOURCE / "mnist"


def test_the_verb_lists_them_with_size_and_skill(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == NAMES
    assert all(" MB " in line for line in lines[1:-1])
