"""Decode, crop, resize, split and binarise the data set -> data/prepared."""

import shutil
from pathlib import Path

from robustvae import params
from robustvae.data.catalogue import DATASETS
from robustvae.data.prepare import prepare
from robustvae.runtime import files
from stages import PREPARED, RAW, run


def main() -> None:
    """data/raw -> data/prepared; info.json, which says that all is there, comes last."""
    settings = params.load()
    source = files.read_json(RAW / "info.json")
    pictures = DATASETS[settings.data.name].read(RAW, Path(settings.data.root))
    shutil.rmtree(PREPARED, ignore_errors=True)
    info = prepare(pictures, settings.data, settings.preprocess, PREPARED)
    files.write_json(
        PREPARED / "info.json",
        {**info, "licence": source["licence"], "sources": source["files"]},
    )


if __name__ == "__main__":
    run(main)
