"""Every command of the README and docs works: run by another test, or checked to its arguments."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT, overlay
from imports import FILES, PACKAGE, room

from robustvae import cli, params

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block for p in PAGES for block in re.findall(r"^```sh\n(.*?)^```", p.read_text(), re.S | re.M)
]
COMMANDS = [
    command.split("#")[0].strip()
    for block in BLOCKS
    for command in block.splitlines()
    if command.split("#")[0].strip()
]
OURS = [c for c in COMMANDS if c.startswith("python -m robustvae ")]
RUNS = [c for c in COMMANDS if c.startswith("dvc exp run")]
OTHERS = [c for c in COMMANDS if c.startswith("dvc ") and c not in RUNS]
PLAIN = [c for c in COMMANDS if c not in {*OURS, *RUNS, *OTHERS}]
SHELL = (
    "python -m venv",
    "pip install -r requirements.txt",
    "git clone",
    "make ",
    "ROBUSTVAE_",
    "export PET_",
    "PET_NODE_RANK=",
    "python -m robustvae.experiments.rwlock",
)


def test_the_readme_shows_its_commands() -> None:
    assert {"make repro", "make test"} <= set(COMMANDS)
    assert len(OURS) > 8
    assert len(RUNS) > 4


@pytest.mark.parametrize("command", OURS)
def test_verbs_take_these_arguments(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)[3:]
    called = []
    monkeypatch.setattr(cli.find(words[0]), "run", called.append)
    cli.main(words)
    assert called
    recipe = getattr(called[0], "recipe", None)
    assert recipe is None or (ROOT / recipe).exists()


@pytest.mark.parametrize("command", RUNS)
def test_experiments_set_what_params_yaml_allows(command: str) -> None:
    words = shlex.split(command)
    default = params.read(ROOT / "params.yaml")
    changes = {}
    for flag, word in pairwise(words):
        if flag == "-S":
            key, value = word.split("=", 1)
            first = "0" if value.startswith("range(") else value.split(",")[0]
            changes[key] = params.yaml12.parse(first)
    assert changes
    params.check(overlay(default, changes))


@pytest.mark.parametrize("command", OTHERS)
def test_dvc_commands_are_run_by_the_tests_of_the_pipeline(command: str) -> None:
    tests = "".join((ROOT / "tests" / f"test_{n}.py").read_text() for n in ("pipeline", "queue"))
    words = [w for w in shlex.split(command) if not w.isupper()]
    assert (
        " ".join(words[:3] if words[1] in ("exp", "queue", "metrics", "plots") else words[:2])
        in tests
    )


@pytest.mark.parametrize("command", PLAIN)
def test_other_commands_are_those_of_the_set_up(command: str) -> None:
    assert command.startswith(SHELL)
    if command.startswith("make "):
        assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_readme_is_a_page_that_one_reads() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [x for x in re.findall(r"\]\(([^)]+)\)", text) if not x.startswith("https://")]
    assert all((page.parent / name).exists() for name in links)
    assert not re.search(r"@[A-Z]+@", text)


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"](docs/{page.name})" in text for page in PAGES[1:])


def test_the_architecture_names_every_file() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    missing = [
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if room(path) not in ("errors", "cli", "__init__", "__main__")
        and path.name != "__init__.py"
        and path.parent.name not in ("sources", "figures", "trackers")
        and f"`{path.stem}`" not in text
    ]
    assert not missing
