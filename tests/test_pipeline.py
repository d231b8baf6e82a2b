"""The pipeline as a user runs it (dvc repro, exp run, status), in a project of its own."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import copy_project, overlay
from imports import ROOT

from robustvae import params

pytestmark = pytest.mark.slow

SMALL = {
    "data.limit": 240,
    "train.epochs": 2,
    "evaluate.iwae_samples": 4,
    "evaluate.iwae_images": 20,
    "evaluate.attacks.images": 4,
    "evaluate.attacks.steps": 2,
    "plots.examples": 4,
    "plots.dpi": 60,
}
# Which stages list each place of params.yaml; the longest match counts.
READERS = {
    "run": ["train"],
    "data.name": ["download", "preprocess"],
    "data.root": ["download", "preprocess"],
    "data.mirror": ["download", "foreign"],
    "data.limit": ["preprocess"],
    "data.skip_bad": ["preprocess"],
    "preprocess": ["preprocess"],
    "preprocess.binarize": ["preprocess", "corrupt"],
    "preprocess.threshold": ["preprocess", "corrupt"],
    "contamination": ["contaminate"],
    "corruptions": ["corrupt"],
    "corruptions.source": ["download", "corrupt"],
    "model": ["train"],
    "loss": ["train"],
    "train": ["train"],
    "train.mixture": ["contaminate", "train"],
    "evaluate": ["evaluate"],
    "evaluate.batch_size": ["evaluate", "foreign"],
    "evaluate.attacks": ["attack"],
    "evaluate.outliers": ["foreign"],
    "evaluate.regret": ["foreign"],
    "evaluate.samples": ["sample"],
    "plots": ["plot"],
    "report": ["report"],
}


class Project:
    """A finished run in a folder of its own, with commands as a user types them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def __call__(self, command: str, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self("dvc status --json").splitlines()[0]))

    def wait_for_queue(self, seconds: float = 240) -> dict[str, str]:
        """Name -> state of every queued task, once none is waiting or running."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rows = [line.split() for line in self("dvc queue status").splitlines()]
            tasks = [row for row in rows if len(row) > 3 and row[0] not in ("Task", "Worker")]
            states = {row[1]: row[-1] for row in tasks}
            if states and not {"Queued", "Running"} & set(states.values()):
                return states
            time.sleep(5)  # asking takes two seconds of a core itself
        raise TimeoutError(self("dvc queue status"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("pipeline")
    environment = copy_project(folder / "project", folder)
    run = Project(folder / "project", environment)
    path = run.folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), SMALL), sort_keys=False))
    run("git init -q -b main && git add -A && git commit -qm 'Start'")
    run("dvc repro")
    run("git add -A && git commit -qm 'Run'")
    return run


def test_a_run_ends_in_metrics_figures_and_a_report(project: Project) -> None:
    metrics = json.loads((project.folder / "reports/metrics.json").read_text())
    assert {"train", "val", "test"} <= set(metrics)
    shown = json.loads((project.folder / "reports/val.json").read_text())
    assert list(shown) == ["recon", "divergence", "total", "mse"]
    assert set(metrics["test"]) == {*shown, "psnr", "residual"}
    assert (project.folder / "reports/report.html").stat().st_size < 5_000_000
    figures = json.loads((project.folder / "reports/figures.json").read_text())
    assert all((project.folder / "reports/figures" / f["file"]).exists() for f in figures)
    assert project.status() == {}
    assert project("git status --porcelain") == ""


def test_nothing_to_do_takes_little_time(project: Project) -> None:
    """Under three seconds of processor time, which other work on the machine does not lengthen.

    Most of it is DVC reading YAML: params.yaml once for each of eleven stages, the lock twice.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "up to date" in project("dvc repro")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def _leaves(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    return [leaf for k, v in node.items() for leaf in _leaves(v, f"{prefix}.{k}".strip("."))]


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "something else"


def test_each_key_reruns_the_stages_that_read_it_and_no_other(project: Project) -> None:
    """Through DVC's own status, for every key; what follows them is the stage graph.

    DVC parses a file anew for each stage; here a text is parsed once, or that is all the time.
    """
    path = project.folder / "params.yaml"
    original = path.read_text()
    content = params.read(path)
    code = (
        "import copy, functools, json, sys; from dvc.repo import Repo; from pathlib import Path\n"
        "from dvc.utils.serialize import _yaml\n"
        "parsed = functools.cache(_yaml.parse_yaml)\n"
        "_yaml.parse_yaml = lambda *given: copy.deepcopy(parsed(*given))\n"
        "cases = json.load(sys.stdin); found = {}\n"
        "for key, text in cases.items():\n"
        "    Path('params.yaml').write_text(text)\n"
        "    with Repo('.') as repo: found[key] = sorted(repo.status())\n"
        "print('RESULT' + json.dumps(found))\n"
    )
    cases = {}
    for key in _leaves(content):
        value: Any = content
        for step in key.split("."):
            value = value[step]
        changed = str(project.folder / "stages") if key == "data.root" else _other(value)
        cases[key] = yaml.safe_dump(overlay(content, {key: changed}), sort_keys=False)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(cases),
            cwd=project.folder,
            env=project.environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        path.write_text(original)
    found = json.loads(done.stdout.split("RESULT")[1])
    for key, stages in found.items():
        place = max((p for p in READERS if key == p or key.startswith(f"{p}.")), key=len)
        assert stages == sorted(READERS[place]), key


def test_editing_the_code_of_figures_does_not_retrain(project: Project) -> None:
    path = project.folder / "src/robustvae/reporting/figures/__init__.py"
    text = path.read_text()
    path.write_text(text + "\n# a comment\n")
    try:
        assert set(project.status()) == {"plot"}
    finally:
        path.write_text(text)


def test_the_stage_graph_is_that_of_the_design(project: Project) -> None:
    graph = project("dvc dag --dot")
    edges = {
        tuple(part.strip().strip('";') for part in line.split("->"))
        for line in graph.splitlines()
        if "->" in line
    }
    assert {
        ("download", "preprocess"),
        ("preprocess", "corrupt"),
        ("preprocess", "train"),
        ("train", "evaluate"),
        ("corrupt", "evaluate"),
        ("evaluate", "plot"),
        ("plot", "report"),
    } <= edges
    assert ("corrupt", "train") not in edges


def test_metrics_show_is_a_table_with_splits_and_robustness(project: Project) -> None:
    header, *lines = project("dvc metrics show").splitlines()
    names = ["train", "val", "test", "robustness"]
    shown = ["live", *names, "attack", "foreign", "samples"]
    assert [line.split()[0] for line in lines] == [f"reports/{name}.json" for name in shown]
    assert max(map(len, [header, *lines])) < 320
    metrics = json.loads((project.folder / "reports/metrics.json").read_text())
    rows = {
        name: dict(zip(header.split(), line.split(), strict=True))
        for name, line in zip(shown, lines, strict=True)
    }
    for split in names[:3]:
        for quantity in ("recon", "divergence", "total", "mse"):
            value = metrics[split][quantity]
            assert float(rows[split][quantity]) == pytest.approx(value, abs=1e-5)
    assert float(rows["robustness"]["e_den"]) == pytest.approx(
        metrics["robustness"]["e_den"], abs=1e-5
    )
    assert rows["robustness"]["recon"] == rows["train"]["e_den"] == "-"


def test_a_new_df_reruns_training_and_later_only_and_going_back_is_free(project: Project) -> None:
    run = project("dvc exp run -n heavy -S loss.df=3.0")
    for stage in ("download", "preprocess", "corrupt"):
        assert f"Stage '{stage}' didn't change, skipping" in run
    for stage in ("train", "evaluate", "attack", "foreign", "sample", "plot", "report"):
        assert f"Running stage '{stage}'" in run
    difference = project("dvc metrics diff main heavy")
    assert re.search(r"reports/test.json +divergence +[\d.]+ +[\d.]+ +-?[\d.]+", difference)
    assert "Running stage" not in project("dvc exp run -n spelt -S loss.df=3")
    back = project("dvc exp run -n back -S loss.df=0.0")
    assert "Running stage" not in back
    assert project("dvc metrics diff main") == ""
    assert "heavy" in project("dvc exp show --csv --no-pager")
    compared = project("dvc plots diff main heavy -o compared")
    page = (project.folder / "compared/index.html").read_text()
    assert "heavy" in page
    assert "https://cdn" not in page
    assert "compared" in compared
    project("rm -r compared")
    assert "index.html" in project("dvc plots show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert "https://cdn" not in page
    for title in ("Loss, per image", "per corruption", "reports/figures/robustness.png"):
        assert title in page


def test_switching_the_attacks_off_reruns_them_and_the_pages_only(project: Project) -> None:
    run = project("dvc exp run -n calm -S evaluate.attacks.images=0")
    reruns = re.findall(r"Running stage '(\w+)'", run)
    assert reruns == ["attack", "plot", "report"]
    page = (project.folder / "reports/report.html").read_text()
    assert "evaluate.attacks.images is 0" in page
    assert json.loads((project.folder / "reports/attack.json").read_text()) == {}
    assert "reports/samples.json" in project("dvc metrics show")
    project("git checkout -q . && dvc checkout -q")


def test_two_spellings_of_a_rate_are_one_run(project: Project) -> None:
    assert "Running stage 'train'" in project("dvc exp run -n small -S train.lr=1e-5 train")
    assert "Running stage" not in project("dvc exp run -n plain -S train.lr=0.00001 train")
    project("git checkout -q . && dvc checkout -q")


def test_two_forced_runs_give_the_same_bytes(project: Project) -> None:
    before = (project.folder / "dvc.lock").read_text()
    project("dvc repro --force --single-item train && dvc repro --force --single-item evaluate")
    assert (project.folder / "dvc.lock").read_text() == before


def test_a_mistake_stops_the_run_with_its_line(project: Project) -> None:
    said = project("dvc exp run --temp -S loss.df=1", code=255)
    assert "params.yaml: loss.df: 0 switches it off; otherwise must be > 2" in said
    assert "Traceback" not in said


def test_the_committed_lock_agrees_with_the_code() -> None:
    """dvc.lock is that of the default run: but for missing outputs a clone has nothing to run."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"],
        cwd=ROOT,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "up to date" in done.stdout, done.stdout + done.stderr
