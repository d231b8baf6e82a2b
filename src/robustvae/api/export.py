"""A model's encoder and decoder as files that run without this project."""

import copy
import importlib.util
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.latents import VQ
from robustvae.runtime import files

TOLERANCE = 1e-5  # relative where values exceed 1


class Encoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> mu and logvar [B, Z], or codes [B, h, w]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.latent = model.encoder, model.latent

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        h = self.encoder(x)
        if isinstance(self.latent, VQ):
            return (self.latent.codes(h),)
        q = self.latent.posterior(h)
        return q.mu, q.logvar


class Decoder(nn.Module):
    """Latents [B, Z], or codes [B, h, w] -> mean images [B, C, H, W]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.decoder, self.likelihood, self.latent = model.decoder, model.likelihood, model.latent

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        z = self.latent.embed(z) if isinstance(self.latent, VQ) else z
        return (self.likelihood.mean(self.decoder(z)),)


@torch.no_grad()
def export(model: Autoencoder, folder: Path, form: str) -> dict[str, float]:
    """Write encoder and decoder; the largest deviation of each from the model, on random input."""
    if form not in FORMATS:
        raise UserError(f"format: {form!r} is not known; use {' or '.join(FORMATS)}")
    suffix, needed, write, run = FORMATS[form]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format: {form} needs more packages: `pip install {' '.join(missing)}`")
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    rng, vq = torch.Generator().manual_seed(0), isinstance(model.latent, VQ)
    images = [torch.rand(n, *model.shape, generator=rng) for n in (2, 7)]
    latents = [model.codes(x) if vq else model.posterior(x).mu for x in images]
    z = ["codes"] if vq else ["mu", "logvar"]
    parts = (
        ("encoder", Encoder(model).eval(), images, ["x", *z]),
        ("decoder", Decoder(model).eval(), latents, ["codes" if vq else "z", "x_hat"]),
    )
    found = {}
    for name, module, (example, test), labels in parts:
        with warnings.catch_warnings():  # both writers are called old; they are fast and plain
            warnings.simplefilter("ignore")
            content = write(module, example, labels)
            pairs = zip(run(content, test), module(test), strict=True)
        far = max(float(((a - b).abs() / b.abs().clamp(min=1)).max()) for a, b in pairs)
        if not far <= TOLERANCE:
            raise RuntimeError(f"{form}: the {name} differs from the model by {far:.2g}")
        found[name] = far
        with files.replace(folder / f"{name}.{suffix}") as temporary:
            temporary.write_bytes(content)
    return found


def _write_onnx(module: nn.Module, example: Tensor, labels: list[str]) -> bytes:
    # The tracing exporter: the dynamo one takes seconds and puts source paths into the file.
    buffer: Any = io.BytesIO()
    torch.onnx.export(
        module, (example,), buffer, dynamo=False, input_names=labels[:1], output_names=labels[1:],
        dynamic_axes={name: {0: "batch"} for name in labels},
    )  # fmt: skip
    return bytes(buffer.getvalue())


def _run_onnx(content: bytes, x: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return [torch.from_numpy(array) for array in given]


def _write_script(module: nn.Module, example: Tensor, labels: list[str]) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, (example,)), buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _run_script(content: bytes, x: Tensor) -> list[Tensor]:
    return list(torch.jit.load(io.BytesIO(content))(x))  # type: ignore[no-untyped-call]


class Format(NamedTuple):
    """How a kind of file ends, what it needs, how it is written and run."""

    suffix: str
    needed: tuple[str, ...]
    write: Callable[[nn.Module, Tensor, list[str]], bytes]
    run: Callable[[bytes, Tensor], list[Tensor]]


FORMATS = {
    "onnx": Format("onnx", ("onnx", "onnxruntime"), _write_onnx, _run_onnx),
    "torchscript": Format("pt", (), _write_script, _run_script),
}
