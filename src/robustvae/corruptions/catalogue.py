"""The fifteen corruptions of MNIST-C with the official parameters, and extras."""

from robustvae.corruptions import blur, geometric, noise, overlay, photometric
from robustvae.corruptions.corruption import Corruption

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

FIFTEEN = {
    "shot_noise": Corruption(noise.shot_noise, "noise", 5, (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(noise.impulse_noise, "noise", 4, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "glass_blur": Corruption(blur.glass_blur, "blur", 1, _GLASS),
    "motion_blur": Corruption(blur.motion_blur, "blur", 1, _MOTION),
    "shear": Corruption(geometric.shear, "geometric", 2, _RADIANS),
    "scale": Corruption(geometric.scale, "geometric", 3, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "rotate": Corruption(geometric.rotate, "geometric", 2, _RADIANS),
    "brightness": Corruption(photometric.brightness, "photometric", 5, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "translate": Corruption(geometric.translate, "geometric", 3, (1, 2, 3, 4, 5)),
    "stripe": Corruption(overlay.stripe, "overlay", 3, (3, 5, 7, 9, 11)),
    "fog": Corruption(photometric.fog, "photometric", 5, _FOG),
    "spatter": Corruption(overlay.spatter, "overlay", 4, _SPATTER, monotone=False),
    "dotted_line": Corruption(overlay.dotted_line, "overlay", 1, (1, 2, 3, 4, 5)),
    "zigzag": Corruption(overlay.zigzag, "overlay", 1, (1, 2, 3, 4, 5)),
    "canny_edges": Corruption(photometric.canny_edges, "photometric", 5, _SHARES),
}
EXTRAS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, "noise", 5, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "speckle_noise": Corruption(noise.speckle_noise, "noise", 5, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": Corruption(blur.gaussian_blur, "blur", 2, (1, 2, 3, 4, 6)),
    "defocus_blur": Corruption(blur.defocus_blur, "blur", 1, _DEFOCUS),
    "zoom_blur": Corruption(blur.zoom_blur, "blur", 5, _ZOOM),
    "pixelate": Corruption(blur.pixelate, "blur", 3, _PIXELATE, monotone=False),
    "contrast": Corruption(photometric.contrast, "photometric", 4, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturate": Corruption(photometric.saturate, "photometric", 5, _SATURATE, monotone=False),
    "quantize": Corruption(photometric.quantize, "photometric", 5, (5, 4, 3, 2, 1)),
    "jpeg_compression": Corruption(
        photometric.jpeg_compression, "photometric", 5, (25, 18, 15, 10, 7)
    ),
    "inverse": Corruption(photometric.inverse, "photometric", 5, _SHARES),
    "snow": Corruption(overlay.snow, "overlay", 5, _SNOW),
    "line": Corruption(overlay.line, "overlay", 1, (1, 2, 3, 4, 5)),
    "elastic_transform": Corruption(
        geometric.elastic_transform, "geometric", 1, _ELASTIC, monotone=False
    ),
}
CORRUPTIONS = FIFTEEN | EXTRAS
