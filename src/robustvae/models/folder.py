"""A model folder: weights and the settings that built them. Loading runs nothing that it reads."""

import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as packed

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.latents import Continuous
from robustvae.params import LossSettings, ModelSettings, overlay, parts, read
from robustvae.params.loading import DEFAULTS
from robustvae.runtime import files
from robustvae.runtime.version import VERSION

FORMAT = 2  # 1: dense layers beside convolutions saw maps in the order C, h, w; no scaled heads
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(model: Autoencoder, config: dict[str, Any], folder: Path) -> None:
    """Write both files; `config` adds what the model does not know (data, train, run, ...)."""
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    channels_last = not all(v.is_contiguous() for v in state.values())
    state = {k: v.contiguous() for k, v in state.items()}
    with files.replace(folder / WEIGHTS) as temporary:
        temporary.write_bytes(packed(state))
    files.write_json(folder / CONFIG, described(model, config) | {"channels_last": channels_last})


def described(model: Autoencoder, config: dict[str, Any]) -> dict[str, Any]:
    """What config.json says of a model."""
    own = {
        "format": FORMAT,
        "shape": list(model.shape),
        "model": model.settings.model_dump(mode="json"),
        "loss": model.loss_settings.model_dump(mode="json"),
        "net": net(model),
        "channels_last": False,  # it decides the last digits
        "parameters": model.parameters_count,
        "versions": {
            "robustvae": VERSION,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    if found := model.plugins():
        own["plugins"] = found
    return {**own, **{k: v for k, v in config.items() if k not in own}}


def _check_plugins(config: Any, path: Path) -> None:
    """UserError where a plug-in that a model was made with is missing; a warning if it is another.

    The folder has their kinds, names, origins and digests.
    """
    listed = config.get("plugins", []) if isinstance(config, dict) else []
    try:
        keys = ("kind", "name", "origin", "sha256")
        wanted = [[str(entry[key]) for key in keys] for entry in listed]
        tables = [parts.TABLES[kind] for kind, *_ in wanted]
    except (TypeError, KeyError):
        raise UserError(f"{path}: plugins is no list of plug-ins; train the model again") from None
    for table, (kind, name, origin, sha256) in zip(tables, wanted, strict=True):
        if name not in table:
            raise UserError(
                f"{path}: made with the {kind} {name!r} of {origin}, which is missing here; put "
                f"its file into plugins/{table.room}, or install its package"
            )
        if str(table.part(name).sha256) != sha256:
            warnings.warn(
                f"{path}: the {kind} {name!r} is not as it was when the model was trained: "
                f"{table.part(name).origin} has changed, or another version is installed",
                stacklevel=2,
            )


def net(model: Autoencoder) -> dict[str, Any]:
    """What presets and `null` in the settings come to: docs/format.md builds the net from it."""
    g = model.geometry
    numbers = {name: getattr(g.preset, name) for name in ("kernel", "stride", "padding", "norm")}
    sizes = {"widths": list(g.widths), "sides": list(g.sides), "hidden": g.hidden}
    scale = model.latent.scale if isinstance(model.latent, Continuous) else None
    return {**sizes, **numbers, "activation": g.activation, "head_scale": scale}


def load(folder: Path | str, device: str = "cpu") -> Autoencoder:
    """The model of a folder, in eval mode, with the content of config.json as `.config`."""
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: no model there ({name} is missing); train one with `dvc repro`, "
                "or name a folder that holds model.safetensors and config.json"
            )
    config = files.read_json(folder / CONFIG)
    _check_plugins(config, folder / CONFIG)
    with torch.device("meta"):  # without memory: sizes are compared before any is taken
        outline = _build(config, folder / CONFIG)
    _compare(outline, folder / WEIGHTS)
    model = _build(config, folder / CONFIG)
    model.load_state_dict(load_file(folder / WEIGHTS))
    _scale_head(model, config, folder / CONFIG)
    model.config = config
    if config.get("channels_last"):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device).eval()


def _scale_head(model: Autoencoder, config: Mapping[str, Any], path: Path) -> None:
    """As it was in training; folders of before say nothing of it, and the rule is the same."""
    if "net" not in config or not isinstance(model.latent, Continuous):
        return
    try:
        scale = float(config["net"]["head_scale"])
    except (TypeError, KeyError, ValueError):
        scale = math.nan
    if not 0 < scale < math.inf:
        raise UserError(f"{path}: net.head_scale must be a number above 0; train the model again")
    model.latent.scale = scale


def _build(config: Any, path: Path) -> Autoencoder:
    if not isinstance(config, dict) or "format" not in config:
        raise UserError(f"{path}: not the settings of a robustvae model; name another folder")
    if config["format"] != FORMAT:
        raise UserError(
            f"{path}: format {config['format']}, this version reads {FORMAT}; "
            "install the version that wrote it, or train again"
        )
    try:
        known = read(DEFAULTS)  # a folder of before knows not all of it
        chosen = overlay(known["model"], config["model"])
        if config.get("versions", {}).get("robustvae") == "0.1.0":
            chosen["architecture"] = _of_0_1(chosen["architecture"])
        settings = ModelSettings.model_validate(chosen)
        loss = LossSettings.model_validate(overlay(known["loss"], config["loss"]))
        channels, height, width = map(int, config["shape"])
        with torch.random.fork_rng(devices=[]):  # the fresh weights are replaced: leave no trace
            return Autoencoder.build(settings, loss, (channels, height, width))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except KeyError as error:
        reason = f"{error} is missing"
    except (TypeError, ValueError, RuntimeError, OverflowError, UserError) as error:
        reason = str(error).partition("\n")[0]
    raise UserError(f"{path}: not the settings of a model: {reason}; train the model again")


def _of_0_1(architecture: dict[str, Any]) -> dict[str, Any]:
    """What null stood for then."""
    widths = (architecture[key] for key in ("channels", "max_filters"))
    if architecture["name"] == "conv" and not any(widths):
        return {**architecture, "max_filters": 128}
    return architecture


def _compare(outline: Autoencoder, path: Path) -> None:
    """UserError where the weights are not those of such a model; they are not read yet."""
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            state = {
                n: _kind(p.get_shape(), TYPES.get(p.get_dtype(), "?")) for n, p in parts.items()
            }
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as weights, it is truncated or no safetensors file ({error}); "
            "restore it with `dvc checkout` or train again"
        ) from None
    wanted = {n: _kind(v.shape, str(v.dtype)) for n, v in outline.state_dict().items()}
    wrong = _mismatches(state, wanted)
    if wrong:
        raise UserError(
            f"{path}: the weights do not belong to {CONFIG} beside it: {wrong[0]}"
            f"{f' and {len(wrong) - 1} more' if wrong[1:] else ''}; restore both from one training"
        )


def _mismatches(state: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """What is missing, unknown, or of another shape or type; empty where all fits."""
    missing = [f"{k} is missing" for k in wanted if k not in state]
    unknown = [f"{k} is unknown" for k in state if k not in wanted]
    pairs = {k: (state[k], wanted[k]) for k in wanted if k in state}
    return missing + unknown + [f"{k} is {a}, not {b}" for k, (a, b) in pairs.items() if a != b]


def _kind(shape: Sequence[int], dtype: str) -> str:
    return f"{'x'.join(map(str, shape)) or 'a number'} {dtype.removeprefix('torch.')}"
