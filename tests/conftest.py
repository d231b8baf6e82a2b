"""What the tests share."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robustvae import params
from robustvae.params import overlay
from robustvae.runtime import threads

threads.settle()  # before torch is imported, as the stages do

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "src", "stages", "plugins", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml",
    "data/images/README.md",
)  # fmt: skip


LONGEST = ("pipeline", "damage", "package", "study", "plugins", "queue", "likelihoods", "sweep")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first: no worker is left alone with one in the end."""
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests and the stages that they run keep for the user goes to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def default_params() -> dict[str, Any]:
    """The content of the project's params.yaml."""
    return params.read(ROOT / "params.yaml")


@pytest.fixture
def make_params(default_params: dict[str, Any]) -> Callable[..., params.Params]:
    """Checked settings: the defaults with changes such as `{"loss.df": 3.0}`."""
    return lambda changes=None: params.check(overlay(default_params, changes or {}))


def copy_project(folder: Path, home: Path) -> dict[str, str]:
    """Copy the project to `folder`; the environment that keeps DVC and git to themselves there."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns(
                "__pycache__", "*.egg-info", "tmp", "cache", "config.local"
            )
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "system"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "test@example.org" if what == "EMAIL" else "Test"
           for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip
