"""Write params.schema.json, docs/parameters.md and the package's defaults, from params.yaml.

Example: python -m robustvae params --write
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from robustvae import params
from robustvae.errors import UserError
from robustvae.params.loading import flatten
from robustvae.params.yaml12 import read

PARAMS, SCHEMA, TABLE = Path("params.yaml"), Path("params.schema.json"), Path("docs/parameters.md")
DEFAULTS = Path("src/robustvae/params/defaults.yaml")  # for those who have the package alone
HEAD = """# Parameters

Editors check `params.yaml` against `params.schema.json`. A mistake stops before any work,
one line each:

```
params.yaml: train.epoch: no such setting (did you mean 'epochs'?)
params.yaml: loss.df: 0 switches it off; otherwise must be > 2 (second moments), got 1
```
"""
LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# (?P<comment>.*))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Without --write it only says whether they are up to date."""
    parser.add_argument("--write", action="store_true", help="write them (default: only check)")


def run(args: argparse.Namespace) -> None:
    """Write the files, or fail when one is stale."""
    wanted = {SCHEMA: schema(PARAMS), TABLE: table(PARAMS), DEFAULTS: PARAMS.read_text()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if args.write:
        for path in stale:
            path.write_text(wanted[path])
    elif stale:
        raise UserError(
            f"{', '.join(map(str, stale))}: stale; run `python -m robustvae params --write`"
        )


def documented(path: Path) -> dict[str, tuple[str, str]]:
    """Dotted key -> (default as written, comment), in the order of params.yaml."""
    found: dict[str, tuple[str, str]] = {}
    parents: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        if not (match := LINE.fullmatch(line)):
            continue
        indent = len(match["indent"])
        parents = [(level, key) for level, key in parents if level < indent]
        parents.append((indent, match["key"]))
        dotted = ".".join(key for _, key in parents)
        found[dotted] = (match["value"].strip(), (match["comment"] or "").strip())
    empty = [key for key, value in flatten(read(path)).items() if value is None]
    return found | {key: ("null", found[key][1]) for key in empty}  # DVC writes null as nothing


def schema(path: Path) -> str:
    """JSON schema of params.yaml, with its comments as descriptions, for editors."""
    content = params.Params.model_json_schema()
    for dotted, (_, comment) in documented(path).items():
        *sections, key = dotted.split(".")
        node = content
        for section in sections:
            node = node["properties"][section]
            if "$ref" in node:  # settings of a plug-in's own have none
                node = content["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        if comment:
            node["properties"][key]["description"] = comment
    content["title"] = "params.yaml of robustvae"
    return json.dumps(_without_titles(content), indent=1, ensure_ascii=False) + "\n"


def _without_titles(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        k: v for k, v in node.items() if not (k == "title" and v != "params.yaml of robustvae")
    }
    if "properties" in node:  # a property may be called title
        plain["properties"] = {k: _without_titles(v) for k, v in node["properties"].items()}
        return {k: v if k == "properties" else _without_titles(v) for k, v in plain.items()}
    return {k: _without_titles(v) for k, v in plain.items()}


def table(path: Path) -> str:
    """The page of all parameters, in Markdown."""
    rows = [HEAD, "| parameter | default | what it does, allowed values |", "|---|---|---|"]
    for dotted, (default, comment) in documented(path).items():
        if comment:
            shown = f"`{default}`" if default else ""
            rows.append(f"| `{dotted}` | {shown} | {comment.replace(' | ', ', ')} |")
    return "\n".join(rows) + "\n"
