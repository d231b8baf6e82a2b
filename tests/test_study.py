"""Studies in warm processes: their rows are what DVC's runs give, kept and added to."""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from conftest import ROOT, copy_project, overlay
from test_pipeline import SMALL, Project

from robustvae import params
from robustvae.experiments import record, study

TINY = SMALL | {
    "data.limit": 60, "train.epochs": 1, "corruptions.names": ["fog", "stripe"],
    "evaluate.outliers": ["noise"], "evaluate.samples.images": 20, "plots.vector": "none",
}  # fmt: skip


def test_stages_are_those_that_lead_to_numbers_with_what_they_need() -> None:
    graph = study.stages(ROOT / "dvc.yaml")
    assert list(graph)[:4] == ["download", "preprocess", "contaminate", "corrupt"]
    assert "evaluate" in graph
    assert not {"plot", "report"} & set(graph)
    assert graph["train"].needs == ("preprocess", "contaminate")
    assert "reports/metrics.json" in graph["evaluate"].outs
    assert "reports/test.json" in graph["evaluate"].outs


@pytest.mark.slow
def test_a_study_gives_the_numbers_of_dvc_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """The second run of a warm process, on data of another run's making, against a run by DVC."""
    project = Project(tmp_path / "project", copy_project(tmp_path / "project", tmp_path))
    path = project.folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), TINY), sort_keys=False))
    (project.folder / "recipe.yaml").write_text("loss: {beta: 2.0}\n")
    project("git init -q -b main && git add -A && git commit -qm 'Start'")
    words = "python -m robustvae study recipe.yaml --csv study/mine.csv --workers 1 -S run.seed=1 "
    stripes = "-S contamination.fraction=0.0,0.2 -S contamination.names=[stripe] "
    said = project(f"{words} {stripes} -S contamination.kind=corruption -S loss.df=3.0")
    assert "2 runs: 0 there already, 0 failed" in said
    said = project(f"{words} -S loss.df=3.0,1.0", code=2)
    assert "loss.df: 0 switches it off; otherwise must be > 2" in said
    said = project(f"{words} {stripes} -S contamination.kind=corruption -S loss.df=3.0,4.0")
    assert "4 runs: 2 there already, 0 failed" in said
    runs = record.read(project.folder / "study" / "mine.csv")
    fractions = sorted(run.settings["contamination.fraction"] for run in runs)
    assert fractions == ["0", "0", "0.2", "0.2"]
    assert "data.root: data/images" in (project.folder / "study" / "mine.yaml").read_text()
    assert not list((project.folder / ".cache" / "study").glob("*/"))

    sets = (
        "-S loss.df=4.0 -S run.seed=1 -S contamination.fraction=0.2 -S contamination.names=[stripe]"
    )
    project(f"dvc exp run -S loss.beta=2.0 {sets} -S contamination.kind=corruption evaluate")
    metrics = json.loads((project.folder / "reports" / "metrics.json").read_text())
    table = pd.read_csv(project.folder / "reports" / "robustness.csv")
    (one,) = (
        r for r in runs if r.settings["loss.df"] == "4" and r.metrics["outliers.test_auroc"] >= 0
    )
    assert one.metrics["robustness.e_den"] == metrics["robustness"]["e_den"]
    assert one.metrics["outliers.test_auroc"] == metrics["outliers"]["test_auroc"]
    expected = table[table["method"] == "model"].set_index(["group", "corruption", "severity"])
    pd.testing.assert_series_equal(
        one.errors, expected["e_den"], check_names=False, check_exact=True
    )


@pytest.mark.slow
def test_a_run_that_cannot_be_made_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", copy_project(tmp_path / "project", tmp_path))
    path = project.folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), TINY), sort_keys=False))
    (project.folder / "recipe.yaml").write_text("{}\n")
    project("git init -q -b main && git add -A && git commit -qm 'Start'")
    words = "python -m robustvae study recipe.yaml --csv mine.csv --workers 2"
    said = project(f"{words} -S preprocess.image_size=28 -S data.name=digits,folder", code=1)
    assert "failed: data/images: no such folder" in said or "failed: data.root" in said
    assert len(record.read(project.folder / "mine.csv")) == 1


@pytest.mark.slow
def test_a_killed_study_leaves_no_process_and_its_folder_goes_with_the_next(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", copy_project(tmp_path / "project", tmp_path))
    path = project.folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), TINY), sort_keys=False))
    (project.folder / "recipe.yaml").write_text("{}\n")
    project("git init -q -b main && git add -A && git commit -qm 'Start'")
    words = [sys.executable, "-m", "robustvae", "study", "recipe.yaml", "--csv", "mine.csv"]
    words += ["--workers", "1", "-S", "run.seed=0"]
    process = psutil.Popen(words, cwd=project.folder, env=project.environment)
    store = project.folder / ".cache" / "study"
    while not list(store.glob("*/download-*/done")):
        assert process.poll() is None
        time.sleep(0.05)
    started = process.children(recursive=True)
    process.kill()
    assert not psutil.wait_procs(started, timeout=20)[1]
    process.wait()
    assert list(store.glob("*/"))
    assert "1 runs: 0 there already, 0 failed" in project(" ".join(words))
    assert not list(store.glob("*/"))
