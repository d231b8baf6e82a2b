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
from robustvae.compare import page, statistics
from robustvae.errors import UserError

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


def test_t_interval_by_hand() -> None:
    # mean 2, standard deviation 1, three values; the 97.5 % point of t with 2 degrees is 4.302653.
    low, high = statistics.interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


def test_fewer_than_three_seeds_have_no_interval() -> None:
    assert statistics.interval([1.0, 2.0]) is None
    assert statistics.p_value([1.0, 2.0]) is None


def test_t_test_by_hand() -> None:
    # t = 2 / (1 / sqrt 3) = 3.4641 with 2 degrees: p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14).
    assert statistics.p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert statistics.p_value([1.0, 1.0, 1.0]) is None


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06 and 0.04 * 1 raised to what came before.
    found = statistics.holm([0.04, 0.01, 0.03, 0.02])
    assert found == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1, 1]


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


def result(changes: dict[str, Any], error: float) -> dict[str, str]:
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
    metrics = {"robustness": {"e_den": error, "skill": 1 - error, "worst": "fog-5", "auroc": None}}
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
    assert (row["pairs"], row["baseline"]) == (3, "beta 1, df 0")
    values = np.array([-0.1, -0.099, -0.098])
    assert row["mean"] == pytest.approx(values.mean())
    t = abs(values.mean()) / (values.std(ddof=1) / math.sqrt(3))
    assert row["p"] == pytest.approx(1 - t / math.sqrt(2 + t**2), rel=1e-3)
    pair = table[table["quantity"] == "e_den"]["p"]
    expected = statistics.holm(pair.tolist())
    assert table[table["quantity"] == "e_den"]["p_holm"].tolist() == pytest.approx(expected)


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
    assert "no baseline (KL, beta 1)" in capsys.readouterr().out
    cli.main(["compare", *names, "--baseline", "run-1-0"])
    assert means(unpainted).loc["beta 4, df 0", "mRE"]["mean"] == pytest.approx(100)


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
    cli.main(["compare"])
    assert "broken is left out" in capsys.readouterr().out


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
            "--by: no such parameter 'loss.gamma'; those that differ: loss.beta, loss.df",
        ),
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
    from robustvae import compare

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    with pytest.raises(UserError, match="dvc exp run"):
        compare.read([], [])
