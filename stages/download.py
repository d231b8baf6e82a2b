"""Fetch and verify the data set, and the official MNIST-C archive if asked for -> data/raw."""

import shutil
from pathlib import Path

from robustvae import params
from robustvae.data.catalogue import DATASETS
from robustvae.data.downloads import Library
from robustvae.data.sources.idx import MNIST_C
from robustvae.runtime import files
from stages import CACHE, RAW, run


def main() -> None:
    """One data set; where it came from leaves no trace in data/raw, so that dvc.lock stays."""
    settings = params.load()
    name = settings.data.name
    library = Library.of(CACHE / "downloads", settings.data.mirror)
    shutil.rmtree(RAW, ignore_errors=True)
    RAW.mkdir(parents=True)
    DATASETS[name].download(RAW, Path(settings.data.root), library)
    if settings.corruptions.source == "official":
        library.deliver(MNIST_C, RAW)
    found = {path.name: files.sha256(path) for path in sorted(RAW.glob("*"))}
    licence = DATASETS.part(name).facts["licence"]
    files.write_json(RAW / "info.json", {"name": name, "licence": licence, "files": found})


if __name__ == "__main__":
    run(main)
