"""Architectures: shapes for every size and colour, and clear refusals."""

from typing import Any, get_args

import pytest
import torch

from robustvae.api import testing
from robustvae.models.catalogue import NETS
from robustvae.models.nets import ACTIVATIONS, Maps, Vector
from robustvae.params import ArchitectureSettings
from robustvae.params.geometry import geometry

NULL = {"channels": None, "depth": None, "max_filters": None, "hidden": None, "activation": "auto"}


def settings(name: str, **changes: Any) -> ArchitectureSettings:
    return ArchitectureSettings.model_validate({"name": name, **NULL, **changes})


def shapes(name: str, side: int, colours: int, vq: bool = False, **changes: Any) -> tuple:
    """Feature and output shapes of two images, worked out by torch without any arithmetic."""
    g = geometry(settings(name, **changes), side, vq)
    with torch.device("meta"):
        h = NETS[name]().encoder(g, colours)(torch.empty(2, colours, side, side))
        z = torch.empty(2, 5, *h.shape[2:])
        out = NETS[name]().decoder(g, 5, 2 * colours)(z)
    assert h.shape[1] == g.features
    return tuple(h.shape), tuple(out.shape)


@pytest.mark.parametrize("name", NETS)
def test_laws(name):
    testing.check_net(name)


def test_the_table_of_activations_has_the_names_that_the_settings_allow():
    activations = set(get_args(ArchitectureSettings.model_fields["activation"].annotation))
    assert set(ACTIVATIONS) == activations - {"auto"}


@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.parametrize("name", sorted(set(NETS) - {"mlp"}))
def test_feature_maps_stay_maps_for_vq(name, side):
    h, out = shapes(name, side, 3, vq=True)
    assert len(h) == 4
    assert out == (2, 6, side, side)


@pytest.mark.parametrize(
    ("name", "side", "changes", "widths", "sides"),
    [
        ("small", 28, {}, (16, 32), (28, 24, 20)),
        ("wide", 28, {}, (64, 128), (28, 14, 7)),
        ("conv", 28, {}, (32, 64), (28, 14, 7)),
        ("conv", 32, {}, (16, 32, 64), (32, 16, 8, 4)),
        ("conv", 64, {}, (16, 32, 64), (64, 32, 16, 8)),
        ("conv", 64, {"max_filters": 64, "depth": 2}, (32, 64), (64, 32, 16)),
        ("conv", 64, {"channels": [8, 8, 8, 8]}, (8, 8, 8, 8), (64, 32, 16, 8, 4)),
        ("resnet", 32, {}, (64, 128), (32, 16, 8)),
        ("mlp", 28, {}, (200, 200), (28,)),
        ("mlp", 27, {"channels": [500]}, (500,), (27,)),
        ("small", 27, {"channels": [8]}, (8,), (27, 23)),
    ],
    ids=lambda v: str(v).replace(" ", ""),
)
def test_widths_and_sides(name, side, changes, widths, sides):
    g = geometry(settings(name, **changes), side)
    assert (g.widths, g.sides) == (widths, sides)
    assert shapes(name, side, 1, **changes)[1] == (2, 2, side, side)


def test_a_dense_layer_stands_next_to_the_latents_where_asked_for():
    assert shapes("wide", 28, 1)[0] == (2, 1024)
    assert shapes("wide", 28, 1, hidden=0)[0] == (2, 128 * 7 * 7)
    assert shapes("conv", 28, 1, hidden=50)[0] == (2, 50)


def test_channels_last_maps_become_a_vector_and_maps_again_without_a_copy():
    h = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    again = Maps(3, 4)(Vector()(h))
    assert torch.equal(again, h)
    assert again.data_ptr() == h.data_ptr()


@pytest.mark.parametrize(
    ("name", "side", "vq", "changes", "text"),
    [
        ("conv", 28, False, {"depth": 3},
         "depth: conv cannot halve 28 pixels three times; set depth to at most 2, "
         "or use an image size of at least 16 that 8 divides"),
        ("conv", 27, False, {},
         "name: conv cannot halve 27 pixels once; set name to small or mlp, "
         "or use an image size of at least 4 that 2 divides"),
        ("wide", 30, False, {},
         "name: wide cannot halve 30 pixels twice; give channels at most 1 width, "
         "or use an image size of at least 8 that 4 divides"),
        ("resnet", 28, False, {"channels": [8, 8, 8, 8]},
         "channels: resnet cannot halve 28 pixels 4 times; give channels at most 2 widths, "
         "or use an image size of at least 32 that 16 divides"),
        ("small", 8, False, {},
         "channels: small takes 4 pixels off at each of 2 stages, which leaves nothing of 8; "
         "use fewer stages or an image size above 8"),
        ("conv", 32, False, {"max_filters": 50},
         "max_filters: 50 cannot be halved from each of 3 stages to the one before; "
         "use a multiple of 4"),
        ("mlp", 28, False, {"max_filters": 64},
         "max_filters: has no effect with mlp, got 64; use null"),
        ("small", 28, False, {"depth": 2}, "depth: has no effect with small, got 2; use null"),
        ("mlp", 28, False, {"hidden": 10}, "hidden: has no effect with mlp, got 10; use null"),
        ("conv", 28, False, {"channels": [8, 16], "max_filters": 64},
         "max_filters: has no effect when channels gives the widths; remove one of them "
         "(got max_filters 64, channels [8, 16])"),
        ("mlp", 28, True, {},
         "name: mlp makes no feature maps, which vq latents need; use conv, small, wide, resnet"),
        ("wide", 28, True, {"hidden": 64},
         "hidden: has no effect with vq latents, which keep the feature maps, got 64; use null"),
    ],
    ids=lambda v: str(v)[:24].replace(" ", ""),
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(name, side, vq, changes, text):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text follows)
        geometry(settings(name, **changes), side, vq)
    assert str(error.value) == text
