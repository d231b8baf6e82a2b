"""The parts of a model by name: where their code is, and what settings are checked against."""

from typing import Any

from robustvae.params import register
from robustvae.params.parts import TABLES, Table

# Of classes; what they are of is said where they are made.
DIVERGENCES: Table[Any] = TABLES["divergence"]
LIKELIHOODS: Table[Any] = TABLES["likelihood"]
LATENTS: Table[Any] = TABLES["latent"]
NETS: Table[Any] = TABLES["net"]
_HERE = "robustvae.models"

register.divergence("alpha", f"{_HERE}.divergences:Alpha", takes=("alpha",))
register.divergence("renyi", f"{_HERE}.divergences:Renyi", takes=("alpha",))
register.divergence("gamma", f"{_HERE}.divergences:Gamma", student_t=True)
register.divergence("t3", f"{_HERE}.divergences:T3", student_t=True)

register.likelihood("bernoulli", f"{_HERE}.likelihoods:Bernoulli")
register.likelihood("gaussian", f"{_HERE}.likelihoods:Gaussian")
register.likelihood("student_t", f"{_HERE}.likelihoods:ImageT", takes=("df",))
register.likelihood("student_t_pixel", f"{_HERE}.likelihoods:PixelT", takes=("df",))
register.likelihood("laplace", f"{_HERE}.likelihoods:Laplace")

register.latent("auto", f"{_HERE}.latents:Continuous")  # Gaussian, or Student-t where loss.df > 2
register.latent("vq", f"{_HERE}.latents:VQ")

# Without batch norm, silu: on dark images the first steps push every output down and leave
# relu (and leaky relu) nets dead at the usual learning rates, with a constant image for ever.
_STRIDED = {"activation": "silu", "kernel": 4, "stride": 2, "padding": 1}
register.net(
    "conv", f"{_HERE}.nets:Conv", widths=(), activation="relu", kernel=3, stride=2, padding=1,
    norm=True, options=("channels", "depth", "max_filters", "hidden"),
)  # fmt: skip
register.net("small", f"{_HERE}.nets:Conv", widths=(16, 32), activation="silu", kernel=5)
register.net("wide", f"{_HERE}.nets:Conv", widths=(64, 128), hidden=1024, **_STRIDED)
register.net("resnet", f"{_HERE}.nets:ResNet", widths=(64, 128), **_STRIDED)
register.net(
    "mlp", f"{_HERE}.nets:MLP", widths=(200, 200), activation="tanh", options=("channels",)
)
