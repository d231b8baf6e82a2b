"""What params.yaml may say, and the exact text that each mistake gets."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, overlay

from robustvae import params
from robustvae.cli import params as documents
from robustvae.errors import UserError
from robustvae.params import rules
from robustvae.params.parts import TABLES
from robustvae.params.yaml12 import parse, read

CORRUPTIONS = ", ".join(TABLES["corruption"])
MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("unknown key", {"train.epoch": 3}, "train.epoch: no such setting (did you mean 'epochs'?)"),
    ("unknown section", {"los": 1}, "los: no such setting (did you mean 'loss'?)"),
    ("wrong type", {"train.epochs": "ten"}, "train.epochs: must be an integer, got 'ten'"),
    ("no silent rounding", {"train.epochs": 2.5}, "train.epochs: must be an integer, got 2.5"),
    ("bool is no number", {"loss.alpha": True}, "loss.alpha: must be a number or null, got true"),
    ("not finite", {"loss.beta": float("nan")}, "loss.beta: must be a finite number, got nan"),
    ("word for a bool", {"run.deterministic": "off"}, "run.deterministic: must be true or false, got 'off'"),
    ("out of range", {"train.lr": 0.0}, "train.lr: must be > 0, got 0.0"),
    ("number or word", {"train.grad_clip": -1}, "train.grad_clip: must be > 0 or auto or null, got -1"),
    ("image too small", {"preprocess.image_size": 4}, "preprocess.image_size: must be >= 8 or auto, got 4"),
    ("section given a value", {"run": 5}, "run: must be a section with keys, got 5"),
    (
        "unknown data set",
        {"data.name": "minst"},
        "data.name: unknown 'minst' (did you mean 'mnist'?), one of mnist-5k, digits, mnist, fashion-mnist, kmnist, "
        "cifar10, cifar100, celeba, folder",
    ),
    (
        "capital letters",
        {"data.name": "MNIST"},
        "data.name: unknown 'MNIST' (did you mean 'mnist'?), one of mnist-5k, digits, mnist, fashion-mnist, kmnist, "
        "cifar10, cifar100, celeba, folder",
    ),
    ("capital letters in a key", {"train.Epochs": 3}, "train.Epochs: no such setting (did you mean 'epochs'?)"),
    ("word where null is meant", {"train.grad_clip": "off"}, "train.grad_clip: unknown 'off', one of auto, a number, null"),
    (
        "unknown corruption",
        {"corruptions.names": ["fog", "strip"]},
        f"corruptions.names.1: unknown 'strip' (did you mean 'stripe'?), one of {CORRUPTIONS}",
    ),
    (
        "unknown divergence",
        {"loss.divergence": "gama"},
        "loss.divergence: unknown 'gama' (did you mean 'gamma'?), one of auto, alpha, renyi, gamma, t3",
    ),
    ("corruption twice", {"corruptions.names": ["fog", "fog"]}, "corruptions.names: fog stands there twice; remove one"),
    ("severity too high", {"corruptions.severities": [1, 7]}, "corruptions.severities.1: must be <= 5, got 7"),
    ("df of 1", {"loss.df": 1}, "loss.df: 0 switches it off; otherwise must be > 2 (second moments), got 1"),
    ("df too high", {"loss.df": 1e9}, "loss.df: must be <= 1e8, got 1e+09; use 0 for the Gaussian limit"),
    (
        "df and alpha",
        {"loss.df": 3.0, "loss.alpha": 0.5},
        "loss.alpha: has no effect when loss.df > 2; remove one of them (got alpha 0.5, df 3.0)",
    ),
    ("negative beta", {"loss.beta": -0.5}, "loss.beta: must be >= 0, got -0.5"),
    (
        "renyi at 0",
        {"loss.divergence": "renyi", "loss.alpha": 0.0},
        "loss.alpha: must be > 0 for renyi (the divergence vanishes at 0), got 0",
    ),
    ("alpha with df", {"loss.divergence": "alpha", "loss.df": 3}, "loss.divergence: alpha needs loss.df 0 (Gaussian latents), got 3"),
    ("gamma without df", {"loss.divergence": "gamma"}, "loss.divergence: gamma needs loss.df > 2, got 0"),
    (
        "t3 with a learned sigma",
        {"loss.divergence": "t3", "loss.df": 3},
        "loss.divergence: t3 needs a Gaussian decoder with fixed sigma (model.likelihood: student_t, or gaussian "
        "with variance fixed) and the standard prior; for other decoders use gamma",
    ),
    (
        "alpha infinite within the bound",
        {"loss.alpha": 2.0, "model.logvar_bound": 3.0},
        "loss.alpha: infinite for logvar >= 0.6931; bound it below that (model.logvar_bound: auto), "
        "got alpha 2, logvar_bound 3",
    ),
    ("capacity range", {"loss.capacity": {"weight": 10.0, "start": 5.0, "max": 1.0}}, "loss.capacity.max: must be >= start, got max 1, start 5"),
    (
        "capacity with beta",
        {"loss.capacity.weight": 10.0, "loss.beta": 2.0},
        "loss.capacity: defined for KL only: it needs loss.alpha 1, loss.df 0 and loss.beta 1 (got alpha 1, df 0, beta 2)",
    ),
    ("prior length", {"loss.prior.mu": [1.0, 2.0]}, "loss.prior.mu: must be one number or model.latent_dim (16) of them, got 2"),
    ("prior of text", {"loss.prior.mu": "x"}, "loss.prior.mu: must be a number or a list, got 'x'"),
    (
        "vq with df",
        {"model.latent.name": "vq", "loss.df": 3.0},
        "model.latent.name: vq has a codebook in place of a divergence; leave loss.divergence auto, loss.alpha 1 and loss.df 0",
    ),
    (
        "folder without a size",
        {"data.name": "folder"},
        "preprocess.image_size: a folder of images has no size of its own; give the side in pixels, e.g. 64",
    ),
    (
        "official without MNIST",
        {"corruptions.source": "official"},
        "corruptions.source: official is MNIST-C, which belongs to data.name mnist at 28 pixels, got mnist-5k at 28; use generate",
    ),
    ("steps without milestones", {"train.scheduler.name": "step"}, "train.scheduler.milestones: step needs at least one epoch, e.g. [50, 80], got []"),
    ("warm-up too long", {"train.scheduler.name": "cosine", "train.scheduler.warmup": 30}, "train.scheduler.warmup: must be below train.epochs (25), got 30"),
    ("noise without a kind", {"train.input_noise": {"name": "none", "amount": 0.5}}, "train.input_noise.amount: has no effect with name none, got 0.5; set name to dropout or gaussian"),
    ("more than all pixels", {"train.input_noise": {"name": "dropout", "amount": 1.5}}, "train.input_noise.amount: dropout is a probability, 0 .. 1, got 1.5"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_each_mistake_gets_its_line(
    changes: dict[str, Any], text: str, default_params: dict[str, Any]
) -> None:
    with pytest.raises(UserError) as caught:
        params.check(overlay(default_params, changes))
    assert str(caught.value) == f"params.yaml: {text}"


def test_an_architecture_that_cannot_divide_the_image_is_refused(
    default_params: dict[str, Any],
) -> None:
    with pytest.raises(UserError, match=r"model\.architecture\.depth: .*28 pixels") as caught:
        params.check(overlay(default_params, {"model.architecture.depth": 3}))
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(default_params: dict[str, Any]) -> None:
    content = overlay(default_params, {})
    del content["loss"]["beta"]
    with pytest.raises(UserError, match=r"params.yaml: loss.beta: missing"):
        params.check(content)


def test_every_mistake_is_reported_at_once(default_params: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        params.check(overlay(default_params, {"train.lr": -1, "train.epoch": 1, "data.name": "x"}))
    assert len(str(caught.value).splitlines()) == 3


def test_alpha_above_one_without_a_bound_warns(make_params: Callable[..., Any]) -> None:
    settings = make_params({"loss.alpha": 2.0})
    (text,) = rules.cautions(settings.loss, settings.model)
    assert text.startswith(
        "loss.alpha 2: the divergence is infinite once a log-variance is >= 0.6931"
    )
    bounded = make_params({"loss.alpha": 2.0, "model.logvar_bound": "auto"})
    assert rules.cautions(bounded.loss, bounded.model) == []


def test_only_params_yaml_is_looked_for_in_the_projects_folder() -> None:
    for name, way_out in (
        ("params.yaml", "run in the project's folder"),
        ("recipes/mine.yaml", "name a YAML file that is there"),
    ):
        with pytest.raises(UserError) as caught:
            read(f"nowhere/{name}")
        expected = f"nowhere/{name}: cannot be read (No such file or directory); {way_out}"
        assert str(caught.value) == expected


@pytest.mark.parametrize("text", ["1e-5", "1e-05", "0.00001", "1.0e-05", "1.e-5", ".1e-4"])
def test_all_spellings_of_a_number_are_one_value(text: str) -> None:
    assert parse(f"lr: {text}") == {"lr": 1e-5}


@pytest.mark.parametrize(
    "text",
    [
        "off",
        "on",
        "yes",
        "no",
        "010",
        "1e3",
        "12:30",
        "2024-01-01",
        "~",
        "0x1F",
        "0o17",
        "-.inf",
        "1.",
        "''",
    ],
)
def test_yaml_is_read_as_dvc_reads_it(text: str) -> None:
    from ruamel.yaml import YAML

    ours, theirs = parse(f"key: {text}")["key"], YAML(typ="safe").load(f"key: {text}")["key"]
    assert (ours == theirs and type(ours) is type(theirs)) or str(theirs) == ours  # dates stay text


@pytest.mark.parametrize(
    ("content", "text"),
    [("a: [1", "not valid YAML"), ("- 1", "must hold sections"), (None, "cannot be read")],
)
def test_a_file_that_is_no_mapping_is_refused(
    tmp_path: Path, content: str | None, text: str
) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=text):
        params.load(path)


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        k: v
        for key, value in node.items()
        for k, v in _leaves(value, f"{prefix}.{key}".strip(".")).items()
    }


def test_every_key_has_a_comment(default_params: dict[str, Any]) -> None:
    documented = documents.documented(ROOT / "params.yaml")
    silent = [key for key in _leaves(default_params) if not documented[key][1]]
    assert silent == ["report.title"]


def test_params_yaml_is_as_dvc_writes_it(tmp_path: Path) -> None:
    """So that `dvc exp run -S` changes the one line that it is about."""
    from dvc.utils.serialize import modify_yaml

    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    with modify_yaml(path) as content:
        content["loss"]["df"] = 3.0
    lines = zip(
        path.read_text().splitlines(), (ROOT / "params.yaml").read_text().splitlines(), strict=True
    )
    assert [line.split("#")[0].strip() for line, old in lines if line != old] == ["df: 3.0"]


def test_the_schema_and_the_table_are_up_to_date() -> None:
    assert (ROOT / "params.schema.json").read_text() == documents.schema(ROOT / "params.yaml")
    assert (ROOT / documents.DEFAULTS).read_text() == (ROOT / "params.yaml").read_text()
    assert (ROOT / "docs/parameters.md").read_text() == documents.table(ROOT / "params.yaml")


def test_the_schema_knows_the_words_and_ranges() -> None:
    schema = json.loads((ROOT / "params.schema.json").read_text())
    data, train = schema["$defs"]["DataSettings"], schema["$defs"]["TrainSettings"]
    assert data["properties"]["name"]["enum"] == list(TABLES["dataset"])
    assert train["properties"]["lr"]["exclusiveMinimum"] == 0
    assert data["additionalProperties"] is False


def test_a_stale_table_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = map(str, (documents.SCHEMA, documents.TABLE, documents.DEFAULTS))
    for name in ("params.yaml", *written):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(re.sub("integer >= 1", "integer >= one", text))
    monkeypatch.chdir(tmp_path)
    from robustvae.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["params"])
    assert caught.value.code == 2
    main(["params", "--write"])
    main(["params"])


def test_params_yaml_survives_being_written_by_pyyaml(default_params: dict[str, Any]) -> None:
    assert params.check(yaml.safe_load(yaml.safe_dump(default_params))) == params.check(
        default_params
    )


@pytest.mark.parametrize("path", [None, *sorted((ROOT / "recipes").glob("*.yaml"))], ids=str)
def test_numbers_that_come_along_are_spelled_as_dvc_will_find_them_again(path: Path | None) -> None:
    content = params.overlay(read(ROOT / "params.yaml"), read(path) if path else {})
    assert params.spellings(content, params.check(content)) == []


def test_another_spelling_of_a_number_is_named(default_params: dict[str, Any]) -> None:
    content = overlay(
        default_params,
        {"loss.df": 3, "model.latent_dim": 2, "loss.prior.mu": [0, 1.0], "train.lr": 1e-3},
    )
    first, second = params.spellings(content, params.check(content))
    assert first.startswith("loss.df: write 3.0 for 3; the same number, but another run to DVC")
    assert second.startswith("loss.prior.mu: write [0.0, 1.0] for [0, 1.0]; ")
