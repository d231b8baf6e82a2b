"""docs/format.md is enough: nets rebuilt from a model folder with torch's functions alone."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from robustvae.errors import UserError
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import files

SHAPE = (3, 16, 16)
KINDS: dict[str, dict[str, Any]] = {
    "conv": {},
    "conv of odd widths": {"model.architecture": {"channels": [6, 10], "hidden": 20}},
    "small": {"model.architecture.name": "small"},
    "wide": {"model.architecture": {"name": "wide", "hidden": 900}},
    "resnet": {"model.architecture.name": "resnet"},
    "mlp": {"model.architecture": {"name": "mlp", "channels": [600, 50]}},
    "another activation": {"model.architecture.activation": "leaky_relu"},
    "variance per pixel": {"model.likelihood.variance": "per_pixel"},
    "gamma": {"loss.df": 3.0, "model.logvar_bound": 2.0},
    "vq": {"model.latent.name": "vq"},
    "vq, resnet": {"model.latent.name": "vq", "model.architecture.name": "resnet"},
}
ACTIVATIONS = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "elu": F.elu, "silu": F.silu, "tanh": torch.tanh
}  # fmt: skip


class Rebuilt:
    """What docs/format.md says, line by line; knows nothing of robustvae."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.w, self.net = load_file(folder / "model.safetensors"), self.config["net"]
        self.act = ACTIVATIONS[self.net["activation"]]
        self.name = self.config["model"]["architecture"]["name"]
        self.vq = self.config["model"]["latent"]["name"] == "vq"

    def at(self, part: str, kind: str) -> Tensor | None:
        return self.w.get(f"{part}.{kind}")

    def activated(self, part: str, n: int, h: Tensor) -> tuple[int, Tensor]:
        if self.net["norm"]:
            p = f"{part}.{n}"
            names = ("running_mean", "running_var", "weight", "bias")
            h, n = F.batch_norm(h, *(self.at(p, name) for name in names), eps=1e-5), n + 1
        return n + 1, self.act(h)

    def between(self, part: str, n: int, h: Tensor) -> tuple[int, Tensor]:
        if self.name != "resnet":
            return n, h
        h = self.conv(f"{part}.{n}", h, padding=1)
        for block in (n + 1, n + 2):
            inner = self.conv(f"{part}.{block}.body.1", self.act(h), padding=1)
            h = h + self.conv(f"{part}.{block}.body.3", self.act(inner))
        return n + 4, self.act(h)

    def conv(self, p: str, h: Tensor, **how: int) -> Tensor:
        return F.conv2d(h, self.at(p, "weight"), self.at(p, "bias"), **how)

    def dense(self, p: str, h: Tensor) -> Tensor:
        return F.linear(h, self.at(p, "weight"), self.at(p, "bias"))

    def encode(self, x: Tensor) -> Tensor:
        n, h, net = 0, x, self.net
        if self.name == "mlp":
            h, n = x.flatten(1), 1
            for _ in net["widths"]:
                h, n = self.act(self.dense(f"encoder.{n}", h)), n + 2
            return h
        for _ in net["widths"]:
            h = self.conv(f"encoder.{n}", h, stride=net["stride"], padding=net["padding"])
            n, h = self.activated("encoder", n + 1, h)
        n, h = self.between("encoder", n, h)
        if self.vq:
            return h
        h = h.permute(0, 2, 3, 1).flatten(1)
        return self.act(self.dense(f"encoder.{n + 1}", h)) if net["hidden"] else h

    def code(self, h: Tensor) -> Tensor:
        if self.vq:
            h = self.conv("latent.head", h).permute(0, 2, 3, 1)
            book = self.w["latent.codebook"]
            near = torch.cdist(h.flatten(0, 2), book).argmin(1).view(h.shape[:3])
            return book[near].permute(0, 3, 1, 2)
        mu, _ = self.dense("latent.head", self.net["head_scale"] * h).chunk(2, -1)
        return mu

    def decode(self, z: Tensor) -> Tensor:
        n, h, net = 0, z, self.net
        widths, sides = net["widths"][::-1], net["sides"][::-1]
        if self.name == "mlp":
            for _ in widths:
                h, n = self.act(self.dense(f"decoder.{n}", h)), n + 2
            return self.dense(f"decoder.{n}", h).view(len(z), -1, sides[0], sides[0])
        if self.vq:
            h, n = self.conv("decoder.0", h, padding=1), 1
        else:
            if net["hidden"]:
                h, n = self.act(self.dense("decoder.0", h)), 2
            h = self.dense(f"decoder.{n}", h).view(len(z), sides[0], sides[0], widths[0])
            h, n = h.permute(0, 3, 1, 2), n + 2
        n, h = self.activated("decoder", n, h)
        n, h = self.between("decoder", n, h)
        for side, wanted in pairwise(sides):
            p, pad, k = f"decoder.{n}", net["padding"], net["kernel"]
            more = wanted - ((side - 1) * net["stride"] - 2 * pad + k)
            weights = self.at(p, "weight"), self.at(p, "bias")
            h = F.conv_transpose2d(h, *weights, net["stride"], pad, more)
            if wanted != sides[-1]:
                n, h = self.activated("decoder", n + 1, h)
        return h

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.code(self.encode(x)))[:, : self.config["shape"][0]].sigmoid()


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_rebuilt_by_the_page_reconstructs_the_same(
    kind: str, tmp_path: Path, make_params: Any
) -> None:
    settings = make_params({"model.latent_dim": 3, **KINDS[kind]})
    torch.manual_seed(0)
    model = Autoencoder.build(settings.model, settings.loss, SHAPE)
    x = torch.rand(4, *SHAPE)
    model.terms(x)  # batch norm and codebook leave their first values
    model_folder.save(model.eval(), {}, tmp_path)
    with torch.no_grad():
        expected, found = model.reconstruct(x), Rebuilt(tmp_path).reconstruct(x)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_model_that_comes_along_can_be_rebuilt() -> None:
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    folder = ROOT / "pretrained/mnist"
    with torch.no_grad():
        expected = model_folder.load(folder).reconstruct(x)
        found = Rebuilt(folder).reconstruct(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def saved(folder: Path, make_params: Any) -> dict[str, Any]:
    settings = make_params()
    model_folder.save(Autoencoder.build(settings.model, settings.loss, (1, 28, 28)), {}, folder)
    return files.read_json(folder / "config.json")


def test_a_folder_of_before_loads_with_the_scale_that_it_had(
    tmp_path: Path, make_params: Any
) -> None:
    config = saved(tmp_path, make_params)
    assert config["net"]["head_scale"] == 16 / 3136**0.5
    del config["net"]
    files.write_json(tmp_path / "config.json", config)
    assert model_folder.load(tmp_path).latent.scale == 16 / 3136**0.5


@pytest.mark.parametrize("scale", [None, 0, "wide", float("inf")], ids=str)
def test_a_scale_that_is_none_is_one_line(tmp_path: Path, make_params: Any, scale: Any) -> None:
    config = saved(tmp_path, make_params)
    config["net"]["head_scale"] = scale
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json: net\.head_scale must be a number above 0"):
        model_folder.load(tmp_path)


def test_the_scale_of_the_folder_counts(tmp_path: Path, make_params: Any) -> None:
    config = saved(tmp_path, make_params)
    config["net"]["head_scale"] = 0.5
    files.write_json(tmp_path / "config.json", config)
    assert model_folder.load(tmp_path).latent.scale == 0.5
