"""The site's pages that no file holds: made of the README, the guide, the code, the notebook."""

import json
import re
from html import escape
from inspect import getdoc
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import robustvae
from robustvae.corruptions import CORRUPTIONS, FIFTEEN

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.M)


class Fenced(griffe.Extension):
    """Examples of docstrings as blocks of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Without the remarks that doctest alone reads."""
        if obj.docstring:
            text = re.sub(r"  # doctest: .*", "", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them."""
    pages = {
        "index.md": (ROOT / "README.md").read_text().replace("](docs/", "]("),
        "tour.md": tour(json.loads((ROOT / "docs/tour.ipynb").read_text())),
        "corruptions.md": corruptions((ROOT / "docs/guide.md").read_text()),
        "reference.md": reference(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def reference() -> str:
    """Every public name with its signature and docstring."""
    lines = ["# Reference", "Every name of `import robustvae as rv`."]
    for name in robustvae.__all__:
        public = getattr(robustvae, name)
        if isinstance(public, ModuleType):
            lines.append(f"::: {public.__name__}")
        elif not name.startswith("_"):
            lines.append(f"::: robustvae.{name}")
    return "\n\n".join(lines)


def corruptions(guide: str) -> str:
    """What the guide says of them, and a row for each."""
    section = re.search(r"^## Only the corruptions\n(.*?)^## ", guide, re.M | re.S)
    assert section, "docs/guide.md has no section on corruptions"
    rows = ["| name | group | severity of MNIST-C | what it does |", "|---|---|---|---|"]
    for name, entry in CORRUPTIONS.items():
        said = (getdoc(entry.function) or "").partition("\n\n")[0].replace("\n", " ")
        default = str(entry.default) if name in FIFTEEN else f"{entry.default} (an extra)"
        rows.append(f"| `{name}` | {entry.group} | {default} | {said} |")
    return "\n".join(["# Corruptions", section[1], *rows])


def tour(notebook: dict[str, Any]) -> str:
    """The notebook with its output."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        parts += [_shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts)


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        return f'<img alt="what the cell above draws" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        return f'<div style="overflow-x: auto">{"".join(data["text/html"])}</div>'
    return f"<pre>{escape(''.join(data['text/plain']))}</pre>"
