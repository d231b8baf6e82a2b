"""A grid of experiments through DVC's queue, from a commit to the table that compares them."""

from pathlib import Path

import pytest
import yaml
from conftest import copy_project, overlay
from test_pipeline import Project
from test_study import TINY

from robustvae import params

pytestmark = pytest.mark.slow


def test_a_queue_of_experiments_runs_and_one_is_applied(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", copy_project(tmp_path / "project", tmp_path))
    path = project.folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), TINY), sort_keys=False))
    project("git init -q -b main && git add -A && git commit -qm 'Start'")
    project("dvc exp run --queue -n good -S loss.df=3.0")
    project("dvc exp run --queue -n bad -S train.batch_size=0")
    project("dvc queue start -j 1")
    states = project.wait_for_queue()
    assert states == {"good": "Success", "bad": "Failed"}
    assert "train.batch_size: must be >= 1, got 0" in project("dvc queue logs bad")
    assert "good" in project("dvc exp show --csv --no-pager")
    project("dvc exp apply good")
    assert params.read(path)["loss"]["df"] == 3.0
    assert "up to date" in project("dvc repro")
