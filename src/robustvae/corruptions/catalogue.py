"""The fifteen corruptions of MNIST-C with the official parameters, and extras."""

from typing import TYPE_CHECKING, Any

from robustvae.params import register
from robustvae.params.parts import TABLES, Table

if TYPE_CHECKING:
    from robustvae.corruptions.corruption import Corruption

CORRUPTIONS: "Table[Corruption]" = TABLES["corruption"]

_DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
_MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
_FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
_SPATTER = (
    (0.65, 0.3, 4, 0.69, 0.6),
    (0.65, 0.3, 3, 0.68, 0.6),
    (0.65, 0.3, 2, 0.68, 0.5),
    (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5),
)
_SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
_ZOOM_STEPS = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))
_ZOOM = tuple(tuple(1 + step * i for i in range(count)) for count, step in _ZOOM_STEPS)
_ELASTIC = (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
)
_SATURATE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
_RADIANS = (0.2, 0.4, 0.6, 0.8, 1.0)
_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)

# Name -> group, which is the file of its function; severity of MNIST-C; parameters of the five
FIFTEEN: dict[str, tuple[str, int, tuple[Any, ...]]] = {
    "shot_noise": ("noise", 5, (60, 25, 12, 5, 3)),
    "impulse_noise": ("noise", 4, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "glass_blur": ("blur", 1, _GLASS),
    "motion_blur": ("blur", 1, _MOTION),
    "shear": ("geometric", 2, _RADIANS),
    "scale": ("geometric", 3, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "rotate": ("geometric", 2, _RADIANS),
    "brightness": ("photometric", 5, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "translate": ("geometric", 3, (1, 2, 3, 4, 5)),
    "stripe": ("overlay", 3, (3, 5, 7, 9, 11)),
    "fog": ("photometric", 5, _FOG),
    "spatter": ("overlay", 4, _SPATTER),
    "dotted_line": ("overlay", 1, (1, 2, 3, 4, 5)),
    "zigzag": ("overlay", 1, (1, 2, 3, 4, 5)),
    "canny_edges": ("photometric", 5, _SHARES),
}
EXTRAS: dict[str, tuple[str, int, tuple[Any, ...]]] = {
    "gaussian_noise": ("noise", 5, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "speckle_noise": ("noise", 5, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": ("blur", 2, (1, 2, 3, 4, 6)),
    "defocus_blur": ("blur", 1, _DEFOCUS),
    "zoom_blur": ("blur", 5, _ZOOM),
    "pixelate": ("blur", 3, _PIXELATE),
    "contrast": ("photometric", 4, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturate": ("photometric", 5, _SATURATE),
    "quantize": ("photometric", 5, (5, 4, 3, 2, 1)),
    "jpeg_compression": ("photometric", 5, (25, 18, 15, 10, 7)),
    "inverse": ("photometric", 5, _SHARES),
    "snow": ("overlay", 5, _SNOW),
    "line": ("overlay", 1, (1, 2, 3, 4, 5)),
    "elastic_transform": ("geometric", 1, _ELASTIC),
}
# The squared distance to the clean image does not grow with their severity.
UNEVEN = {"spatter", "pixelate", "saturate", "elastic_transform"}
for _name, (_group, _default, _severities) in (FIFTEEN | EXTRAS).items():
    register.corruption(
        _name, f"robustvae.corruptions.{_group}:{_name}", group=_group, default=_default,
        severities=_severities, monotone=_name not in UNEVEN,
    )  # fmt: skip
