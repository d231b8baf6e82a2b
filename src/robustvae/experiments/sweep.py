"""Many experiments: each point of a sweep is a task of Dask, run in a clone of its own.

Git's refs and the DVC cache are the record, Dask only schedules. Needs git and a POSIX shell.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cloudpickle  # type: ignore[import-untyped]
from distributed import Client, LocalCluster, as_completed

from robustvae.errors import UserError
from robustvae.experiments.points import Point
from robustvae.experiments.scratch import held, tidy

SCRATCH = ".cache/sweep"  # clones, in this project; with a DVC remote, in each worker's home
KEPT_LOG = 100_000  # characters of a point's log that come back
CODE = ("src", "stages", "plugins")
# Runs a command that dies, with all that it started, when the pipe to its starter closes: however
# a worker ends, its trainings end with it, and the point can be done elsewhere.
WATCHED = 'exec 3<&0; (read -r _ <&3; kill -KILL 0) & "$@" </dev/null 3<&-; n=$?; kill $!; exit $n'


@dataclass(frozen=True)
class Place:
    """Where points come from and go to."""

    source: str  # the repository to clone and to push to: a path or an address
    commit: str
    scratch: str  # folder of the clones, the same on every machine
    cache: str  # DVC cache, "" for one beside the clones
    remote: tuple[str, str] | None  # name and address of the DVC remote, where no disk is shared
    threads: int  # per point

    @property
    def refs(self) -> str:
        """Where DVC keeps the experiments that start from the commit."""
        return f"refs/exps/{self.commit[:2]}/{self.commit[2:]}"


@dataclass(frozen=True)
class Outcome:
    """What became of a point."""

    name: str
    state: str  # done | there (it had been done before) | failed
    seconds: float = 0.0
    log: str = ""


def here(remote: str | None, threads: int) -> Place:
    """This project at its commit; UserError where a clone would not be what is on the disk."""
    root = Path.cwd()
    if _git("rev-parse", "--show-prefix"):
        raise UserError("sweep: run it in the top folder of the project's git repository")
    _refuse_changes()
    commit = _git("rev-parse", "HEAD")
    if remote is None:
        cache = root / _dvc("cache", "dir").strip()
        return Place(str(root), commit, str(root / SCRATCH), str(cache), None, threads)
    addresses = dict(re.findall(r"^remote\.(.+)\.url=(.*)$", _dvc("config", "--list"), re.M))
    if remote not in addresses:
        known = ", ".join(addresses) or "none; see `dvc remote add`"
        raise UserError(f"--remote: no DVC remote {remote!r}; there is {known}")
    address = _git("remote", "get-url", "origin")
    source = str(Path(address).resolve()) if Path(address).exists() else address
    _git("fetch", "--quiet", "origin")
    if not _git("branch", "--remotes", "--contains", commit):
        raise UserError(f"sweep: commit {commit[:10]} is not in origin; `git push` it first")
    return Place(source, commit, f"~/{SCRATCH}", "", (remote, addresses[remote]), threads)


def _refuse_changes() -> None:
    lines = _git("status", "--porcelain", "--untracked-files=all").splitlines()
    places = [(line[:2], line[3:].strip('"')) for line in lines]
    found = [path for state, path in places if state != "??" or path.split("/")[0] in CODE]
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise UserError(f"sweep: not committed: {shown}; commit first, since points run in clones")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"sweep: git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.rstrip()


def _dvc(*words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def there(place: Place) -> set[str]:
    """Names of the experiments that have been pushed."""
    command = ["git", "ls-remote", place.source, f"{place.refs}/*"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.rpartition("/")[2] for line in listed.splitlines()}


def run(
    points: Sequence[Point], place: Place, scheduler: str | None, workers: int
) -> Iterator[Outcome]:
    """What became of `points`, as it comes: from an existing cluster, or from `workers` here."""
    before = there(place)
    yield from (Outcome(point.name, "there") for point in points if point.name in before)
    left = [point for point in points if point.name not in before]
    for module in (__name__, Point.__module__, held.__module__):  # workers need not have this code
        cloudpickle.register_pickle_by_value(sys.modules[module])
    with ExitStack() as stack:
        stack.callback(tidy, place.scratch)
        if not left:
            return
        if scheduler is None:
            own = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)  # type: ignore[no-untyped-call]
            scheduler = stack.enter_context(own).scheduler_address
        try:
            client = stack.enter_context(Client(scheduler))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise UserError(f"--scheduler: no Dask scheduler at {scheduler} ({error})") from None
        yield from _gather(client, left, place)


def _gather(client: Client, points: Sequence[Point], place: Place) -> Iterator[Outcome]:
    client.run(tidy, place.scratch, [point.name for point in points], on_error="ignore")
    keys = [f"{point.name}-{place.commit}" for point in points]
    futures = client.map(run_point, points, place=place, key=keys, pure=False)
    names = dict(zip(keys, points, strict=True))
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            error = future.exception()  # its worker died again and again
            lost = Outcome(names[future.key].name, "failed", log=f"{error!r}")
            yield lost if error else future.result()
    finally:
        client.cancel(futures)  # type: ignore[no-untyped-call]
        client.run(tidy, place.scratch, on_error="ignore")
        if place.remote is not None:
            _git("fetch", "--quiet", "origin", f"+{place.refs}/*:{place.refs}/*")


def run_point(point: Point, place: Place) -> Outcome:
    """On a worker: clone, `dvc exp run`, push, remove the clone."""
    start = time.monotonic()
    room = Path(place.scratch).expanduser() / point.name
    room.parent.mkdir(parents=True, exist_ok=True)
    with held(room) as lock:
        if (room / "clone" / ".cache").exists():  # a killed worker's: its training goes on
            (room / "clone" / ".cache").rename(room / "cache")
        shutil.rmtree(room / "clone", ignore_errors=True)
        room.mkdir(exist_ok=True)
        log = room / "log"
        log.touch()
        try:
            state = _experiment(point, place, room, log, lock)
        except subprocess.CalledProcessError as error:
            state = "failed"
            with log.open("a") as file:
                file.write(f"{shlex.join(map(str, error.cmd))}: exit code {error.returncode}\n")
        text = log.read_text(errors="replace")[-KEPT_LOG:]
        shutil.rmtree(room)
    return Outcome(point.name, state, time.monotonic() - start, text)


def _experiment(point: Point, place: Place, room: Path, log: Path, lock: int) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": str(place.threads),
    }

    def call(*command: str | Path, at: Path) -> None:
        with (
            log.open("a") as file,
            subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", *command], cwd=at, env=environment,
                stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
                pass_fds=[lock],
            ) as process,
        ):  # fmt: skip
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, command)

    if point.name in there(place):
        return "there"
    clone = room / "clone"
    call("git", "clone", "-q", "--shared", "-n", place.source, clone, at=room)
    call("git", "checkout", "-q", "--detach", place.commit, at=clone)
    if (room / "cache").exists():
        (room / "cache").rename(clone / ".cache")
    (clone / ".dvc" / "config.local").write_text(_config(place, clone))
    pull, push = [], ["--no-cache"]
    if place.remote is not None:
        pull, push = ["--pull"], ["--remote", place.remote[0]]
    dvc = ("python", "-m", "dvc", "exp")
    sets = [word for override in point.overrides for word in ("-S", override)]
    call(*dvc, "run", "-n", point.name, *pull, *sets, at=clone)
    call(*dvc, "push", *push, "origin", point.name, at=clone)
    return "done"


def _config(place: Place, clone: Path) -> str:
    """DVC's, of a clone: links to the cache spare a copy of the data per clone."""
    cache = place.cache or clone.parent.parent / ".dvc-cache"
    settings = f"[cache]\n    dir = {cache}\n    type = reflink,symlink,copy\n"
    settings += f"[core]\n    site_cache_dir = {clone}/.dvc/tmp/site\n"
    if place.remote is not None:
        name, address = place.remote
        settings += f"    remote = {name}\n['remote \"{name}\"']\n    url = {address}\n"
    return settings
