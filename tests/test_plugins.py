"""Plug-ins: what docs/plugins.md shows works as written; each mistake gets one line."""

import doctest
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, copy_project, overlay
from test_pipeline import Project

import robustvae as rv
from robustvae import params
from robustvae.api import testing
from robustvae.cli import main
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import plugins, register
from robustvae.params.parts import TABLES

PAGE = (ROOT / "docs/plugins.md").read_text()
EXAMPLES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S))
RAIN, JEFFREYS = "plugins/corruptions/rain.py", "plugins/models/jeffreys.py"
NAMED = {  # every example of the page, in one run
    "data.name": "bars",
    "corruptions.names": ["rain", "fog"],
    "corruptions.rain": {"length": 3},
    "model.latent_dim": 4,
    "model.architecture.name": "linear",
    "model.likelihood.name": "logistic",
    "model.latent.name": "isotropic",
    "loss.divergence": "jeffreys",
    "loss.jeffreys": {"share": 0.8},
    "loss.robust": {"name": "cauchy", "strength": 3.0, "after": 1.0},
    "evaluate.metrics": ["e_den", "delta_elbo", "edges"],
}
SMALL = {"train.epochs": 2, "evaluate.iwae_samples": 4, "evaluate.iwae_images": 20,
         "evaluate.attacks.images": 4, "evaluate.attacks.steps": 2, "evaluate.samples.images": 20,
         "plots.examples": 4, "plots.dpi": 60, "plots.vector": "none"}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project, from here; what it registers is forgotten after the test."""
    for table in TABLES.values():
        monkeypatch.setattr(table, "parts", dict(table.built_in()))
    monkeypatch.setattr(plugins, "_done", set(plugins._done))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("robustvae_plugin_")]:
        del sys.modules[name]


def write(project: Path, *names: str, **more: str) -> None:
    for name, text in ({name: EXAMPLES[name] for name in names} | more).items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises(rv.UserError) as error:
        params.complete(changes)
    return str(error.value).removeprefix("settings: ")


def test_the_page_has_an_example_of_each_kind_and_they_obey_their_laws(project: Path) -> None:
    write(project, *EXAMPLES)
    test = EXAMPLES["tests/test_mine.py"]
    assert re.findall(r"check_(\w+)", test) == [
        "corruption", "divergence", "likelihood", "latent", "net", "robust", "dataset", "metric",
    ]  # fmt: skip
    assert set(re.findall(r"check_(\w+)", test)) == set(TABLES)
    space: dict[str, Any] = {}
    exec(test, space)
    space["test_mine"]()


@pytest.mark.parametrize("module", [register, testing], ids=lambda module: module.__name__)
def test_examples_run_as_they_are_written(project: Path, module: Any) -> None:
    found = doctest.testmod(module, extraglobs={"rv": rv})
    assert found.attempted
    assert not found.failed


def test_names_are_known_everywhere(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, *EXAMPLES)
    settings = params.complete(NAMED)
    assert settings.corruptions.own("rain") == {"length": 3}
    assert settings.side == 16
    main(["parts", "corruption", "divergence"])
    said = capsys.readouterr().out
    assert "\n  rain               Bright streaks down the image; settings length [" in said
    assert f"KL(p || q); settings share [{JEFFREYS}]" in said
    x = torch.zeros(2, 16, 16, dtype=torch.uint8)
    assert rv.corrupt(x, "rain", 5).max() == 200
    assert not torch.equal(rv.corrupt(x, "rain", 5), rv.corrupt(x, "rain", 5, length=1))
    main(["corrupt", "--list"])
    assert "rain               overlay" in capsys.readouterr().out
    main(["params", "--write"]) if Path("docs").mkdir() else None


def test_they_are_fitted_measured_and_loaded_from_a_notebook(project: Path) -> None:
    write(project, *EXAMPLES)
    x = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    changes = {k: v for k, v in NAMED.items() if not k.startswith(("data.", "corruptions"))}
    vae = rv.fit(x, changes | {"train.epochs": 1, "train.batch_size": 32}, seed=0)
    vae.save(project / "mine")
    result = rv.evaluate(rv.load(project / "mine"), x[:20], names=["rain"], settings=changes)
    of_model, identity = (result.table[result.table["method"] == m].iloc[-1]
                          for m in ("model", "identity"))  # fmt: skip
    assert of_model["corruption"] == "rain"
    assert of_model["edges"] > 0 < identity["edges"]
    assert of_model["edges_se"] > 0
    assert ">edges</button>" in result.report(project / "page.html").read_text()
    errors = {
        rv.evaluate(lambda x: x, x, names=["rain"], settings=own).headline["e_den"]
        for own in (None, {"corruptions.rain.length": 9})
    }
    assert len(errors) == 2


def test_a_schema_of_the_project_has_its_words_and_settings(project: Path) -> None:
    from robustvae.cli import params as documents

    write(project, RAIN)
    text = (project / "params.yaml").read_text()
    own = "corruptions:\n  rain:\n    length: 4              # pixels of a streak\n"
    (project / "params.yaml").write_text(text.replace("corruptions:\n", own))
    section = json.loads(documents.schema(Path("params.yaml")))["$defs"]["CorruptionSettings"]
    assert "rain" in section["properties"]["names"]["items"]["enum"]
    length = section["properties"]["rain"]["properties"]["length"]
    assert (length["type"], length["description"]) == ("integer", "pixels of a streak")
    assert section["additionalProperties"] is False
    assert "| `corruptions.rain.length` | `4` | pixels" in documents.table(Path("params.yaml"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corruptions.names": ["rian"]},
         r"corruptions.names.0: unknown 'rian' \(did you mean 'rain'\?\), one of shot_noise, .*"),
        ({"loss.divergence": "jefreys"},
         r"loss.divergence: unknown 'jefreys' \(did you mean 'jeffreys'\?\), one of auto, .*"),
        ({"loss.jeffreys": {"shre": 1.0}},
         r"loss.jeffreys.shre: no such setting \(did you mean 'share'\?\)"),
        ({"loss.jeffreys": {"share": "x"}}, "loss.jeffreys.share: must be a number, got 'x'"),
        ({"loss.jeffreys": 1}, "loss.jeffreys: must be a section with keys, got 1"),
        ({"corruptions.fog": {"length": 1}}, "corruptions.fog: no such setting"),
        ({"loss.divergence": "jeffreys", "loss.df": 3.0},
         r"loss.divergence: jeffreys needs loss.df 0 \(Gaussian latents\), got 3"),
        ({"loss.divergence": "jeffreys", "loss.alpha": 0.5},
         "loss.alpha: has no effect with jeffreys; use 1 or null, got 0.5"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_wrong_settings_get_one_line(project: Path, changes: dict[str, Any], said: str) -> None:
    write(project, RAIN, JEFFREYS)
    assert re.fullmatch(said, refused(changes))


DOOR = "import robustvae as rv\n\n@rv.register.corruption({})\ndef f({}): return images\n"
HOW = "group='noise', severities=(1, 2, 3, 4, 5)"
BROKEN = [
    ("import robustvae as rv\n\nx = 1 / 0\n", "3: ZeroDivisionError: division by zero"),
    ("x = (1\n", "1: SyntaxError: '(' was never closed"),
    (DOOR.format(f"'fog', {HOW}", "images, amount, rng"),
     "3: corruption 'fog': there is one already (built-in); choose another name"),
    (DOOR.format(f"'my rain', {HOW}", "images, amount, rng"),
     "3: corruption 'my rain': must be a word of letters, digits and _, and none of auto, none"),
    (DOOR.format(f"'clean', {HOW}", "images, amount, rng"), "3: corruption 'clean': must be a"),
    (DOOR.format(f"'rain', {HOW}", "images"),
     "3: corruption 'rain': must take (images, amount, rng), got (images)"),
    (DOOR.format("'rain', group='wet', severities=(1, 2)", "images, amount, rng"),
     "3: corruption 'rain': needs a group of noise, blur"),
    (DOOR.format(f"'rain', {HOW}", "images, amount, rng, *, how"),
     "3: corruption 'rain': must take (images, amount, rng), got (images, amount, rng, how)"),
    ("import robustvae as rv\n\nrv.register.divergence('d', lambda a, b, c, d: a)\n",
     "3: divergence 'd': belongs into plugins/models, where DVC looks"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=lambda value: value[-40:])
def test_a_plug_in_that_fails_is_one_line_with_its_file_and_line(
    project: Path, text: str, said: str
) -> None:
    write(project, **{RAIN: text})
    for _ in range(2):  # and again: nothing of it stays
        line = refused({"corruptions.names": ["rian"]})
        assert line.startswith(f"corruptions: {RAIN}, line {said}")
        assert line.count("\n") == 0
    params.complete()  # what names no plug-in is not held up


class NEEDS:
    def __init__(self, sigma, width): ...

    def score(self, x, out, z, dtype): ...

    def sample(self, out, z): ...


def test_a_file_in_no_room_is_not_overlooked(project: Path) -> None:
    write(project, **{"plugins/rain.py": ""})
    line = refused({"corruptions.names": ["rain"]})
    assert line.endswith("plugins/rain.py: belongs into the folder of its room, "
                         "plugins/corruptions or another")  # fmt: skip


@pytest.mark.parametrize(
    ("door", "code", "said"),
    [
        (rv.register.metric("m"), lambda x, y: x, r"metric 'm': must take \(pair\), got \(x, y\)"),
        (rv.register.metric("m"), object, r"metric 'm': must be a function \(pair\), no class"),
        (rv.register.net("n"), lambda g: g, "net 'n': must be a class with encoder, decoder"),
        (rv.register.net("n"), object, r"net 'n': needs a method encoder\(g, channels\)"),
        (rv.register.divergence("d", student_t=True), lambda mu: mu, "be a class with formula"),
        (rv.register.latent("l"), type("L", (), {}), r"latent 'l': needs a method forward\(h\)"),
        (rv.register.likelihood("l"), NEEDS, "likelihood 'l': its setting width needs a default"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_once(door: Any, code: Any, said: str) -> None:
    with pytest.raises(rv.UserError, match=said):
        door(code)


def test_a_corruption_must_return_what_it_was_given(project: Path) -> None:
    door = rv.register.corruption("dim", group="noise", severities=(1, 2, 3, 4, 5))
    door(lambda images, amount, rng: images / 2)
    with pytest.raises(rv.UserError, match=r"must return uint8 .* got torch.float32"):
        rv.corrupt(torch.zeros(1, 8, 8, dtype=torch.uint8), "dim")


def test_parts_must_give_one_value_per_image(project: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    small = {"model.architecture.name": "mlp", "train.epochs": 1}
    rv.register.divergence("flat")(lambda mu, logvar, mu0, logvar0: mu**2)
    with pytest.raises(rv.UserError, match=r"<lambda>: must give \[58\], got \[58, 16\]"):
        rv.fit(x, small | {"loss.divergence": "flat"})
    rv.register.robust("sole", strength="any")(lambda losses, strength: losses.mean())
    robust = {"loss.robust": {"name": "sole", "strength": 1.0, "after": 0.0}}
    with pytest.raises(rv.UserError, match=r"robust 'sole': must give \[58\], got \[\]"):
        rv.fit(x, small | robust)
    rv.register.metric("whole")(lambda pair: {"whole": pair.x.mean()})
    chosen = {"evaluate.metrics": ["e_den", "whole"]}
    with pytest.raises(rv.UserError, match=r"metric 'whole': must give \[64\] of whole, got whole"):
        rv.evaluate(lambda x: x, x, names=["fog"], settings=chosen)
    with pytest.raises(rv.UserError, match="metric 'mine': psnr is one of e_den; rename it"):
        rv.register.metric("mine", quantities=["psnr"])


def test_a_metric_has_its_settings_where_it_is_named(project: Path) -> None:
    rv.register.metric("level", pixels=True)(
        lambda pair, *, power=1.0: {"level": pair.x.flatten(1).mean(1) ** power}
    )
    x = np.full((9, 8, 8), 51, np.uint8)

    def level(*metrics: Any) -> float:
        result = rv.evaluate(lambda x: x, x, names=["fog"], settings={"evaluate.metrics": metrics})
        return float(result.table["level"].iloc[0])

    assert level("level") == level({"level": {}}) == pytest.approx(0.2)
    assert level("e_den", {"level": {"power": 2.0}}) == pytest.approx(0.04)
    assert "'level'" in str(params.Params.model_json_schema())
    for wrong, said in (
        ({"level": {"powr": 2.0}}, "metric 'level': no setting 'powr' (did you mean 'power'?)"),
        ({"level": {"power": "x"}}, "metric 'level': power: Input should be a valid number"),
        ({"level": 3}, "metric 'level': settings must be NAME: VALUE, got 3"),
        ({"e_den": {"power": 2.0}}, "metric 'e_den': no setting 'power', it has none of its own"),
        ({"levle": {}}, "no metric 'levle' (did you mean 'level'?)"),
    ):
        assert said in refused({"evaluate.metrics": ["e_den", wrong]})


def test_a_cell_may_be_run_again(project: Path) -> None:
    for value in (1, 2):
        code = f"def once(losses, strength): return losses * 0 + {value}\n"
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(code, space)
        rv.register.robust("once", strength="any")(space["once"])
    assert TABLES["robust"]["once"](torch.ones(1), 1.0) == 2


def test_a_model_folder_names_its_plug_ins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, JEFFREYS)
    settings = params.complete({"loss.divergence": "jeffreys", "model.architecture.name": "mlp"})
    model = Autoencoder.build(settings.model, settings.loss, (1, 8, 8))
    model_folder.save(model, {}, project / "models")
    content = json.loads((project / "models/config.json").read_text())
    assert content["loss"]["jeffreys"] == {"share": 0.5}
    (entry,) = content["plugins"]
    assert (entry["kind"], entry["name"], entry["origin"]) == ("divergence", "jeffreys", JEFFREYS)
    with warnings.catch_warnings(action="error"):
        assert model_folder.load("models").divergence == model.divergence

    def loaded() -> subprocess.CompletedProcess[str]:
        code = "import robustvae as rv; rv.load('models')"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    write(project, **{JEFFREYS: EXAMPLES[JEFFREYS] + "# other\n"})
    assert Autoencoder.build(settings.model, settings.loss, (1, 8, 8)).plugins() == [entry]
    other = loaded()
    assert other.returncode == 0
    assert f"the divergence 'jeffreys' is not as it was when the model was trained: {JEFFREYS}" in (
        other.stderr
    )
    (project / JEFFREYS).unlink()
    assert loaded().stderr.splitlines()[-1] == (
        "robustvae.errors.UserError: models/config.json: made with the divergence 'jeffreys' of "
        f"{JEFFREYS}, which is missing here; put its file into plugins/models, or install its "
        "package"
    )


def test_entry_points_of_installed_packages(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = project / "site"
    info, module = "robustvae_frost-1.2.dist-info", "robustvae_frost"
    declared = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)[0]
    assert declared == f'[project.entry-points."{plugins.GROUP}"]\nfrost = "{module}"\n'
    write(site, **{
        f"{module}.py": EXAMPLES[RAIN].replace('"rain"', '"frost"'),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: robustvae-frost\nVersion: 1.2\n",
        f"{info}/entry_points.txt": f"[{plugins.GROUP}]\nfrost = {module}\n",
    })  # fmt: skip
    monkeypatch.syspath_prepend(site)
    assert params.complete({"corruptions.names": ["frost"]}).corruptions.own("frost") == {
        "length": 4
    }
    assert TABLES["corruption"].part("frost").origin == "robustvae-frost 1.2"
    rv.testing.check_corruption("frost")
    (site / f"{module}.py").write_text("1 / 0\n")
    code = "import robustvae as rv; rv.corrupt([], 'x')"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "robustvae-frost 1.2: " in done.stderr
    assert f"{module}.py, line 1: ZeroDivisionError" in done.stderr


def test_built_in_names_need_no_torch_and_no_plug_in(project: Path) -> None:
    write(project, **{RAIN: "raise SystemExit(3)\n"})
    code = (
        "import sys\nfrom robustvae import params\nparams.load()\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_parts_of_ones_own_reach_the_report_and_dvc_knows_them(tmp_path: Path) -> None:
    """With the package as it is: nothing inside src/ changes."""
    run = Project(tmp_path / "project", copy_project(tmp_path / "project", tmp_path))
    path = run.folder / "params.yaml"
    mine = {name: text for name, text in EXAMPLES.items() if name.startswith("plugins/")}
    late = mine.pop(RAIN)
    write(run.folder, **mine)
    content = overlay(params.read(path), SMALL | NAMED)
    del content["corruptions"]["rain"]
    content["corruptions"]["names"] = ["fog"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    run("git init -q -b main && git add -A && git commit -qm 'Start'")
    run("dvc repro")
    assert run.status() == {}

    write(run.folder, **{RAIN: late})
    assert set(run.status()) == {"contaminate", "corrupt"}
    path.write_text(yaml.safe_dump(overlay(content, {"corruptions.names": ["rain", "fog"]})))
    said = run("dvc repro")
    ran = re.findall(r"Running stage '(\w+)'", said)
    assert ran == ["contaminate", "corrupt", "evaluate", "plot", "report"]
    page = (run.folder / "reports/report.html").read_text()
    assert "rain 3" in page
    assert "jeffreys-divergence" in page
    assert "edges" in page
    table = (run.folder / "reports/robustness.csv").read_text()
    assert "edges_se" in table.splitlines()[0]
    config = json.loads((run.folder / "models/config.json").read_text())
    assert {p["name"] for p in config["plugins"]} == {
        "linear", "logistic", "isotropic", "jeffreys", "cauchy"
    }  # fmt: skip

    for name, stages in {
        "data/bars": {"download", "preprocess", "foreign"},
        "models/jeffreys": {"train", "evaluate", "attack", "foreign", "sample", "plot"},
        "training/cauchy": {"train"},
        "robustness/edges": {"evaluate"},
    }.items():
        file = run.folder / f"plugins/{name}.py"
        file.write_text(file.read_text() + "# another\n")
        assert set(run.status()) == stages
        file.write_text(file.read_text().removesuffix("# another\n"))
    assert "Queued" in run("dvc exp run --queue -S ++loss.jeffreys.share=0.9")

    # A corruption that training uses reaches it, and only then.
    mixed = {"train.mixture.fraction": 0.5, "train.mixture.corruption": "rain"}
    path.write_text(yaml.safe_dump(overlay(params.read(path), mixed)))
    run("dvc repro train")
    (run.folder / RAIN).write_text(late.replace("min=200", "min=180"))
    said = run("dvc repro train")
    assert re.findall(r"Running stage '(\w+)'", said) == ["contaminate", "train"]
