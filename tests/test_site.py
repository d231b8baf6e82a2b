"""What is shown of the library: examples that run, the tour, a site that needs no network."""

import contextlib
import doctest
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

import robustvae

TOUR = ROOT / "docs" / "tour.ipynb"
BUILDS = importlib.util.find_spec("mkdocs") and importlib.util.find_spec("mkdocstrings")


def public() -> dict[str, Any]:
    """Every public name, with the members of public modules."""
    found: dict[str, Any] = {}
    for name in robustvae.__all__:
        item = getattr(robustvae, name)
        if isinstance(item, ModuleType):
            members = inspect.getmembers(item, lambda m: inspect.isclass(m) or inspect.isroutine(m))
            if name != "register":  # docs/plugins.md has an example of each, which tests run
                found |= {f"{name}.{n}": m for n, m in members
                          if n[0] != "_" and m.__module__ == item.__name__}  # fmt: skip
        elif not name.startswith("__"):
            found[name] = item
    return found


@pytest.mark.parametrize(("name", "item"), public().items(), ids=public())
def test_the_example_of_a_public_name_runs(name: str, item: Any) -> None:
    where = inspect.getmodule(item)
    text = inspect.getdoc(item) or ""
    tests = doctest.DocTestParser().get_doctest(text, {}, name, where and where.__file__, 0)
    run = [e for e in tests.examples if doctest.SKIP not in e.options]
    assert run, f"robustvae.{name}: give its docstring an example, as others have: >>> ..."
    said = io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()):  # progress
        doctest.DocTestRunner(verbose=False).run(tests, out=said.write)
    assert not said.getvalue(), said.getvalue()


def cells(kind: str) -> list[Any]:
    return [c for c in json.loads(TOUR.read_text())["cells"] if c["cell_type"] == kind]


def test_the_tour_is_kept_with_its_output() -> None:
    text, outputs = TOUR.read_text(), [o for c in cells("code") for o in c["outputs"]]
    assert len(text) < 1e6
    assert all(cell["execution_count"] for cell in cells("code"))
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 4
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(home|root|tmp|work|Users|usr|opt)/", text)


@pytest.mark.slow
def test_the_tour_runs(tmp_path: Path) -> None:
    code = "\n".join("".join(cell["source"]) for cell in cells("code"))
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert not list(tmp_path.iterdir())


class Loaded(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.found += [given[k] for k in ("src", "srcset", "poster", "data") if k in given]
        if tag == "link":
            self.found.append(given.get("href", ""))
        self.found += re.findall(r"url\(([^)]*)\)", given.get("style", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, str(out)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.mark.slow
@pytest.mark.skipif(not BUILDS, reason="`make site` installs what it needs")
def test_no_request_leaves_the_site(site: Path) -> None:
    pages, sheets = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > 12
    assert sheets
    assert "tour.html" in {page.name for page in pages}
    for page in (p for p in pages if p.name != "404.html"):  # which no reader of a folder meets
        fetched = Loaded(page.read_text()).found
        assert not [f for f in fetched if re.match(r"\s*['\"]?(\w+:)?//", f)], page
        here = [f.partition("?")[0] for f in fetched if not f.startswith(("data:", "#"))]
        assert all((page.parent / f).exists() for f in here if f), page
    for sheet in sheets:
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", sheet.read_text()), sheet


@pytest.mark.slow
@pytest.mark.skipif(not BUILDS, reason="`make site` installs what it needs")
def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "reference.html").read_text()
    missing = [name for name, item in public().items()
               if f'id="{item.__module__}.{name.rpartition(".")[2]}"' not in text
               and f'id="robustvae.{name}"' not in text]  # fmt: skip
    assert not missing
