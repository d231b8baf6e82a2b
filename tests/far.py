"""A device that is none: what a GPU forbids is an error on it too, what it computes a CPU computes.

Its tensors hold others and say that they are elsewhere. One that meets a tensor of the CPU, or is
asked for its memory, fails as on CUDA. `python tests/far.py` runs the cases on both and prints, as
JSON, what went wrong; a process of its own, since torch cannot forget a device.
"""

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import short
import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

import robustvae as rv
from robustvae.api import vae
from robustvae.robustness import outliers
from robustvae.runtime import device
from robustvae.training import loop

FAR = "far"
MIXED = ("_to_copy", "copy_", "_copy_from")  # both devices may take part
PICKED = ("index", "index_put_", "_index_put_impl_")  # indices may come from the CPU


class Far(Tensor):
    """A tensor of the device."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=torch.device(FAR, 0), requires_grad=near.requires_grad,
        )  # fmt: skip
        made.near = near
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """As CUDA has it."""
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        far = {id(x.near): x for x in tensors if isinstance(x, Far)}
        if name in PICKED and isinstance(args[0], Far):
            tensors = [args[0], *args[2:3]]
        strangers = [list(x.shape) for x in tensors if x.dim() and not isinstance(x, Far)]
        if strangers and name not in MIXED:
            raise RuntimeError(f"{name}: {strangers} on the CPU meets a tensor that is not")
        there = True
        if kwargs.get("device") is not None:
            there, kwargs["device"] = torch.device(kwargs["device"]).type == FAR, "cpu"
        args, kwargs = tree_map(_near, (args, kwargs))
        out = func(*args, **kwargs)
        return tree_map(lambda x: far[id(x)] if id(x) in far else _far(x), out) if there else out


def _near(x: Any) -> Any:
    return x.near if isinstance(x, Far) else x


def _far(x: Any) -> Any:
    return Far(x) if isinstance(x, Tensor) and not isinstance(x, Far) else x


class Module(backend_registration._DummyBackendModule):
    """What torch asks a device for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """What autocast may use."""
        return [torch.bfloat16]


def register() -> torch.library.Library:
    """Tell torch of the device; it is there while what comes back is kept."""

    def empty(size: Any, *_: Any, dtype: Any = None, memory_format: Any = None, **__: Any) -> Far:
        kind = memory_format or torch.contiguous_format
        return Far(torch.empty(size, dtype=dtype, memory_format=kind))

    def strided(size: Any, stride: Any, *_: Any, dtype: Any = None, **__: Any) -> Far:
        return Far(torch.empty_strided(size, stride, dtype=dtype))

    def copied(source: Tensor, target: Tensor, *_: Any) -> Tensor:
        _near(target).copy_(_near(source))
        return target

    backend_registration._setup_privateuseone_for_python_backend(FAR, Module())  # type: ignore[no-untyped-call]
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", strided, "PrivateUse1")
    library.impl("_copy_from", copied, "PrivateUse1")
    return library


@contextmanager
def everything_there() -> Iterator[None]:
    """`device: cpu` means the device; what it lacks and CUDA has is done in another way."""
    plain = torch.Generator

    def enter(self: Any) -> None:
        self.plain = torch.no_grad()
        self.plain.__enter__()

    def leave(self: Any, *raised: Any) -> None:
        self.plain.__exit__(*raised)

    with pytest.MonkeyPatch.context() as patch:
        for module in (device, vae):
            patch.setattr(module, "settle", lambda *_: torch.device(FAR, 0))
        patch.setattr(torch, "Generator", lambda *_, **__: plain())
        patch.setattr(torch.inference_mode, "__enter__", enter)  # wrapped tensors have no versions
        patch.setattr(torch.inference_mode, "__exit__", leave)
        patch.setitem(loop.LOOK_EVERY, FAR, 3)
        yield


# --- cases: what a user may do, returning numbers


X, LABELS = short.images(60), np.arange(60) % 3
ASKED: dict[str, Any] = {
    "names": ["fog"], "attacks": {"images": 8, "steps": 3}, "outliers": ["noise", "black"],
    "samples": 20,
}  # fmt: skip
VQ = {"model.latent.name": "vq", "model.architecture": {"name": "conv", "channels": [4, 4]}}
ROBUST = ("trimmed", "rejected", "huber", "welsch")
DECODERS: dict[str, float | None] = {
    "bernoulli": None, "laplace": None, "student_t": 3.0, "student_t_pixel": 3.0,
}  # fmt: skip


def numbers(found: Any) -> list[float]:
    """Of a headline."""
    return [float(v) for v in found.values() if isinstance(v, int | float)]


def trained(changes: dict[str, Any], **how: Any) -> rv.VAE:
    """A small model."""
    return rv.fit(X, {**short.TINY, **changes}, labels=LABELS, device="cpu", **how)


def attacked(changes: dict[str, Any]) -> Any:
    """Weights, scores, and what an adversary does."""
    model = trained(changes)
    damage = rv.attack(model, X[:8], steps=3).table["damage"].to_numpy()
    return damage, model.score(X), [p.detach().cpu() for p in model.model.parameters()]


def measured(changes: dict[str, Any]) -> Any:
    """All that evaluate has."""
    return numbers(rv.evaluate(trained(changes), X, labels=LABELS, **ASKED).headline)


def used(changes: dict[str, Any]) -> Any:
    """All that a model does for a notebook, and images that it would throw out."""
    model = trained(changes)
    z = model.latents(X)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        scores = rv.load(folder, device="cpu").score(X)
    found = outliers.find(model.model, X, np.arange(60) % 5 == 0, X[:20], X[:20], None, 16, 0)
    return [
        z, model.decode(z[:2]), model.reconstruct(X), model.interpolate(X[:1], X[1:2], 3),
        model.generate(3), model.generate(3, codes="used" if changes else "uniform"),
        scores, numbers(found.headline),
    ]  # fmt: skip


class Net(nn.Module):
    """A model of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.code, self.back = nn.Linear(64, 4), nn.Linear(4, 64)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances."""
        mean = self.code(x.flatten(1))
        return mean, torch.zeros_like(mean)

    def forward(self, x: Tensor) -> Tensor:
        """Images again."""
        return torch.sigmoid(self.back(self.encode(x)[0])).view_as(x)

    def score(self, x: Tensor) -> Tensor:
        """Squared error."""
        return (self(x) - x).square().flatten(1).sum(1)

    def sample(self, n: int) -> Tensor:
        """New images, where the model is."""
        z = torch.randn(n, 4).to(self.code.weight.device)
        return torch.sigmoid(self.back(z)).view(n, 1, 8, 8)


def somebodys() -> Any:
    """A module that is on the device already."""
    model = Net().to(device.settle("cpu", ""))
    found = rv.evaluate(model, X, labels=LABELS, train=X, train_labels=LABELS, **ASKED)
    pixels = torch.from_numpy(X).to(device.settle("cpu", ""))
    return numbers(found.headline), rv.corrupt(pixels, "fog").cpu()


def screened() -> Any:
    """Suspicion of images."""
    return rv.screen(X, epochs=2, device="cpu").neg_elbo


CASES: dict[str, Callable[[], Any]] = {
    "plain": lambda: measured({}),
    "student-t": lambda: measured({"loss.df": 3.0}),
    "quantised": lambda: measured(VQ),
    "noise and mixture": lambda: attacked(
        {"train.input_noise": {"name": "gaussian", "amount": 0.1}, "train.mixture.fraction": 0.5}
    ),
    "beta-ELBO": lambda: attacked(
        {"loss.robust": {"name": "beta", "strength": 0.01}, "model.likelihood.name": "bernoulli"}
    ),
    **{name: lambda name=name: attacked({"loss.robust": {"name": name, "strength": 0.3}})
       for name in ROBUST},
    **{name: lambda name=name, df=df: attacked({"model.likelihood": {"name": name, "df": df}})
       for name, df in DECODERS.items()},
    "used": lambda: used({}),
    "used, quantised": lambda: used(VQ),
    "somebody's": somebodys,
    "screened": screened,
}  # fmt: skip


def run(name: str) -> str:
    """What is wrong with a case; empty: nothing."""
    here = CASES[name]()
    try:
        with everything_there():
            there = CASES[name]()
        for a, b in zip(tree_leaves(here), tree_leaves(there), strict=True):
            np.testing.assert_allclose(np.asarray(b, float), np.asarray(a, float), 1e-5, 1e-9)
    except Exception:
        return traceback.format_exc(limit=-3)
    return ""


if __name__ == "__main__":
    kept = register()
    sys.stdout, out = sys.stderr, sys.stdout
    json.dump({name: run(name) for name in sys.argv[1:] or CASES}, out)
