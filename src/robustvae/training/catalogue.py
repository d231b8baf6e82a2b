"""The robust objectives by name: where their code is, and what their strength means."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from robustvae.params import register
from robustvae.params.parts import TABLES, Table

if TYPE_CHECKING:
    from torch import Tensor

ROBUST: "Table[Callable[..., Tensor]]" = TABLES["robust"]
_HERE, _DEVIATIONS = "robustvae.training.robust", "robust standard deviations above the median"

register.robust(
    "trimmed", f"{_HERE}:trimmed", strength="the share of a batch to leave out, e.g. 0.1"
)
for _name in ("rejected", "huber", "welsch"):
    register.robust(_name, f"{_HERE}:{_name}", strength=f"{_DEVIATIONS}, e.g. 3")
register.robust(
    "beta", f"{_HERE}:bounded", strength="the power b of the density, e.g. 0.002", weighs=False
)
