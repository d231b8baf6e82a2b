"""The metrics by name: where their code is, and what quantities they give, or are made of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from robustvae.params import register
from robustvae.params.parts import TABLES, Table

if TYPE_CHECKING:
    from torch import Tensor

METRICS: "Table[Callable[..., dict[str, Tensor]]]" = TABLES["metric"]
# Name -> quantities
OF_METRIC = {
    "e_den": ("e_id", "e_const", "e_best", "e_den", "psnr", "skill", "skill_id", "skill_const"),
    "e_self": ("e_self",),
    "e_stab": ("e_stab",),
    "ssim_den": ("ssim_id", "ssim_den"),
    "delta_elbo": ("neg_elbo", "delta_elbo", "auroc", "fpr95"),
    "drift": ("drift",),
    "skl": ("skl",),
    "probe": ("probe",),
}
QUANTITIES = tuple(name for names in OF_METRIC.values() for name in names)
_OF_IMAGES = ("e_den", "e_self", "e_stab", "ssim_den")  # what the baselines have too

for _name, _quantities in OF_METRIC.items():
    register.metric(
        _name, f"robustvae.robustness.metrics:_{_name}", quantities=_quantities,
        pixels=_name in _OF_IMAGES,
    )  # fmt: skip
