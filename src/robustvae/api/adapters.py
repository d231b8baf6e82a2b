"""Models of other libraries as what `evaluate` takes; nothing of these libraries is imported."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustvae.errors import UserError


class Pair(nn.Module):
    """An encoder and a decoder: x -> code -> x_hat.

    >>> import torch, robustvae as rv
    >>> both = rv.adapters.Pair(torch.nn.Flatten(), torch.nn.Unflatten(1, (1, 8, 8)))
    >>> both.reconstruct(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(self, encoder: Callable[[Tensor], Any], decoder: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> Any:
        """Codes, or whatever the encoder gives."""
        return self.encoder(x)

    def reconstruct(self, x: Tensor) -> Any:
        """The decoder at the code, at the mean where the encoder gives a mean first."""
        code = self.encoder(x)
        return self.decoder(code[0] if isinstance(code, tuple | list) else code)


class Pythae(nn.Module):
    """A model of pythae: deterministic reconstruction at the mean of its encoder.

    >>> import torch, robustvae as rv
    >>> rv.evaluate(rv.adapters.Pythae(model), images)  # doctest: +SKIP
    >>> rv.adapters.Pythae(torch.nn.Identity())
    Traceback (most recent call last):
    robustvae.errors.UserError: pythae: Identity has no encoder and decoder; give a model of pythae
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not (hasattr(model, "encoder") and hasattr(model, "decoder")):
            raise UserError(
                f"pythae: {type(model).__name__} has no encoder and decoder; give a model of pythae"
            )
        self.model, self.device = model, next(model.parameters()).device

    def encode(self, x: Tensor) -> Any:
        """Means and log-variances, or embeddings alone."""
        found = self.model.encoder(x)
        logvar = getattr(found, "log_covariance", None)
        return found.embedding if logvar is None else (found.embedding, logvar)

    def reconstruct(self, x: Tensor) -> Any:
        """Of models with a codebook, the model's own way through it."""
        if hasattr(self.model, "quantizer"):
            return self.model({"data": x}).recon_x
        return self.model.decoder(self.model.encoder(x).embedding).reconstruction

    def sample(self, n: int) -> Tensor:
        """Images of standard normal codes."""
        z = torch.randn(n, self.model.latent_dim, device=self.device)
        images: Tensor = self.model.decoder(z).reconstruction
        return images


class AutoencoderKL(nn.Module):
    """diffusers' AutoencoderKL, whose images lie in [-1, 1]; grey ones are shown to it as colour.

    >>> import torch, robustvae as rv
    >>> rv.evaluate(rv.adapters.AutoencoderKL(model), images)  # doctest: +SKIP
    >>> rv.adapters.AutoencoderKL(torch.nn.Identity())
    Traceback (most recent call last):
    robustvae.errors.UserError: AutoencoderKL: Identity has no encode and decode; give diffusers'
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not (hasattr(model, "encode") and hasattr(model, "decode")):
            raise UserError(
                f"AutoencoderKL: {type(model).__name__} has no encode and decode; give diffusers'"
            )
        self.model, self.channels = model, int(model.config.in_channels)

    def encode(self, x: Tensor) -> Any:
        """Means and log-variances [B, c, h, w]."""
        law = self.model.encode(self._shown(x)).latent_dist
        return law.mean, law.logvar

    def reconstruct(self, x: Tensor) -> Tensor:
        """The decoder at the mean."""
        mean = self.model.encode(self._shown(x)).latent_dist.mean
        images: Tensor = (self.model.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        return images if images.shape[1] == x.shape[1] else images.mean(1, keepdim=True)

    def _shown(self, x: Tensor) -> Tensor:
        return 2 * x.expand(-1, self.channels, -1, -1) - 1


def adapted(model: Any) -> Any:
    """The model, in its adapter where its class is one that is known.

    >>> import torch, robustvae as rv
    >>> rv.adapters.adapted(torch.nn.Identity())
    Identity()
    """
    library, name = type(model).__module__.partition(".")[0], type(model).__name__
    if library == "pythae":
        return Pythae(model)
    if library == "diffusers" and name == "AutoencoderKL":
        return AutoencoderKL(model)
    return model
