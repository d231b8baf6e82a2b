"""What a model folder holds, as lines for a terminal and as a model card in Markdown."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robustvae.api.images import kind
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.folder import WEIGHTS
from robustvae.runtime import files

METRICS = "metrics.json"
DETAILS = "evaluation.json"  # beside it: likelihood with standard errors, use of the latents


def describe(model: Autoencoder) -> str:
    """Architecture, data, objective, training, versions: a line each."""
    return "\n".join([model.describe(), *(f"  {k:10}  {v}" for k, v in _facts(model).items())])


def card(model: Autoencoder, folder: Path, metrics: Path | None) -> str:
    """Markdown: what the model is, its use, metrics, data with their licence, parameters."""
    config, path = model.config, metrics or _metrics_beside(folder)
    settings = {name: config.get(name, {}) for name in ("model", "loss", "train", "run")}
    facts = _facts(model) | {"weights": f"SHA-256 `{files.sha256(folder / WEIGHTS)}`"}
    data = config.get("data", {})
    metric_rows = _flat(_measured(path)) if path else [("none recorded", "")]
    sums = [(name, f"`{value}`") for name, value in data.get("checksums", {}).items()]
    return f"""# Autoencoder for {data.get("name", "images")}, {kind(model.shape)}

Trained with robustvae; latents: {model.family.replace("_", "-")}.

```
{model.describe()}
```

{_table(("", ""), facts.items())}
## Use

```python
import robustvae

vae = robustvae.load("{folder.as_posix()}")
x_hat = vae.reconstruct("picture.png")
```

## Metrics

{_table(("metric", "value"), metric_rows)}
Losses and bounds in nats per image, errors per pixel on [0, 1].

## Data

Licence of the data: {data.get("licence", "not recorded")}.

{_table(("file", "SHA-256"), sums)}
## Parameters

{_table(("parameter", "value"), _flat(settings))}"""


def _facts(model: Autoencoder) -> dict[str, str]:
    config, loss = model.config, model.loss_settings
    data = config.get("data", {})
    counts = [f"{count:,} {split}" for split, count in data.get("counts", {}).items()]
    order = f"order {loss.order:g}" if loss.kind in ("alpha", "renyi") else f"df {loss.df:g}"
    latent = model.settings.latent
    vq = f"vq, commitment {latent.commitment:g}, codebook by {latent.update}"
    epochs, seed = (
        config.get(a, {}).get(b, "?") for a, b in (("train", "epochs"), ("run", "seed"))
    )
    return {
        "data": ", ".join([data.get("name", "not recorded"), kind(model.shape), *counts]),
        "binarised": data.get("binarize", "not recorded"),
        "licence": data.get("licence", "not recorded"),
        "divergence": vq if model.family == "vq" else f"{loss.kind}, {order}, beta {loss.beta:g}",
        "training": f"best epoch {config.get('best_epoch', '?')} of {epochs}, seed {seed}",
        "versions": ", ".join(f"{name} {v}" for name, v in config.get("versions", {}).items()),
    }


def _metrics_beside(folder: Path) -> Path | None:
    """In the model folder; for the pipeline's models/ also in reports/ beside it."""
    places = [folder / METRICS]
    if folder.resolve().name == "models":
        places.append(folder.resolve().parent / "reports" / METRICS)
    return next((path for path in places if path.is_file()), None)


def _measured(path: Path) -> dict[str, Any]:
    found, details = files.read_json(path), path.with_name(DETAILS)
    more = files.read_json(details) if details.is_file() else {}
    return {**found, **{part: more[part] for part in ("likelihood", "collapse") if part in more}}


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"`{prefix}{key}`", f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"| {a} | {b} |\n" for a, b in [head, ("---", "---"), *rows])
