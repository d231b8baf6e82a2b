"""The architectures by name, and the shapes they give, settled before anything is built."""

from dataclasses import dataclass

from robustvae.params.model import ArchitectureSettings
from robustvae.params.parts import TABLES

NETS = TABLES["net"]
MOST_HALVINGS = 3  # conv with depth null
MAX_FILTERS = 64  # conv with max_filters null


@dataclass(frozen=True)
class Preset:
    """What an architecture is unless the settings say otherwise."""

    widths: tuple[int, ...] = (200, 200)  # one per stage; (): by max_filters and the halvings
    activation: str = "silu"
    kernel: int = 0  # 0: dense layers
    stride: int = 1
    padding: int = 0
    norm: bool = False  # batch norm after each convolution but the decoder's last
    hidden: int = 0  # dense layer next to the latents, 0: none
    options: tuple[str, ...] = ("channels", "hidden")  # what settings may change, and activation


@dataclass(frozen=True)
class Geometry:
    """An architecture with every number settled: stage i has widths[i] maps, sides[i + 1] wide."""

    name: str
    preset: Preset
    widths: tuple[int, ...]
    sides: tuple[int, ...]  # of the image, then after each stage
    hidden: int
    activation: str
    spatial: bool  # features stay [B, W, h, w], as vq wants them

    @property
    def features(self) -> int:
        """What a latent's head sees: length of the feature vector, or number of feature maps."""
        if self.spatial or not self.preset.kernel:
            return self.widths[-1]
        return self.hidden or self.widths[-1] * self.sides[-1] ** 2


def geometry(settings: ArchitectureSettings, side: int, vq: bool = False) -> Geometry:
    """Settle the shapes for square images; ValueError `setting: why` where they do not fit."""
    preset = Preset(**NETS.part(settings.name).facts)
    _refuse_unused(settings, preset, vq)
    widths = tuple(settings.channels or preset.widths) or _halved_widths(settings, side)
    if not preset.kernel:
        sides: tuple[int, ...] = (side,)
    elif preset.stride == 1:
        sides = _shrunk_sides(settings.name, preset.kernel - 1, len(widths), side)
    else:
        sides = _halved_sides(settings, len(widths), side)
    hidden = 0 if vq else preset.hidden if settings.hidden is None else settings.hidden
    activation = preset.activation if settings.activation == "auto" else settings.activation
    return Geometry(settings.name, preset, widths, sides, hidden, activation, vq)


def _refuse_unused(settings: ArchitectureSettings, preset: Preset, vq: bool) -> None:
    if vq and not preset.kernel:
        others = ", ".join(name for name in NETS if NETS.part(name).facts.get("kernel"))
        raise ValueError(
            f"name: {settings.name} makes no feature maps, which vq latents need; use {others}"
        )
    given = {k: getattr(settings, k) for k in ("channels", "depth", "max_filters", "hidden")}
    for key, value in given.items():
        if value is not None and key not in preset.options:
            raise ValueError(f"{key}: has no effect with {settings.name}, got {value}; use null")
        if value is not None and given["channels"] and key in ("depth", "max_filters"):
            raise ValueError(
                f"{key}: has no effect when channels gives the widths; remove one of them "
                f"(got {key} {value}, channels {list(given['channels'])})"
            )
    if vq and settings.hidden:
        raise ValueError(
            "hidden: has no effect with vq latents, which keep the feature maps, "
            f"got {settings.hidden}; use null"
        )


def _halved_widths(settings: ArchitectureSettings, side: int) -> tuple[int, ...]:
    """The last stage has max_filters maps, each stage before it half as many."""
    depth = settings.depth or max(1, min(MOST_HALVINGS, _halvings(side)))
    last, divisor = settings.max_filters or MAX_FILTERS, 2 ** (depth - 1)
    if last % divisor:
        raise ValueError(
            f"max_filters: {last} cannot be halved from each of {depth} stages to the one before; "
            f"use a multiple of {divisor}"
        )
    return tuple(last >> i for i in reversed(range(depth)))


def _halvings(side: int) -> int:
    """How often a side halves evenly and leaves two pixels or more, as batch norm needs."""
    count = 0
    while side % 2 == 0 and side >= 4:
        side, count = side // 2, count + 1
    return count


def _halved_sides(settings: ArchitectureSettings, stages: int, side: int) -> tuple[int, ...]:
    possible = _halvings(side)
    if possible < stages:
        key = "depth" if settings.depth else "channels" if settings.channels else "name"
        fewer = f"give channels at most {possible} width{'s' * (possible > 1)}"
        if not possible:
            fewer = "set name to small or mlp"
        elif key == "depth":
            fewer = f"set depth to at most {possible}"
        often = {1: "once", 2: "twice", 3: "three times"}.get(stages, f"{stages} times")
        raise ValueError(
            f"{key}: {settings.name} cannot halve {side} pixels {often}; {fewer}, or use an "
            f"image size of at least {2 ** (stages + 1)} that {2**stages} divides"
        )
    return tuple(side >> i for i in range(stages + 1))


def _shrunk_sides(name: str, border: int, stages: int, side: int) -> tuple[int, ...]:
    if side <= border * stages:
        raise ValueError(
            f"channels: {name} takes {border} pixels off at each of {stages} stages, which leaves "
            f"nothing of {side}; use fewer stages or an image size above {border * stages}"
        )
    return tuple(side - border * i for i in range(stages + 1))
