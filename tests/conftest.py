"""What the tests share."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as the stages do

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustvae import params

ROOT = Path(__file__).resolve().parent.parent


def overlay(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, key by key; `{"loss.df": 3}` and nested mappings both work."""
    merged = {key: overlay(v, {}) if isinstance(v, dict) else v for key, v in base.items()}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        change = {rest: value} if rest else value
        nested = isinstance(change, dict) and isinstance(merged.get(head), dict)
        merged[head] = overlay(merged[head], change) if nested else change
    return merged


@pytest.fixture(scope="session")
def default_params() -> dict[str, Any]:
    """The content of the project's params.yaml."""
    return params.read(ROOT / "params.yaml")


@pytest.fixture
def make_params(default_params: dict[str, Any]) -> Callable[..., params.Params]:
    """Checked settings: the defaults with changes such as `{"loss.df": 3.0}`."""
    return lambda changes=None: params.check(overlay(default_params, changes or {}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's files and a git repository of its own, isolated from the user's DVC."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("src", "stages", ".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", "dvc.yaml",
                 "params.yaml", "dvc.lock", "data/images/README.md", "reports"):  # fmt: skip
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        elif source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return folder


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    """Lay `changes` over the params.yaml of a project folder."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), changes), sort_keys=False))
