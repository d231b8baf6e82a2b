"""A step that failed: what is said of it, and the file that re-creates it."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder, Terms
from robustvae.params import LossSettings, ModelSettings
from robustvae.runtime import files
from robustvae.runtime.device import reseed
from robustvae.runtime.progress import say
from robustvae.training import resume
from robustvae.training.step import Step, losses


def keep(
    work: Step, place: resume.Checkpoint, at: dict[str, Any], index: Tensor, numbers: Tensor
) -> Path:
    """Write all that `replay` needs of the step on these images; `at`: where it is, and why."""
    x, target = work.batch(index)
    weight, budget, _, acts = numbers.tolist()
    model = work.model
    state = {
        **at,
        "index": index,
        "x": x,
        "target": target,
        "how": {"precision": work.precision, "weight": weight, "budget": budget, "acts": acts},
        "weights": model.state_dict(),
        "model": model.settings.model_dump_json(),
        "loss": model.loss_settings.model_dump_json(),
        "shape": list(model.shape),
        "device": x.device.type,
    }
    path = place.failures / f"{place.digest[:16]}-step-{at['step']}.pt"
    with files.replace(path) as temporary:
        temporary.write_bytes(resume.pack(state, place.digest))
    return path


def replay(path: Path | str) -> tuple[Autoencoder, Terms, Tensor]:
    """The step that stopped a training, again: model, terms [B] and loss, or its error."""
    try:
        saved = resume.unpack(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; name a file in .cache/failures") from None
    model = Autoencoder.build(
        ModelSettings.model_validate_json(saved["model"]),
        LossSettings.model_validate_json(saved["loss"]),
        saved["shape"],
    )
    model.load_state_dict(saved["weights"])
    model.to(saved["device"], memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    say(f"step {saved['step']}, epoch {saved['epoch']}: {saved['why']}")
    x, target = (saved[name].to(saved["device"]) for name in ("x", "target"))
    reseed(x.device, saved["seed"])
    terms, total = losses(model, x, target, **saved["how"])
    torch.autograd.backward(total)
    return model, terms, total


def with_image(error: ArithmeticError, index: Tensor) -> str:
    """The message, with the place of the first offending sample in the training images."""
    rows = getattr(error, "rows", None)
    return f"{error}" + (f" (sample {rows[0]} is training image {index[rows[0]]})" if rows else "")


def culprit(terms: Terms, total: Tensor, norm: Tensor) -> str:
    """Which term is not finite, and the values of all."""
    if (total + norm).isfinite():
        return "not finite, but finite when run again; run.deterministic: true repeats steps"
    values = {
        "recon": terms.recon.mean().item(),
        "divergence": terms.divergence.mean().item(),
        "total": total.item(),
        "gradient norm": norm.item(),
    }
    name = next((n for n, v in values.items() if not math.isfinite(v)), "total")
    every = ", ".join(f"{n} {v:g}" for n, v in values.items())
    cure = "" if name == "gradient norm" else " or set train.grad_clip"  # infinite: nothing to clip
    return f"{name} is not finite ({every}); lower train.lr{cure}"
