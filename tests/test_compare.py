"""Statistics over seeds against hand-worked values; experiments compared in a git repository."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, overlay

from robustvae import cli, params
from robustvae.errors import UserError
from robustvae.experiments import page, statistics
from robustvae.robustness import inference

SETS = [
    ("clean", "clean", 0),
    ("noise", "shot_noise", 5),
    ("noise", "impulse_noise", 4),
    ("photometric", "fog", 5),
    ("geometric", "rotate", 2),
]


def errors(*values: float) -> pd.Series:
    index = pd.MultiIndex.from_tuples(SETS, names=["group", "corruption", "severity"])
    return pd.Series(values, index=index)


def estimate(*values: float, scale: float = 0.0) -> dict[str, float]:
    return statistics.estimate(pd.Series(values), scale)


def test_t_interval_by_hand() -> None:
    # mean 2, standard deviation 1, three values; the 97.5 % point of t with 2 degrees is 4.302653.
    found = estimate(1, 2, math.nan, 3)
    assert (found["seeds"], found["mean"]) == (3, 2)
    assert found["low"] == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert found["high"] == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


def test_t_test_by_hand() -> None:
    # t = 2 / (1 / sqrt 3) = 3.4641 with 2 degrees: p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14).
    assert estimate(1, 2, 3)["p"] == pytest.approx(1 - math.sqrt(12 / 14))


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        pytest.param((1.0, 2.0), 0.0, id="two seeds"),
        pytest.param((1.0, 1.0, 1.0), 0.0, id="equal"),
        pytest.param((0.0, 0.0, 0.0), 0.0, id="zero"),
        pytest.param((0.3 - 0.2, 0.4 - 0.3, 0.5 - 0.4), 0.0, id="equal but for rounding"),
        pytest.param((1e-15, 2e-15, 1e-15), 1.0, id="differences that are rounding alone"),
    ],
)
def test_where_nothing_can_be_said_of_the_spread_it_is_not(
    values: tuple[float, ...], scale: float
) -> None:
    found = estimate(*values, scale=scale)
    assert found["mean"] == pytest.approx(sum(values) / len(values))
    assert all(math.isnan(found[name]) for name in ("low", "high", "p"))


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06 and 0.04 * 1 raised to what came before.
    found = inference.holm(pd.Series([0.04, 0.01, math.nan, 0.03, 0.02]))
    assert found.tolist() == pytest.approx([0.06, 0.04, math.nan, 0.06, 0.06], nan_ok=True)
    assert inference.holm(pd.Series([0.9, 0.8])).tolist() == [1, 1]


def test_relative_errors_by_hand() -> None:
    base = errors(0.1, 0.2, 0.4, 0.5, 1.0)
    found = statistics.relative(errors(0.2, 0.1, 0.6, 0.25, 3.0), base)
    # RE: 50 and 150 in noise, 50 in photometric, 300 in geometric.
    assert found["mRE"] == pytest.approx((100 + 50) / 2)
    assert found["geometric_mRE"] == pytest.approx(300)
    # rises: noise (-0.1 + 0.4) / (0.1 + 0.3), photometric 0.05 / 0.4
    assert found["relative_mRE"] == pytest.approx(100 * (0.3 / 0.4 + 0.05 / 0.4) / 2)
    same = statistics.relative(base, base)
    assert same == pytest.approx(dict.fromkeys(same, 100))


@pytest.mark.parametrize("fog", [0.05, 0.1], ids=["falls", "stays"])
def test_no_relative_error_where_that_of_the_base_does_not_rise(fog: float) -> None:
    found = statistics.relative(errors(0.2, 0.1, 0.6, 0.25, 3.0), errors(0.1, 0.2, 0.4, fog, 1.0))
    assert math.isnan(found["relative_mRE"])
    assert found["mRE"] == pytest.approx((100 + 25 / fog) / 2)


def test_a_null_error_is_not_averaged_away() -> None:
    base = errors(0.1, 0.2, 0.4, 0.5, 1.0)
    found = statistics.relative(errors(0.2, math.nan, 0.6, 0.25, 3.0), base)
    assert math.isnan(found["mRE"])
    assert math.isnan(found["relative_mRE"])
    assert found["geometric_mRE"] == pytest.approx(300)


# A repository with experiments


def git(*words: str, **variables: str) -> str:
    names = {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = os.environ | names | variables
    done = subprocess.run(
        ["git", *words], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def result(changes: dict[str, Any], error: float, auroc: float | None = None) -> dict[str, str]:
    """The files of an experiment in which every corruption has the same error."""
    rows = [
        {
            "group": g,
            "corruption": c,
            "severity": s,
            "method": m,
            "e_den": 0.01 if g == "clean" else error,
        }
        for g, c, s in SETS
        for m in ("model", "identity")
    ]
    metrics = {"robustness": {"e_den": error, "skill": 1 - error, "worst": "fog-5", "auroc": auroc}}
    settings = overlay(params.read(ROOT / "params.yaml"), changes)
    return {
        "params.yaml": yaml.safe_dump(settings),
        "reports/metrics.json": json.dumps(metrics),
        "reports/robustness.csv": pd.DataFrame(rows).to_csv(index=False),
    }


def record(name: str, contents: dict[str, str], time: int) -> None:
    """A commit under the reference that DVC gives an experiment."""
    for path, text in contents.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)
    git("add", "-A")
    stamp = f"{1_700_000_000 + time} +0000"
    head, tree = git("rev-parse", "HEAD"), git("write-tree")
    commit = git("commit-tree", tree, "-p", head, "-m", name, GIT_COMMITTER_DATE=stamp)
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", commit)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KL (beta 1) with errors 0.3, 0.4, 0.5 by seed; beta 4 and df 3 lower by 0.1, 0.2."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "Start")
    for seed in range(3):
        for k, changes in enumerate(({}, {"loss.beta": 4.0}, {"loss.df": 3.0})):
            error = 0.3 + 0.1 * seed - 0.1 * k + 0.001 * seed * k
            contents = result({"run.seed": seed, **changes}, error)
            record(f"run-{k}-{seed}", contents, 10 * seed + k)
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")  # DVC keeps others there too
    return tmp_path


@pytest.fixture
def unpainted(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Figures are the slow part, and one test is enough for them."""
    monkeypatch.setattr(page.style, "save", lambda figure, path, dpi: path.write_bytes(b"picture"))
    return repository


def means(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "reports/compare/compare.csv").set_index(["group", "quantity"])


def test_runs_are_grouped_by_all_but_the_seed(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["compare", "--by", "loss.df"])
    found = means(unpainted)
    names = list(dict.fromkeys(found.index.get_level_values("group")))
    assert names == ["df 0, beta 1", "df 0, beta 4", "df 3, beta 1"]
    base = found.loc["df 0, beta 1", "e_den"]
    assert base["seeds"] == 3
    assert base["mean"] == pytest.approx(0.4)
    assert base["high"] - base["mean"] == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-4)
    assert found.loc["df 0, beta 1", "mRE"]["mean"] == pytest.approx(100)
    assert found.loc["df 0, beta 4", "mRE"]["mean"] == pytest.approx(100 * 0.301 / 0.4)
    out = capsys.readouterr().out
    assert "| df 0, beta 1 | 3 | 0.4 ± 0.25 |" in out
    assert "interval below" not in out


def test_differences_are_paired_by_seed_and_corrected_after_holm(unpainted: Path) -> None:
    cli.main(["compare"])
    table = pd.read_csv(unpainted / "reports/compare/differences.csv")
    row = table[(table["quantity"] == "e_den") & table["group"].str.contains("beta 4")].iloc[0]
    assert (row["seeds"], row["baseline"]) == (3, "beta 1, df 0")
    values = np.array([-0.1, -0.099, -0.098])
    assert row["mean"] == pytest.approx(values.mean())
    t = abs(values.mean()) / (values.std(ddof=1) / math.sqrt(3))
    assert row["p"] == pytest.approx(1 - t / math.sqrt(2 + t**2), rel=1e-3)
    both = table[table["quantity"] == "e_den"].sort_values("p")
    low, high = both["p"]
    assert both["p_holm"].tolist() == pytest.approx([2 * low, max(2 * low, high)], rel=1e-4)
    relative = table[table["quantity"] == "mRE"]["mean"]  # the base has 100 on average
    assert relative.tolist() == pytest.approx([-100 * 0.198 / 0.4, -100 * 0.099 / 0.4])


def test_two_seeds_get_no_interval_and_that_is_said(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["compare", "run-0-0", "run-0-1", "run-1-0", "run-1-1"])
    assert means(unpainted)["low"].isna().all()
    assert "no interval below 3 seeds: beta 1 (2), beta 4 (2)" in capsys.readouterr().out


def test_a_named_baseline_and_none_at_all(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"run-{k}-{seed}" for k in (1, 2) for seed in range(3)]
    cli.main(["compare", *names])
    assert means(unpainted).loc["beta 4, df 0", "mRE"]["seeds"] == 0
    out = capsys.readouterr().out
    assert "no baseline (KL, beta 1, standard prior" in out
    assert "for beta 1, df 3; beta 4, df 0, no relative errors or differences: none qual" in out
    cli.main(["compare", *names, "--baseline", "run-1-0"])
    assert means(unpainted).loc["beta 4, df 0", "mRE"]["mean"] == pytest.approx(100)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss.prior.mu": 0.5},
        {"loss.prior.logvar": [0.0] * 15 + [0.1]},
        {"loss.capacity.weight": 10.0},
        {"loss.alpha": 0.5},
        {"model.latent.name": "vq"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_baseline_is_kl_with_the_standard_prior_alone(
    unpainted: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    record("other", result(changes, 0.9), 99)
    cli.main(["compare", "other"])
    assert "none qualifies" in capsys.readouterr().out


def test_of_several_baselines_none_is_picked_in_silence(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("idle", result({"loss.capacity.steps": 7}, 0.9), 99)
    cli.main(["compare", "run-0-0", "run-1-0", "idle"])
    out = capsys.readouterr().out
    assert "several qualify (beta 1, capacity.steps 7; beta 1, capacity.steps 100000)" in out
    assert "--baseline is needed" in out
    assert means(unpainted).xs("mRE", level="quantity")["seeds"].eq(0).all()
    cli.main(["compare", "run-0-0", "run-1-0", "idle", "--baseline", "idle"])
    assert "--baseline is needed" not in capsys.readouterr().out


def test_spellings_of_one_loss_are_one_group(unpainted: Path) -> None:
    spellings = [
        {"loss.alpha": None},
        {"loss.divergence": "alpha", "loss.alpha": 1},
        {"loss.divergence": "renyi"},
        {"loss.divergence": "gamma", "loss.df": 3},
    ]
    for k, changes in enumerate(spellings):
        record(f"other-{k}", result({"run.seed": 10 + k, **changes}, 0.3), 90 + k)
    cli.main(["compare"])
    seeds = means(unpainted).xs("e_den", level="quantity")["seeds"]
    assert seeds.to_dict() == {"beta 1, df 0": 6, "beta 1, df 3": 4, "beta 4, df 0": 3}


def test_a_quantity_null_for_some_seeds_says_for_how_many_it_is_known(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, auroc in enumerate((0.7, 0.8, None)):
        record(f"run-0-{seed}", result({"run.seed": seed}, 0.3, auroc), 90 + seed)
    cli.main(["compare", *(f"run-0-{seed}" for seed in range(3))])
    assert "| 0.75 (n = 2) |" in capsys.readouterr().out
    assert "<td>0.75 (n = 2)</td>" in (unpainted / "reports/compare/compare.html").read_text()


def test_what_does_not_vary_gets_neither_interval_nor_test_and_that_is_said(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        moved = {"run.seed": seed, "loss.beta": 2.0}
        record(f"moved-{seed}", result(moved, 0.3 + 0.1 * seed - 0.1), 90 + seed)
    cli.main(["compare", *(f"{name}-{seed}" for name in ("run-0", "moved") for seed in range(3))])
    table = pd.read_csv(unpainted / "reports/compare/differences.csv").set_index("quantity")
    assert table.loc["e_den", ["low", "high", "p", "p_holm"]].isna().all()
    out = capsys.readouterr().out
    assert "| e_den | beta 2 | beta 1 | 3 | -0.1 | – | – |" in out
    assert (
        "no interval or test of the difference where all seeds agree up to rounding: e_den" in out
    )


def test_a_baseline_that_does_not_get_worse_gives_a_note_and_no_relative_error(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("flat", result({}, 0.01), 99)
    cli.main(["compare", "flat"])
    assert "no relative mRE where the baseline's error does not rise" in capsys.readouterr().out
    found = means(unpainted)
    assert found.loc["all runs", "relative_mRE"]["seeds"] == 0
    assert found.loc["all runs", "mRE"]["mean"] == pytest.approx(100)


def test_of_two_equal_experiments_the_later_counts(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("again", result({"run.seed": 0, "plots.dpi": 50, "loss.alpha": 1}, 0.9), 99)
    cli.main(["compare"])
    assert "run-0-0 and again have the same parameters and seed" in capsys.readouterr().out
    assert means(unpainted).loc["beta 1, df 0", "e_den"]["mean"] == pytest.approx(0.6)


def test_an_experiment_without_results_is_left_out_and_said(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git("rm", "-q", "--cached", "reports/metrics.json")
    (unpainted / "reports/metrics.json").unlink()
    record("broken", {}, 99)
    record("foreign", result({}, 0.3) | {"params.yaml": "loss: {beta: 1, gamma: 2}"}, 100)
    cli.main(["compare"])
    out = capsys.readouterr().out
    assert "broken is left out" in out
    assert "foreign is left out" in out
    with pytest.raises(SystemExit):
        cli.main(["compare", "foreign"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "foreign: no experiment with results" in line


@pytest.mark.slow
def test_tables_that_dvc_keeps_in_its_cache_are_found(unpainted: Path) -> None:
    contents = result({"run.seed": 0, "loss.alpha": 0.5}, 0.7)
    table = contents.pop("reports/robustness.csv")
    (unpainted / "kept.csv").write_text(table)
    command = [sys.executable, "-m", "dvc"]
    subprocess.run([*command, "init", "-q", "-f"], check=True)
    git("rm", "-q", "--cached", "reports/robustness.csv")
    keep = "mv kept.csv reports/robustness.csv"
    stage = ["stage", "add", "-q", "--run", "-n", "keep", "-o", "reports/robustness.csv", keep]
    subprocess.run([*command, *stage], check=True)
    record("kept", contents, 99)
    cli.main(["compare"])
    assert means(unpainted).loc["alpha 0.5, beta 1, df 0", "mRE"]["mean"] == pytest.approx(175)


def test_all_that_is_promised_gets_written(repository: Path) -> None:
    cli.main(["compare", "--out", "elsewhere"])
    written = {path.name for path in (repository / "elsewhere").iterdir()}
    assert {
        "compare.csv",
        "differences.csv",
        "compare.md",
        "compare.html",
        "e_den.png",
        "mRE.png",
    } <= written
    assert "auroc.png" not in written  # null in every run
    html = (repository / "elsewhere/compare.html").read_text()
    assert html.count("data:image/png") == sum(name.endswith(".png") for name in written)
    assert "nan" not in html.lower().split("base64")[0]
    assert "http" not in html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: no experiment with results"),
        (
            ["--by", "loss.gamma"],
            "--by: no parameter of a group is 'loss.gamma'; those that differ: loss.beta, loss.df",
        ),
        (["--by", "run.seed"], "--by: no parameter of a group is 'run.seed'"),
        (["--baseline", "none"], "--baseline: no such experiment 'none'"),
    ],
)
def test_mistakes_are_named(
    unpainted: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_no_experiments_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustvae.experiments import compare

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    with pytest.raises(UserError, match="dvc exp run"):
        compare.read([], [])
