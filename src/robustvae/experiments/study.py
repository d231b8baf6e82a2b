"""Many runs in a few processes that stay warm, without DVC: their values, row by row, in a table.

A run goes through the pipeline's own stages, in the order of dvc.yaml, each in a folder that is
named by the parameters that the stage, and all before it, reads: data are made once for all runs.
"""

import contextlib
import fcntl
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robustvae.errors import UserError
from robustvae.experiments.compare import APART, Run, assemble
from robustvae.experiments.scratch import held, tidy
from robustvae.params import flatten, overlay, yaml12
from robustvae.runtime import files

STORE = Path(".cache/study")
DRAWN = ("plot", "report")  # stages that add no number
FIRST = "train"  # it, and what reads what it makes, is each run's own, and is not kept
FOLDERS = ("data.root", "data.mirror", "contamination.root")  # relative to the project


@dataclass(frozen=True)
class Stage:
    """What dvc.yaml says of a stage."""

    name: str
    params: tuple[str, ...]
    outs: tuple[str, ...]
    needs: tuple[str, ...]  # stages that make what it reads


def stages(path: Path = Path("dvc.yaml")) -> dict[str, Stage]:
    """Those that lead to a run's numbers, in order."""
    found: dict[str, Stage] = {}
    for name, content in yaml12.read(path)["stages"].items():
        outs = [*content.get("outs", []), *content.get("metrics", [])]
        made = tuple(next(iter(out)) if isinstance(out, dict) else out for out in outs)
        needs = tuple(s.name for s in found.values() if set(s.outs) & set(content["deps"]))
        if name not in DRAWN:
            found[name] = Stage(name, tuple(content["params"]), made, needs)
    return found


def run(
    tasks: Mapping[str, dict[str, Any]], workers: int, code: str
) -> Iterator[tuple[str, Run | str]]:
    """The run of each task, or why there is none, as they end; `tasks`: name -> parameters."""
    STORE.mkdir(parents=True, exist_ok=True)
    tidy(str(STORE))
    with (
        tempfile.TemporaryDirectory(dir=STORE) as store,
        held(Path(store)),
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin) as pool,
    ):
        try:
            futures: dict[Future[Run | str], str] = {
                pool.submit(_one, name, content, Path(store).resolve(), code): name
                for name, content in tasks.items()
            }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                "study: a process ended of itself, perhaps for want of memory; run it again with "
                "fewer --workers, what is in the table is kept"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a process: it ends with the one that started it; the project's stages can be imported."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path.insert(0, str(Path.cwd()))
    importlib.import_module("stages")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _one(name: str, content: dict[str, Any], store: Path, code: str) -> Run | str:
    project, graph, places = Path.cwd(), stages(), dict[str, Path]()
    known = flatten(content)
    local = {k: known[k] for k in FOLDERS if known[k] is not None and "://" not in known[k]}
    inside = overlay(content, {key: str(project / folder) for key, folder in local.items()})
    try:
        for stage in graph.values():
            places[stage.name] = _done(stage, inside, store, places, graph)
        last = places[stage.name]  # where all that was made before is linked
        metrics = files.read_json(last / "reports" / "metrics.json")
        metrics |= {part: files.read_json(last / "reports" / f"{part}.json") for part in APART}
        versions = files.read_json(last / "models" / "config.json")["versions"]
        return assemble(
            name, content, metrics, pd.read_csv(last / "reports" / "robustness.csv"),
            origin={"code": code, **versions},
        )  # fmt: skip
    except UserError as error:
        return str(error)
    finally:
        os.chdir(project)
        for made, place in places.items():
            if made == FIRST or FIRST in graph[made].needs:
                shutil.rmtree(place)


def _done(
    stage: Stage,
    content: dict[str, Any],
    store: Path,
    places: Mapping[str, Path],
    graph: Mapping[str, Stage],
) -> Path:
    """The folder where the stage has run with these parameters: now, or before."""
    values = flatten(content)
    read = {k: values[k] for k in values if any(f"{k}.".startswith(f"{p}.") for p in stage.params)}
    known = [read, *(places[need].name for need in stage.needs)]
    room = store / f"{stage.name}-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    room.mkdir(exist_ok=True)
    with (room / "lock").open("w") as lock, (room / "log").open("a") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same data
        if (room / "done").exists():
            return room
        for name, place in places.items():
            for out in graph[name].outs:
                (room / out).parent.mkdir(parents=True, exist_ok=True)
                (room / out).unlink(missing_ok=True)
                (room / out).symlink_to(place / out)
        (room / "params.yaml").write_text(json.dumps(content))  # JSON is YAML
        os.chdir(room)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            importlib.import_module(f"stages.{stage.name}").main()
        (room / "done").touch()
    return room
