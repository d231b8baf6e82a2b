"""dvc.yaml, params.yaml and the stages' code agree."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from imports import ROOT, closure

from robustvae.params import EvaluateSettings

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def _script(stage: str) -> Path:
    return ROOT / "stages" / f"{stage}.py"


def test_the_stages_are_those_of_the_design() -> None:
    names = [
        "download",
        "preprocess",
        "contaminate",
        "corrupt",
        "train",
        "evaluate",
        "attack",
        "foreign",
        "sample",
        "plot",
        "report",
    ]
    assert list(STAGES) == names
    assert {p.stem for p in (ROOT / "stages").glob("*.py")} == {"__init__", *names}


MOST = 9  # code dependencies of a stage


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_rooms_or_files_that_the_stage_imports(stage: str) -> None:
    listed = {d for d in STAGES[stage]["deps"] if d.startswith(("src/", "stages/"))}
    assert len(listed) <= MOST
    needed = {path.relative_to(ROOT).as_posix() for path in closure(_script(stage))}
    needed.add(f"stages/{stage}.py")
    needed |= {n.replace(".py", ".html") for n in needed if n.endswith("/page.py")}  # its template
    unlisted = {n for n in needed if not any(_holds(dep, n) for dep in listed)}
    idle = {dep for dep in listed if not any(_holds(dep, n) for n in needed)}
    assert not unlisted, f"imported but not listed in dvc.yaml: {unlisted}"
    assert not idle, f"listed in dvc.yaml but not imported: {idle}"


# A folder of plugins/ that a stage need not list, though it imports the table, and why.
ELSEWHERE = {
    ("train", "corruptions"),  # what train.mixture names is said in data/contaminated, a dependency
    ("contaminate", "data"),  # of data sets it reads folders alone
    ("plot", "robustness"),  # it draws what evaluate wrote
    *((stage, "robustness") for stage in ("attack", "foreign", "sample")),  # they use no metric
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_plug_ins_of_the_tables_that_it_uses(stage: str) -> None:
    listed = {d.removeprefix("plugins/") for d in STAGES[stage]["deps"] if d.startswith("plugins")}
    tables = {path.parent.name for path in closure(_script(stage)) if path.stem == "catalogue"}
    drawn = {"figures"}  # a catalogue of figures, which no plug-in extends
    assert listed == {room for room in tables - drawn if (stage, room) not in ELSEWHERE}
    assert all((ROOT / "plugins" / room).is_dir() for room in listed)


def _holds(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


def _uses(path: Path) -> set[str]:
    """The places of params.yaml that a stage reads: `settings.a.b`."""
    tree = next(
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and "params.load()" in ast.unparse(node)
    )
    start = {"settings": ""}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            root, names = _chain(node.value)
            if root == "params.load()" and node.targets[0].id == "settings":
                start["settings"] = names
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {start["settings"]} - {""}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            root, names = _chain(node)
            if root == "params.load()" or (root == "settings" and not start["settings"]):
                found.add(names)
    return found


def _chain(node: ast.AST) -> tuple[str, str]:
    """`x.a.b` as ("x", "a.b")."""
    names: list[str] = []
    while isinstance(node, ast.Attribute) and ast.unparse(node) != "params.load":
        names.insert(0, node.attr)
        node = node.value
    return ast.unparse(node), ".".join(names)


def _of_data() -> set[str]:
    """What preprocessing reads of the section `data`, which its stage hands over whole."""
    tree = ast.parse((ROOT / "src/robustvae/data/prepare.py").read_text())
    chains = [_chain(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {f"data.{names}" for root, names in chains if root == "data"}


def _of_evaluate() -> set[str]:
    """What the code behind the stage evaluate reads of its section, which is handed over whole."""
    chains = set()
    for name in ("evaluation", "measure", "bounds"):
        tree = ast.parse((ROOT / f"src/robustvae/robustness/{name}.py").read_text())
        chains |= {_chain(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    fields = EvaluateSettings.model_fields
    return {f"evaluate.{names}" for root, names in chains if root == "settings" and names in fields}


def _covers(listed: str, used: str) -> bool:
    return used == listed or used.startswith(f"{listed}.")


@pytest.mark.parametrize("stage", STAGES)
def test_listed_params_are_those_that_the_stage_reads(stage: str) -> None:
    listed, used = set(STAGES[stage]["params"]), _uses(_script(stage))
    if "data" in used:
        used = used - {"data"} | _of_data()
    if "evaluate" in used:
        used = used - {"evaluate"} | _of_evaluate()
    unlisted = {u for u in used if not any(_covers(entry, u) for entry in listed)}
    unread = {entry for entry in listed if not any(_covers(entry, u) for u in used)}
    assert not unlisted, f"read but not listed in dvc.yaml: {unlisted}"
    assert not unread, f"listed in dvc.yaml but not read: {unread}"


def test_no_plain_out_switches_the_run_cache_off() -> None:
    for stage in STAGES.values():
        for out in stage.get("outs", []):
            options = next(iter(out.values())) if isinstance(out, dict) else {}
            assert options.get("cache", True)
            assert not options.get("persist", False)


def test_every_out_that_dvc_caches_is_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for stage in STAGES.values():
        for out in stage.get("outs", []):
            name = next(iter(out)) if isinstance(out, dict) else out
            assert any(name.startswith(i.strip("/")) for i in ignored if i.startswith("/")), name
