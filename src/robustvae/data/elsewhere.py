"""Images of another data set, or of a folder, brought to the shape of one's own."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustvae.data.catalogue import DATASETS
from robustvae.data.downloads import Library
from robustvae.data.pictures import BROKEN, Geometry
from robustvae.errors import UserError
from robustvae.runtime import seeding


def images(
    name: str, shape: tuple[int, int, int], count: int, library: Library, seed: int
) -> np.ndarray:
    """At most `count` of its test images (of all, where it has no split), uint8 [N, C, H, W].

    `name`: a data set, or a folder where it has a /. Nothing is fetched from public addresses:
    what is neither in a package, in the library's cache nor in a mirror is refused.
    """
    at_hand = replace(library, public=False)
    source, root = (DATASETS["folder"], Path(name)) if "/" in name else (DATASETS[name], Path())
    with tempfile.TemporaryDirectory(prefix="robustvae-") as raw:
        try:
            source.download(Path(raw), root, at_hand)
            pictures = source.read(Path(raw), root)
            members = pictures.splits.get("test", pictures.splits["train"])
            rng = seeding.numpy_rng(seed, "foreign", name)
            chosen = np.sort(rng.permutation(members)[:count])
            geometry = Geometry(shape[-1], shape[0], pictures.crop)
            read = pictures.reader
            return np.stack([geometry.bring(read.image(i), read.name(i)) for i in chosen])
        except (UserError, *BROKEN) as error:
            raise UserError(f"evaluate.outliers: {name}: {error}") from None
