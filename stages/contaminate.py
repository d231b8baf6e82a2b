"""Replace a share of the training images by outliers -> data/contaminated."""

import shutil

from robustvae import params
from robustvae.data import prepared
from robustvae.data.contaminate import contaminate
from robustvae.params.parts import foreign
from robustvae.runtime import files
from stages import CONTAMINATED, PREPARED, run


def main() -> None:
    """Images, labels, masks and test outliers; info.json, which says that all is there, last."""
    settings = params.load()
    shutil.rmtree(CONTAMINATED, ignore_errors=True)
    info = contaminate(prepared.load(PREPARED), settings.contamination, CONTAMINATED)
    mixture = settings.train.mixture
    if mixture.fraction and (mixed := foreign([("corruption", mixture.corruption)])):
        info["mixture"] = mixed  # for DVC: training with it starts again when the plug-in changes
    files.write_json(CONTAMINATED / "info.json", info)


if __name__ == "__main__":
    run(main)
