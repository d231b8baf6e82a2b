"""Sweeps: the points and their names, what is refused, and runs on workers that get killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, copy_project
from distributed import LocalCluster

from robustvae.errors import UserError
from robustvae.experiments import sweep
from robustvae.experiments.points import expand

STAGES = """
stages:
  data:
    cmd: python -m stages.data
    outs: [data/raw: {push: false}]
  work:
    cmd: python -m stages.work
    deps: [data/raw, stages/work.py]
    params: [loss, run]
    outs: [models]
    metrics: [reports/metrics.json: {cache: false}]
"""
DATA = """
from pathlib import Path
Path("data/raw").mkdir(parents=True)
Path("data/raw/images").write_text("images")
"""
WORK = """
import json, sys, time
from pathlib import Path
from robustvae import params
settings = params.read()
if settings["loss"]["df"] == 1:
    sys.exit("no such thing as df 1")
time.sleep(0.5)
Path("models").mkdir()
Path("models/weights").write_text(Path("data/raw/images").read_text() + str(settings["loss"]["df"]))
Path("reports").mkdir(exist_ok=True)
Path("reports/metrics.json").write_text(json.dumps({"total": settings["loss"]["df"]}))
"""


class Project:
    """A small pipeline with the project's own params.yaml, in a repository of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment | {"PYTHONPATH": str(ROOT / "src"), "HOME": str(folder)}

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, command: str, code: int = 0) -> str:
        process = self.start(command)
        said = process.communicate()[0]
        assert process.returncode == code, said[-4000:]
        return said

    def clones(self) -> list[Path]:
        return [path for path in self.folder.glob(".cache/sweep/*") if path.is_dir()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    run = Project(tmp_path / "project", copy_project(tmp_path / "project", tmp_path))
    for name, text in {"dvc.yaml": STAGES, "stages/data.py": DATA, "stages/work.py": WORK}.items():
        (run.folder / name).write_text(text)
    run("git init -q -b main && git add -A && git commit -qm Start")
    return run


def points(*words: str) -> list[tuple[str, ...]]:
    return [point.overrides for point in expand(words)]


def test_points_are_the_product_of_lists_and_ranges() -> None:
    assert points("loss.df=0,3.0", "run.seed=range(0,2)", "train.epochs=4") == [
        ("loss.df=0", "run.seed=0", "train.epochs=4"),
        ("loss.df=0", "run.seed=1", "train.epochs=4"),
        ("loss.df=3.0", "run.seed=0", "train.epochs=4"),
        ("loss.df=3.0", "run.seed=1", "train.epochs=4"),
    ]
    assert points("model.architecture.channels=[8,16],[32]") == [
        ("model.architecture.channels=[8,16]",),
        ("model.architecture.channels=[32]",),
    ]


def test_a_name_is_that_of_its_values_in_any_order_and_spelling() -> None:
    (one,), (two,) = (
        expand(words)
        for words in (["loss.df=3", "train.lr=1e-5"], ["train.lr=0.00001", "loss.df=3.0"])
    )
    assert one.name == two.name
    assert one.name.startswith("df-3_lr-1e-05_")
    assert len(expand(["loss.df=3,3.0"])) == 1
    assert len({p.name for p in expand(["loss.df=0,3", "loss.alpha=0,1"])}) == 4
    same_end = expand(["run.seed=1"]) + expand(["corruptions.seed=1"])
    assert same_end[0].name != same_end[1].name


@pytest.mark.parametrize("value", ["../../x", "a b~c^d:e?f*g[h", "'a, b'", ".lock", "@{0}"])
def test_any_value_gives_a_name_that_git_takes(value: str) -> None:
    (point,) = expand([f"+data.root={value!r}"])
    subprocess.run(["git", "check-ref-format", f"refs/exps/{point.name}"], check=True)
    assert "/" not in point.name


@pytest.mark.parametrize("word", ["loss.df", "loss.df=glob(*)", "loss.df=interval(0,1)"])
def test_what_cannot_be_expanded_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=r"-S: .*; write KEY=VALUE"):
        expand([word])


def test_a_command_dies_with_its_starter() -> None:
    command = ["sh", "-c", sweep.WATCHED, "sh", "sh", "-c", "sleep 60 & sleep 60"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    time.sleep(0.3)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3
    process.stdin.close()
    assert process.wait(10) == -9
    assert not psutil.wait_procs(below, 10)[1]


@pytest.mark.parametrize("code", [0, 7])
def test_a_watched_command_ends_with_its_own_code(code: int) -> None:
    command = ["sh", "-c", sweep.WATCHED, "sh", "sh", "-c", f"exit {code}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.wait(10) == code


def test_changes_that_a_clone_would_miss_are_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    (project.folder / "notes.txt").write_text("not code")
    place = sweep.here(None, 1)
    assert place.cache == str(project.folder / ".dvc/cache")
    (project.folder / "src/robustvae/new.py").write_text("")
    with pytest.raises(UserError, match=r"not committed: src/robustvae/new.py; commit first"):
        sweep.here(None, 1)
    project("git add -A && git commit -qm New && echo >> params.yaml")
    with pytest.raises(UserError, match=r"not committed: params.yaml; commit first"):
        sweep.here(None, 1)
    project("git checkout -q params.yaml")
    with pytest.raises(UserError, match="no DVC remote 'storage'; there is none"):
        sweep.here("storage", 1)
    monkeypatch.chdir(project.folder / "src")
    with pytest.raises(UserError, match="top folder"):
        sweep.here(None, 1)


def test_an_unknown_key_stops_before_any_work(project: Project) -> None:
    said = project(f"{sys.executable} -m robustvae sweep -S loss.bta=1,2", code=2)
    assert "-S: loss.bta: no such setting in params.yaml (did you mean 'loss.beta'?)" in said


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


@pytest.mark.slow
def test_all_points_arrive_although_a_worker_is_killed(project: Project) -> None:
    stray = project.folder / ".cache/sweep/of-a-killed-sweep/clone"
    stray.mkdir(parents=True)
    command = f"exec {sys.executable} -m robustvae sweep -S loss.df=0,3 -S 'run.seed=range(0,3)'"
    process = project.start(f"{command} --workers 2")
    deadline, stage = time.monotonic() + 60, None
    while stage is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        stage = next((p for p in below if "stages.work" in words(p)), None)
    worker = next(p for p in stage.parents() if "spawn_main" in words(p))
    doomed = worker.children(recursive=True)
    worker.kill()
    assert not psutil.wait_procs(doomed, 10)[1]
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert "6 points: 6 done" in said
    assert project.clones() == []
    shown = project("dvc exp show --csv --no-pager")
    names = {point.name for point in expand(["loss.df=0,3", "run.seed=range(0,3)"])}
    assert all(name in shown for name in names)
    again = project(f"{command} --workers 2")
    assert "6 points: 6 there already" in again
    assert "done" not in again


@pytest.mark.slow
def test_without_a_shared_disk_points_go_by_git_and_a_dvc_remote(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster that runs already; one point fails."""
    monkeypatch.setenv("HOME", str(project.folder.parent / "home"))
    storage = project.folder.parent / "storage"
    project("git init -q --bare ../origin.git && git remote add origin ../origin.git")
    project(f"dvc remote add --local storage {storage} && git add -A")
    command = f"{sys.executable} -m robustvae sweep -S loss.df=0,1,3 --remote storage"
    assert "is not in origin; `git push` it first" in project(command, code=2)
    project("git push -q origin main")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        said = project(f"{command} --scheduler {cluster.scheduler_address}", code=1)
    assert "3 points: 2 done, 1 failed" in said
    assert "no such thing as df 1" in said
    rooms = (project.folder.parent / "home/.cache/sweep").glob("[!.]*/")
    assert list(rooms) == []
    failed, done = expand(["loss.df=1,3"])
    shown = project("dvc exp show --csv --no-pager")
    assert done.name in shown
    assert failed.name not in shown
    kept = {p.read_text() for p in storage.rglob("*") if p.is_file()}
    assert "images3" in kept  # the model
    assert "images" not in kept  # push: false
