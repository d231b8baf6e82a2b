"""How far an adversary pushes the reconstructions of a model, ours or anyone's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from robustvae.api.adapters import adapted
from robustvae.api.gathering import gather
from robustvae.api.vae import VAE
from robustvae.errors import UserError
from robustvae.reporting.figures import attacks as figures
from robustvae.robustness import attacked, attacks
from robustvae.robustness.attacked import SHOWN
from robustvae.robustness.attacks import Hit, Plan
from robustvae.robustness.outside import at_rest
from robustvae.runtime import device as devices
from robustvae.runtime.progress import track


@dataclass(frozen=True)
class Attacked:
    """What came of it: values per image in `hit`, and a table of their means.

    >>> import numpy as np, robustvae as rv
    >>> found = rv.attack(lambda x: 0.5 * x, np.full((3, 8, 8), 0.5), radii=[1.0, 2.0], steps=5)
    >>> found.table["radius"].tolist(), found.hit.damage.shape
    ([1.0, 2.0], (2, 3))
    >>> figure = found.plot("damage")
    """

    name: str
    kind: str
    plan: Plan
    radii: tuple[float, ...]
    hit: Hit
    clean: np.ndarray  # [N, C, H, W], in [0, 1]
    back: np.ndarray  # reconstructions of the clean images
    back_attacked: np.ndarray  # and of those attacked at the largest radius

    @property
    def table(self) -> pd.DataFrame:
        """A row per radius: damage per pixel, that of random directions, their ratio, the error."""
        return attacked.table(self.hit, self.radii)

    @property
    def margin(self) -> dict[str, float]:
        """Quartiles of the radius at which the damage reaches the model's own clean error.

        Infinite where the largest radius is not enough for so many images.
        """
        return attacked.quartiles(self.hit.margin)

    def plot(self, name: str = "damage") -> Figure:
        """The figure "damage" (against the radius), or "strips" of attacked images."""
        unit = "L2" if self.plan.norm == "l2" else "largest change of a pixel"
        how = f"{self.kind} attack, {unit}, {self.plan.steps} steps, {self.plan.restarts} tries"
        if name == "damage":
            curves = {"attack": self.hit.damage, "random direction": self.hit.chance}
            note = f"{self.name} · {how} · n = {len(self.clean)} images · whiskers: 95 % interval"
            title = "How far an adversary pushes it"
            return figures.damage(self.radii, curves, float(self.hit.clean.mean()), title, note)
        if name != "strips":
            raise UserError(f"plot: must be damage or strips, got {name!r}")
        few, last = slice(0, SHOWN), self.hit.attacked[-1]
        note = f"{self.name} · {how} · radius {self.radii[-1]:g}"
        return figures.strips(self.clean[few], last[few], self.back[few], self.back_attacked[few],
                              "Images before and after the attack", note)  # fmt: skip

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False, float_format="{:.4g}".format))


def attack(
    model: Any,
    images: Any,
    *,
    radii: Sequence[float] = (0.5, 1.0, 2.0, 3.0),
    norm: str = "l2",
    kind: str = "output",
    steps: int = 40,
    restarts: int = 2,
    seed: int = 0,
    batch_size: int = 50,
    name: str | None = None,
) -> Attacked:
    """Change images within a ball so that their reconstructions move the most.

    By projected gradient, in a ball of each of `radii` (L2 over all values of an image, or "linf":
    of each value), within [0, 1]; the best of all iterates of all `restarts`. `kind`: "output"
    moves the reconstruction, "latent" (ours, with a posterior) the posterior. Beside it stands the
    worst of as many random directions. What is done to an image depends on its place and the seed
    alone. `model`: one of ours, or a module or function that torch can differentiate.

    >>> import numpy as np, robustvae as rv
    >>> x = np.full((2, 8, 8), 0.5)
    >>> found = rv.attack(lambda x: 0.5 * x, x, radii=[1.0], steps=5)
    >>> round(64 * found.table["damage"].item(), 4)  # 0.5^2, the largest there is
    0.25

    Of a linear model the most is known: r^2 times the square of its largest singular value.

    >>> import torch
    >>> matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) / 10
    >>> def linear(x):
    ...     return 0.5 + ((x.flatten(1) - 0.5) @ matrix.T).view_as(x)
    >>> found = rv.attack(linear, np.full((2, 8, 8), 0.5), radii=[0.2])
    >>> known = 0.2**2 * torch.linalg.matrix_norm(matrix, 2).item() ** 2
    >>> 0.99 * known <= 64 * found.table["damage"].item() <= 1.0001 * known
    True
    """
    if norm not in ("l2", "linf"):
        raise UserError(f"norm: must be l2 or linf, got {norm!r}")
    if kind not in attacks.GOALS:
        raise UserError(f"kind: must be {' or '.join(attacks.GOALS)}, got {kind!r}")
    if not radii or any(not 0 < r < np.inf for r in radii) or list(radii) != sorted(set(radii)):
        raise UserError(f"radii: must be rising numbers > 0, got {list(radii)}")
    if min(steps, restarts, batch_size) < 1:
        raise UserError("steps, restarts, batch_size: must be 1 or more")
    pixels = gather(images).pixels
    title = name or str(getattr(model, "__name__", type(model).__name__))
    target = model.model if isinstance(model, VAE) else Plain(adapted(model))
    if isinstance(model, VAE) and pixels.shape[1:] != model.shape:
        raise UserError(f"images: {list(pixels.shape[1:])}, the model takes {list(model.shape)}")
    weights = next(target.parameters(), None)
    where = torch.device("cpu") if weights is None else weights.device
    x = torch.from_numpy(pixels).to(where).float() / 255
    plan = Plan(norm, steps, restarts, seed)  # type: ignore[arg-type]
    with at_rest(target), devices.restored():
        hit = attacks.strike(
            target, x, kind, radii, plan, batch_size, lambda b, n: track(b, "attack", n, "batch")
        )
        through = attacks.reconstruction(target)
        with torch.no_grad():
            last = torch.from_numpy(hit.attacked[-1][:SHOWN]).to(where)
            back, moved = (through(part).cpu().numpy() for part in (x[:SHOWN], last))
    return Attacked(title, kind, plan, tuple(radii), hit, x.cpu().numpy(), back, moved)


class Plain(nn.Module):
    """Anyone's model as attacks take it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Its reconstruction, which may come first in a tuple."""
        try:
            found = getattr(self.model, "reconstruct", self.model)(x)
        except RuntimeError as error:
            if not x.requires_grad:
                raise
            raise UserError(
                f"attacks: the model cannot be differentiated ({str(error).partition('.')[0]}); "
                "compute its reconstruction in torch alone"
            ) from None
        first = found[0] if isinstance(found, tuple | list) else found
        if not isinstance(first, torch.Tensor) or first.shape != x.shape:
            raise UserError(
                "model: must give a tensor of reconstructions, of the shape of its images, to be "
                "attacked; an array has no gradient"
            )
        return first
