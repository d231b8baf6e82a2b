"""Pictures -> data/prepared: splits, geometry, binarisation; large sets stream over all cores."""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from robustvae.data.catalogue import DATASETS
from robustvae.data.pictures import BROKEN, Geometry, Pictures, Pixels, Reader
from robustvae.data.prepared import SPLITS
from robustvae.errors import UserError
from robustvae.params import DataSettings, PreprocessSettings
from robustvae.runtime import files, progress, seeding

CHUNK = 256  # pictures at a time
FEW = 2000  # up to this many files, starting processes takes longer than it saves
Task = TypeVar("Task")


def prepare(
    pictures: Pictures, data: DataSettings, settings: PreprocessSettings, out: Path
) -> dict[str, Any]:
    """Write images and labels of all splits into `out`; what info.json says about them."""
    geometry = geometry_of(pictures, data.name, settings)
    skipped = 0
    if data.skip_bad:
        pictures, skipped = without_bad(pictures, geometry)
    members = split(pictures, settings, data.limit)
    grey = "_grey" if settings.binarize in ("threshold", "static") else ""
    paths = {out / f"{s}{grey}.npy": m for s, m in members.items()}
    enlarged = write_images(pictures.reader, geometry, paths)
    for name in members:
        files.save_npy(out / f"{name}_labels.npy", pictures.labels[members[name]])
        if grey:
            binarise(out / f"{name}_grey.npy", out / f"{name}.npy", settings, name)
    return {
        "name": data.name,
        "shape": list(geometry.shape),
        "counts": {name: len(m) for name, m in members.items()},
        "classes": pictures.classes,
        "attributes": pictures.attributes,
        "binarize": settings.binarize,
        "threshold": settings.threshold,
        "split_seed": settings.split_seed,
        "checksums": {path.name: files.sha256(path) for path in sorted(out.glob("*.npy"))},
        "skipped": skipped,
        "enlarged": sum(map(len, members.values())) if pictures.enlarged else enlarged,
    }


def geometry_of(pictures: Pictures, name: str, settings: PreprocessSettings) -> Geometry:
    """What `auto` means for this data set."""
    native = DATASETS.part(name).facts["native"]
    side = settings.image_size if settings.image_size != "auto" else native and native[0]
    if side is None:
        raise UserError("preprocess.image_size: a folder of images has no size of its own; give it")
    channels = settings.channels if settings.channels != "auto" else native[1] if native else 3
    return Geometry(side, channels, pictures.crop if settings.crop == "auto" else settings.crop)


def split(
    pictures: Pictures, settings: PreprocessSettings, limit: int | None
) -> dict[str, np.ndarray]:
    """Positions per split: the source's own, else drawn from train, stratified.

    A split of which the source says that it is empty is left out.
    """
    own = dict(pictures.splits)
    strata = pictures.labels if pictures.labels.ndim == 1 else np.zeros(len(pictures.labels), int)
    if "test" not in own:
        own["train"], own["test"] = _hold_out(own["train"], strata, "test", settings)
    if limit is not None:
        for name, members in own.items():
            if not len(members):
                continue
            rng = seeding.numpy_rng(settings.split_seed, "limit", name)
            own[name] = members[draw(strata[members], min(limit, len(members)), rng)]
    if "val" not in own:
        own["train"], own["val"] = _hold_out(own["train"], strata, "val", settings)
    return {name: own[name] for name in SPLITS if len(own[name])}


def _hold_out(
    members: np.ndarray, strata: np.ndarray, name: str, settings: PreprocessSettings
) -> tuple[np.ndarray, np.ndarray]:
    fraction = settings.val_fraction if name == "val" else settings.test_fraction
    count = max(1, round(len(members) * fraction))
    if count >= len(members):
        raise UserError(
            f"preprocess.{name}_fraction: {fraction} of {len(members)} training images leaves none "
            "to train on; lower it, or use more images"
        )
    rng = seeding.numpy_rng(settings.split_seed, "split", name)
    out = draw(strata[members], count, rng)
    return np.delete(members, out), members[out]


def draw(strata: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positions, ascending, each stratum its share; the largest remainders get the rest."""
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    share = sizes * count / len(strata)
    take = np.floor(share).astype(int)
    take[np.argsort(take - share, kind="stable")[: count - take.sum()]] += 1
    shuffled = rng.permutation(len(strata))
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    picked = [by_stratum[start : start + n] for start, n in zip(starts, take, strict=True)]
    return np.sort(np.concatenate(picked))


def without_bad(pictures: Pictures, geometry: Geometry) -> tuple[Pictures, int]:
    """The pictures that can be decoded, and how many cannot."""
    everything = np.arange(len(pictures.labels))
    work = functools.partial(_readable, geometry)
    good = _over(pictures.reader, work, list(_chunks(everything)), "check", len(everything))
    kept = {name: members[good[members]] for name, members in pictures.splits.items()}
    if empty := [name for name, members in kept.items() if len(members) == 0]:
        raise UserError(f"data: none of the files for {empty[0]} is an image")
    return dataclasses.replace(pictures, splits=kept), int((~good).sum())


def write_images(reader: Reader, geometry: Geometry, members: dict[Path, np.ndarray]) -> int:
    """Decode each file's members into it: workers write rows in place, nothing is gathered.

    Returns how many pictures were smaller than what they became.
    """
    with contextlib.ExitStack() as stack:
        tasks = []
        for path, wanted in members.items():
            temporary = stack.enter_context(files.replace(path))
            start = _create(temporary, (len(wanted), *geometry.shape))
            for chunk in _chunks(wanted):
                tasks.append((temporary, start, chunk))
                start += len(chunk) * math.prod(geometry.shape)
        total = sum(map(len, members.values()))
        enlarged = _over(reader, functools.partial(_fill, geometry), tasks, "preprocess", total)
    return int(enlarged.sum())


def binarise(grey: Path, path: Path, settings: PreprocessSettings, name: str) -> None:
    """Black and white images of a grey file; `static` draws from the split's own stream."""
    import torch  # not at the top: the decoding processes do without

    from robustvae.data import binarize

    rng = seeding.generator(settings.split_seed, "binarize", name)
    shape = files.open_npy(grey).shape
    with files.replace(path) as temporary:
        start = _create(temporary, shape)
        with temporary.open("r+b") as file:
            file.seek(start)
            for rows in _chunks(np.arange(shape[0])):
                x = torch.from_numpy(files.open_npy(grey)[rows])  # mapped anew: memory stays small
                y = binarize.apply(x, settings.binarize, settings.threshold, rng)
                file.write(y.numpy().tobytes())


def _create(path: Path, shape: tuple[int, ...]) -> int:
    """An empty uint8 .npy file; the position of its first row."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + math.prod(shape))
    return start


def _chunks(members: np.ndarray) -> Iterator[np.ndarray]:
    return (members[i : i + CHUNK] for i in range(0, len(members), CHUNK))


_opened: dict[str, Reader] = {}  # the reader of this process, sent once and not with every task


def _start(reader: Reader) -> None:
    _opened["reader"] = reader


def _over(reader: Reader, work: Callable[[Task], np.ndarray], tasks: Sequence[Task],
          label: str, total: int) -> np.ndarray:  # fmt: skip
    """`work` on every task, on all cores where that pays; answers, one per picture, in order."""
    with contextlib.ExitStack() as stack:
        results: Iterator[np.ndarray]
        if isinstance(reader, Pixels) or total <= FEW:
            _start(reader)
            results = map(work, tasks)
        else:
            pool = ProcessPoolExecutor(_cores(), get_context("spawn"), _start, (reader,))
            results = stack.enter_context(pool).map(work, tasks)
        answers = itertools.chain.from_iterable(results)
        return np.array(list(progress.track(answers, label, total=total, unit="image")))


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _readable(geometry: Geometry, members: np.ndarray) -> np.ndarray:
    reader, good = _opened["reader"], np.zeros(len(members), bool)
    for place, i in enumerate(members):
        with contextlib.suppress(*BROKEN):
            geometry.bring(reader.image(i), reader.name(i))
            good[place] = True
    return good


def _fill(geometry: Geometry, task: tuple[Path, int, np.ndarray]) -> np.ndarray:
    """Decode the members and write them at `start` of the file; which of them were enlarged."""
    path, start, members = task
    reader = _opened["reader"]
    rows = np.empty((len(members), *geometry.shape), np.uint8)
    enlarged = np.zeros(len(members), bool)
    whole = geometry.crop in (None, geometry.side)
    if isinstance(reader, Pixels) and whole and reader.array.shape[1:] == geometry.shape:
        rows[:] = reader.array[members]
    else:
        for place, i in enumerate(members):
            try:
                image = reader.image(i)
                enlarged[place] = (geometry.crop or min(image.size)) < geometry.side
                rows[place] = geometry.bring(image, reader.name(i))
            except BROKEN as error:
                raise UserError(
                    f"{reader.name(i)}: cannot be read as an image ({error}); replace or remove "
                    "it, or set data.skip_bad to true"
                ) from error
    with path.open("r+b") as file:
        file.seek(start)
        file.write(rows.tobytes())
    return enlarged
