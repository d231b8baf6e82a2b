"""What a trained model can do with images; the command line calls the same methods."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from robustvae.api import shipped
from robustvae.api.export import export
from robustvae.api.images import Images, Source, read
from robustvae.api.model_card import card, describe
from robustvae.data import binarize
from robustvae.errors import UserError
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import Diagonal, DiagStudentT
from robustvae.models.latents import VQ, perplexity
from robustvae.robustness import batches, bounds, samples
from robustvae.runtime import files, seeding
from robustvae.runtime.device import settle
from robustvae.runtime.progress import track

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
HISTORY = "history.csv"
PROBES = 512  # generated images that show which latent dimensions the decoder uses


def load(
    folder: Path | str = "models",
    device: str = "auto",
    batch_size: int = 256,
    data: Path | str = "data/prepared",
) -> "VAE":
    """The model of a folder, or by name one that comes along (`robustvae models` lists them).

    `data` is where "train", "val" and "test" are looked up.

    >>> import robustvae as rv
    >>> rv.load("mnist").shape
    (1, 28, 28)
    """
    folder, where = shipped.resolve(folder), settle(device, "device").type
    path = folder / HISTORY
    history = files.read_csv(path) if path.is_file() else None
    return VAE(model_folder.load(folder), where, batch_size, Path(data), folder, history)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Of what a model was trained on: enough to fit a probe, and a constant to beat."""

    images: NDArray[np.uint8]  # [N, C, H, W], as it saw them
    labels: NDArray[np.int64]  # -1: none
    mean_image: Floats  # [C, H, W], of all


class VAE:
    """A trained model. z stands for latents [..., Z], of vq models codewords [..., Z, h, w].

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    >>> how = {"model.architecture.name": "mlp", "model.latent_dim": 3, "train.epochs": 1}
    >>> vae = rv.fit(x, how)  # doctest: +ELLIPSIS
    mlp autoencoder, ...
    >>> vae.encode(x)["mu"].shape, vae.decode(np.zeros(3)).shape
    ((64, 3), (1, 8, 8))
    >>> vae.generate(2).shape, vae.interpolate(x[:1], x[1:2], steps=5).shape
    ((2, 1, 8, 8), (1, 5, 1, 8, 8))
    >>> vae.score(x).shape  # negative ELBO, nats
    (64,)
    """

    def __init__(
        self,
        model: Autoencoder,
        device: str,
        batch_size: int = 256,
        data: Path = Path("data/prepared"),
        folder: Path | None = None,
        history: "pd.DataFrame | None" = None,
        reference: Reference | None = None,
    ) -> None:
        self.folder, self.device, self.batch_size, self.data = folder, device, batch_size, data
        # What a robust objective gave each image that it was trained on, [epochs, N]
        self.weights: NDArray[Any] | None = None
        self.model, self.history, self.reference = model.to(device).eval(), history, reference
        self.shape, self.latent = self.model.shape, self.model.latent
        facts = self.model.config.get("data", {})
        self.binarisation: str = facts.get("binarize", "none")
        self.threshold: float = facts.get("threshold", 0.5)

    def images(self, source: Source, resize: bool = False, seed: int = 0) -> Images:
        """Images as the model takes them, binarised as its training data were."""
        images = read(source, self.shape, self.data, resize)
        if images is source or self.binarisation == "none":
            return images
        pixels, rng = torch.from_numpy(np.array(images.pixels)), seeding.generator(seed, "binarize")
        black_white = binarize.apply(pixels, self.binarisation, self.threshold, rng)
        return dataclasses.replace(images, pixels=black_white.numpy())

    def encode(self, images: Source) -> dict[str, NDArray[Any]]:
        """`mu` and `logvar` [N, Z] (Student-t: of the squared scale; and `df`), or `codes`."""
        pixels = self.images(images)
        q = bounds.posteriors(self.model, pixels.pixels, self.batch_size)
        if q is None:
            return {"codes": self._over(pixels, self.model.codes, "encoding")}
        law = {"df": np.array(q.df)} if isinstance(q, DiagStudentT) else {}
        return {"mu": q.mu.cpu().numpy(), "logvar": q.logvar.cpu().numpy(), **law}

    def latents(self, images: Source) -> Floats:
        """Posterior means [N, Z]; of vq models codewords [N, Z, h, w]."""
        return self._over(images, lambda x: self.latent.mode(self.model.encoder(x)), "encoding")

    @torch.inference_mode()
    def decode(self, z: ArrayLike) -> Floats:
        """Mean images [..., C, H, W] of latents."""
        array, axes = np.asarray(z, np.float32), 3 if isinstance(self.latent, VQ) else 1
        rows = torch.from_numpy(array.reshape(-1, *array.shape[-axes:]))
        parts = [
            self.model.likelihood.mean(self.model.decode(rows[where].to(self.device))).cpu()
            for where in self._batches(len(rows), "decoding")
        ]
        return torch.cat(parts).numpy().reshape(*array.shape[:-axes], *self.shape)

    def reconstruct(self, images: Source, sample: bool = False, seed: int = 0) -> Floats:
        """Mean images at the posterior means, nothing random; or likelihood draws there."""

        def draw(x: Tensor) -> Tensor:
            z = self.latent.mode(self.model.encoder(x))
            return self.model.likelihood.sample(self.model.decode(z), z).clamp(0, 1)

        with torch.random.fork_rng([0] if self.device == "cuda" else []):
            torch.manual_seed(seeding.seed(seed, "reconstruct"))
            return self._over(images, draw if sample else self.model.reconstruct, "reconstructing")

    def generate(
        self, n: int, temperature: float = 1.0, codes: str = "uniform", seed: int = 0,
        mixture: Source | None = None, components: int = 10,
    ) -> Floats:  # fmt: skip
        """Mean images [n, C, H, W] of new latents, from what `law` says.

        With `mixture`, images: of a Gaussian mixture of so many components fitted to their codes,
        which is where the codes are even if the prior is not (arXiv:1903.12436).
        """
        if mixture is not None:
            pixels = self.images(mixture, seed=seed).pixels
            codes_of = samples.drawn_codes(self.model, pixels, self.batch_size, seed)
            return self.decode(samples.ex_post(codes_of, n, seed, components))
        self.law(temperature, codes)
        return self.decode(self._draw(n, temperature, codes, seed))

    def law(self, temperature: float = 1.0, codes: str = "uniform") -> str:
        """What `generate` draws from; UserError where that makes no sense."""
        if not 0 < temperature < np.inf:
            raise UserError(f"temperature: must be > 0 and finite, got {temperature:g}")
        if isinstance(self.latent, VQ):
            if codes == "uniform" and temperature != 1:
                raise UserError("temperature: has no effect on uniform codes; use empirical ones")
            used = f"{float(perplexity(self.latent.counts)):.1f} of {len(self.latent.counts)}"
            how = codes if codes == "uniform" else f"as used in training (perplexity {used})"
            return f"independent codes, {how}, temperature {temperature:g}"
        p, name = self.model.generating_prior(), "normal"
        if isinstance(p, DiagStudentT):
            name = f"Student-t with {p.df:g} degrees of freedom and one chi-square per image"
        which = "p* of the t3VAE" if self.model.loss_settings.kind == "t3" else "the prior"
        low, high = (float(v) * temperature for v in (0.5 * p.logvar).exp().aminmax())
        scale = f"{low:.3g}" if low == high else f"{low:.3g} .. {high:.3g}"
        return f"z from {which}: {name}, scale {scale}, temperature {temperature:g}"

    def _draw(self, n: int, temperature: float, codes: str, seed: int) -> Floats:
        """Latents of the law, the same for any batch size and device."""
        latent = self.latent
        if isinstance(latent, VQ):
            share = latent.usage.cpu().double() ** (0 if codes == "uniform" else 1 / temperature)
            rng = seeding.generator(seed, "generate")
            drawn = torch.multinomial(share, n * latent.side**2, replacement=True, generator=rng)
            z = latent.embed(drawn.view(n, latent.side, latent.side).to(self.device))
        else:
            p: Diagonal = self.model.generating_prior(n)
            wider = dataclasses.replace(p, logvar=p.logvar + 2 * np.log(temperature))
            z = bounds.shifted(wider, bounds.Draws(seed).standard(p, "generate"))
        return z.detach().cpu().numpy()

    def interpolate(self, a: Source, b: Source, steps: int = 9) -> Floats:
        """From each image of `a` to that of `b` in equal steps of z: [N, steps, C, H, W]."""
        start, end = self.latents(a)[:, None], self.latents(b)[:, None]
        t = _along(np.linspace(0, 1, steps), start)
        return self.decode((1 - t) * start + t * end)

    def traverse(
        self,
        image: Source | None = None,
        dims: Sequence[int] | None = None,
        reach: float = 3.0,
        steps: int = 9,
    ) -> Floats:
        """Each of `dims` from -reach to reach scales of the prior: [D, steps, C, H, W].

        The others as in `image`, or at the prior's mean. Without `dims`: the ten in most use."""
        dims = self.active_dims(10) if dims is None else dims
        self._refuse_codes()
        p = self.model.generating_prior()
        centre, scale = p.mu.cpu().numpy(), (0.5 * p.logvar).exp().cpu().numpy()
        wrong = [d for d in dims if not 0 <= d < len(centre)]
        if wrong:
            raise UserError(f"dims: {wrong[0]} is not one of 0 .. {len(centre) - 1}")
        z = np.tile(centre if image is None else self.latents(image)[0], (len(dims), steps, 1))
        for row, d in enumerate(dims):
            z[row, :, d] = centre[d] + scale[d] * _finite(reach) * np.linspace(-1, 1, steps)
        return self.decode(z)

    def active_dims(self, count: int) -> list[int]:
        """Dimensions in most use: the spread of generated images' codes, against the prior's."""
        self._refuse_codes()
        z = self._draw(PROBES, 1.0, "", 0)
        spread = self.latents(self.decode(z)).var(0) / z.var(0)
        return [int(d) for d in np.argsort(-spread, kind="stable")[:count]]

    def _refuse_codes(self) -> None:
        if isinstance(self.latent, VQ):
            raise UserError("traverse: vq models have codes, no dimensions; use interpolate")

    def arithmetic(
        self, plus: Source, minus: Source, to: Source, factors: Sequence[float] = (0, 0.5, 1, 1.5)
    ) -> Floats:
        """z of each image of `to` + factor * (mean z of `plus` - of `minus`): [N, F, C, H, W]."""
        vector = self.latents(plus).mean(0) - self.latents(minus).mean(0)
        z = self.latents(to)[:, None]
        return self.decode(z + _along(factors, z) * vector)

    def score(
        self, images: Source, k: int | None = None, draws: int = 16, seed: int = 0
    ) -> NDArray[np.float64]:
        """Negative ELBO in nats from `draws` draws, or importance-weighted bound of `k`, [N]."""
        pixels, noise = self.images(images, seed=seed).pixels, bounds.Draws(seed)
        q = bounds.posteriors(self.model, pixels, self.batch_size)
        if k is None:
            fit, rate = bounds.mean_elbo(self.model, pixels, q, draws, self.batch_size, noise)
            return rate - fit
        if q is None:
            raise UserError("k: the code of a vq model is deterministic, leave k out")
        size = self.batch_size
        return -bounds.importance_weighted(self.model, pixels, q, k, size, noise).bound

    def export(self, folder: Path | str, form: str = "onnx") -> dict[str, float]:
        """Write encoder and decoder as "onnx" or "torchscript"; how far they are from the model."""
        return export(self.model, Path(folder), form)

    def describe(self) -> str:
        """What is in the model folder, as text."""
        return describe(self.model)

    def save(self, folder: Path | str) -> None:
        """Write a model folder, for `load`, and the history of the training as a table."""
        self.folder = Path(folder)
        model_folder.save(self.model, self.model.config, self.folder)
        if self.history is not None:
            with files.replace(self.folder / HISTORY) as temporary:
                self.history.to_csv(temporary, index=False, lineterminator="\n")

    def card(self, metrics: Path | None = None) -> str:
        """Model card, Markdown; `metrics`: a metrics.json other than the one with the model."""
        if self.folder is None:
            raise UserError("card: the model is in no folder yet; save it first")
        return card(self.model, self.folder, metrics)

    @torch.inference_mode()
    def _over(
        self, source: Source, function: Callable[[Tensor], Tensor], label: str
    ) -> NDArray[Any]:
        pixels = self.images(source).pixels
        parts = [
            function(batches.pixels(self.model, pixels, where)).cpu()
            for where in self._batches(len(pixels), label)
        ]
        return torch.cat(parts).numpy()

    def _batches(self, count: int, label: str) -> Iterable[slice]:
        parts = batches.slices(count, self.batch_size)
        return parts if len(parts) == 1 else track(parts, label, unit="batch")


def _along(values: ArrayLike, z: Floats) -> Floats:
    """Numbers along the second axis of z."""
    return _finite(values).reshape(1, -1, *[1] * (z.ndim - 2))


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"range, factors: must be finite, got {array.tolist()}")
    return array
