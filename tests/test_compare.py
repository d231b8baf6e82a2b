"""Statistics over seeds against hand-worked values; experiments compared in a git repository."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, overlay
from scipy import stats

from robustvae import cli, params
from robustvae.errors import UserError
from robustvae.experiments import compare, page, record, statistics, together
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
    # RE: 1/2 and 3/2 in noise, 1/2 in photometric, 3 in geometric; geometric means throughout.
    assert found["mRE"] == pytest.approx(100 * math.sqrt(math.sqrt(0.75) * 0.5))
    assert found["geometric_mRE"] == pytest.approx(300)
    # rises: noise (-0.1 + 0.4) / (0.1 + 0.3), photometric 0.05 / 0.4
    assert found["relative_mRE"] == pytest.approx(100 * math.sqrt(0.3 / 0.4 * 0.05 / 0.4))
    same = statistics.relative(base, base)
    assert same == pytest.approx(dict.fromkeys(same, 100))


@pytest.mark.parametrize("fog", [0.05, 0.1], ids=["falls", "stays"])
def test_no_relative_error_where_that_of_the_base_does_not_rise(fog: float) -> None:
    found = statistics.relative(errors(0.2, 0.1, 0.6, 0.25, 3.0), errors(0.1, 0.2, 0.4, fog, 1.0))
    assert math.isnan(found["relative_mRE"])
    assert found["mRE"] == pytest.approx(100 * math.sqrt(math.sqrt(0.75) * 0.25 / fog))


def test_a_null_error_is_not_averaged_away() -> None:
    base = errors(0.1, 0.2, 0.4, 0.5, 1.0)
    found = statistics.relative(errors(0.2, math.nan, 0.6, 0.25, 3.0), base)
    assert math.isnan(found["mRE"])
    assert math.isnan(found["relative_mRE"])
    assert found["geometric_mRE"] == pytest.approx(300)


def test_a_ratios_interval_is_that_of_its_log() -> None:
    found = statistics.estimate_ratio(pd.Series([100.0, 200.0, 400.0]))
    half = 4.302653 * math.log(2) / math.sqrt(3)  # logs 0, log 2, 2 log 2: sd log 2
    assert found["mean"] == pytest.approx(200)
    assert found["low"] == pytest.approx(200 * math.exp(-half), rel=1e-6)
    assert found["high"] == pytest.approx(200 * math.exp(half), rel=1e-6)
    assert found["p"] == estimate(0, math.log(2), 2 * math.log(2))["p"]


def test_equivalence_by_hand() -> None:
    # mean 2, standard error 1 / sqrt 3: to the margin 3 it is t = sqrt 3, with 2 degrees.
    values = pd.Series([1.0, math.nan, 2.0, 3.0])
    expected = 0.5 * (1 - math.sqrt(3) / math.sqrt(2 + 3))
    assert statistics.equivalence(values, 3) == pytest.approx(expected)
    assert statistics.equivalence(-values, 3) == pytest.approx(expected)
    assert statistics.equivalence(values, 1) > 0.5  # beyond the margin


@pytest.mark.parametrize(("seeds", "level"), [(3, 0.05), (5, 0.05 / 9), (10, 0.05 / 54)])
def test_the_detectable_effect_is_found_in_80_of_100_studies(seeds: int, level: float) -> None:
    effect = statistics.detectable(2.0, seeds, level)
    draws = np.random.default_rng(seeds).normal(effect, 2.0, (20_000, seeds))
    found = (stats.ttest_1samp(draws, 0, axis=1).pvalue < level).mean()
    assert found == pytest.approx(0.8, abs=0.012)


def test_seeds_needed_are_the_fewest_with_power() -> None:
    enough = [n for n in range(3, 60) if statistics.power(0.05, 0.06, n, 0.01) >= 0.8]
    assert statistics.seeds_needed(0.05, 0.06, 0.01) == enough[0]
    assert statistics.seeds_needed(9.0, 0.06, 0.05) == 3
    assert statistics.seeds_needed(1e-4, 1.0, 0.05) is None
    assert statistics.power(1.0, 1e-14, 3, 0.05) == 1


@pytest.mark.parametrize(("effect", "claim"), [(0.0, "differs"), (math.log(1.05), "equal")])
def test_a_table_of_54_comparisons_makes_a_false_claim_in_5_of_100_studies(
    effect: float, claim: str
) -> None:
    """Nine losses, all at one distance from the baseline whose runs they share, six columns."""
    rng, studies, seeds = np.random.default_rng(1), 400, 5
    wrong = 0
    for _ in range(studies):
        base = rng.normal(0, 0.03, (1, 6, seeds))
        change = rng.normal(effect, 0.02, (9, 6, seeds)) - base
        values = [pd.Series(row) for row in change.reshape(54, seeds)]
        if claim == "differs":
            p = stats.ttest_1samp(change.reshape(54, seeds), 0, axis=1).pvalue
        else:
            p = [statistics.equivalence(row, math.log(1.05)) for row in values]
        wrong += bool((inference.holm(pd.Series(p)) < inference.LEVEL).any())
    assert wrong / studies < 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_seeds_cover_the_truth(
    seeds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors of a run vary by 4 %, skewed; half of that is shared by the runs of a seed."""
    rng, studies = np.random.default_rng(seeds), 2000
    shared = rng.gamma(1250, 1 / 1250, (studies, seeds))
    one, base = (shared * rng.gamma(800, 1 / 800, (studies, seeds)) for _ in range(2))
    covered = {"mean": 0, "ratio": 0}
    for mine, theirs in zip(1.1 * one, base, strict=True):
        mean = statistics.estimate(pd.Series(mine))
        ratio = statistics.estimate_ratio(pd.Series(100 * mine / theirs))
        covered["mean"] += mean["low"] < 1.1 < mean["high"]
        covered["ratio"] += ratio["low"] < 110 < ratio["high"]
    for name, count in covered.items():
        with capsys.disabled():
            print(f"\n{seeds} seeds, {name}: coverage {count / studies:.3f}")
        assert 0.93 < count / studies < 0.97


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


def record_experiment(name: str, contents: dict[str, str], time: int) -> None:
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
            record_experiment(f"run-{k}-{seed}", contents, 10 * seed + k)
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
    ratios = np.array([0.2 / 0.3, 0.301 / 0.4, 0.402 / 0.5])  # of every corruption, by seed
    other = found.loc["df 0, beta 4", "mRE"]
    assert other["mean"] == pytest.approx(100 * stats.gmean(ratios), rel=1e-4)
    assert other["worst"] == pytest.approx(80.4)
    half = 4.302653 * np.log(ratios).std(ddof=1) / math.sqrt(3)
    assert other["high"] / other["mean"] == pytest.approx(math.exp(half), rel=1e-4)
    assert base["worst"] == pytest.approx(0.5)
    out = capsys.readouterr().out
    assert "| df 0, beta 1 | 3 | 0.4 ± 0.25 |" in out
    assert "interval below" not in out


def test_the_first_table_says_what_is_better_and_what_nobody_knows(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["compare", "--judge", "skill", "e_den", "mRE"])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "### Against KL, beta 1"
    heads, _, *rows = (line.strip("| ").split(" | ") for line in out[2:6])
    assert heads == ["group", "skill", "e_den", "mRE"]
    assert [row[0] for row in rows] == ["beta 1, df 3", "KL, beta 4"]
    table = pd.read_csv("reports/compare/differences.csv").set_index(["group", "quantity"])
    for name, *cells in rows:
        for quantity, cell in zip(heads[1:], cells, strict=True):
            row = table.loc[name, quantity]
            value, _, said = cell.partition(": ")
            assert value.split(" ")[0] == f"{row['mean']:.4g}"
            words = {"higher": "better" if quantity == "skill" else "worse"}
            words |= {"lower": "worse" if quantity == "skill" else "better"}
            assert said == words.get(row["verdict"], row["verdict"])
            assert value.endswith(" %") == (quantity != "skill")
    html = (unpainted / "reports/compare/compare.html").read_text()
    assert html.index("Against KL, beta 1") < html.index("<img") < html.index("Means over seeds")
    for cell in rows[1][1:]:
        value, _, said = cell.partition(": ")
        style = said if said in ("better", "worse") else "open"
        assert f'<td class="{style}">{value}<small>{said}</small></td>' in html


def test_differences_are_paired_by_seed_and_corrected_after_holm(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["compare", "--judge", "skill", "mRE"])
    table = pd.read_csv(unpainted / "reports/compare/differences.csv")
    assert set(table["quantity"]) == {"skill", "mRE"}
    row = table[(table["quantity"] == "skill") & table["group"].str.contains("beta 4")].iloc[0]
    assert (row["seeds"], row["baseline"]) == (3, "KL, beta 1")
    values = np.array([0.1, 0.099, 0.098])
    assert row["mean"] == pytest.approx(values.mean())
    t = abs(values.mean()) / (values.std(ddof=1) / math.sqrt(3))
    assert row["p"] == pytest.approx(1 - t / math.sqrt(2 + t**2), rel=1e-3)
    assert row["verdict"] == "higher"
    four = table.sort_values("p")  # both quantities of both groups together
    raised = np.maximum.accumulate(four["p"] * [4, 3, 2, 1])
    assert four["p_holm"].tolist() == pytest.approx(raised.tolist(), rel=1e-4)
    ratio = table[(table["quantity"] == "mRE") & table["group"].str.contains("beta 4")].iloc[0]
    sd = np.log([0.2 / 0.3, 0.301 / 0.4, 0.402 / 0.5]).std(ddof=1)
    effect = math.log(1 + ratio["detectable"] / 100)
    assert statistics.power(effect, sd, 3, 0.05 / 4) == pytest.approx(0.8, abs=1e-3)
    assert ratio["seeds_needed"] == statistics.seeds_needed(math.log(1.05), sd, 0.05 / 4)
    assert ratio["verdict"] == "cannot tell"
    out = capsys.readouterr().out
    assert "| 0.699 ± 0.25* |" in out
    assert "4 comparisons, corrected for each other (Holm)" in out
    assert "one of 0.02 in every comparison would need 3 seeds" in out


def test_runs_that_hardly_differ_are_equal_within_the_margin(unpainted: Path) -> None:
    for seed in range(3):
        error = (0.3 + 0.1 * seed) * (1 + 1e-3 * (seed - 1))
        record_experiment(f"same-{seed}", result({"run.seed": seed, "loss.beta": 1.1}, error), 90)
    names = [f"{name}-{seed}" for name in ("run-0", "same") for seed in range(3)]
    for margin, verdict in (("5", "equal within 5 %"), ("0.05", "cannot tell")):
        cli.main(["compare", *names, "--judge", "e_den", "--margin", margin])
        table = pd.read_csv(unpainted / "reports/compare/differences.csv")
        assert table["verdict"].tolist() == [verdict]


def test_a_study_is_kept_as_a_table_and_a_recipe_and_compared_again_from_them(
    unpainted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = ["--judge", "skill", "mRE", "e_den"]
    cli.main(["compare", "--csv", "kept/study.csv", *judged])
    tables = [
        (unpainted / f"reports/compare/{n}.csv").read_text() for n in ("compare", "differences")
    ]
    kept = pd.read_csv("kept/study.csv")
    assert kept["name"].tolist() == [f"run-{k}-{seed}" for seed in range(3) for k in range(3)]
    assert kept["origin.code"].unique().tolist() == [git("rev-parse", "HEAD")]
    assert kept["loss.beta"].tolist() == [1, 4, 1] * 3
    assert kept["noise/shot_noise/5"].iloc[0] == 0.3
    recipe = params.read("kept/study.yaml")
    assert recipe["model.latent_dim"] == 16
    assert not {"loss.beta", "loss.df", "run.seed"} & recipe.keys()

    monkeypatch.chdir(unpainted / "kept")  # no git is asked
    monkeypatch.setattr(compare, "git", None)
    page_there = unpainted / "kept/page.md"
    page_there.write_text("before\n<!-- tables of study -->\nold\n<!-- end of study -->\nafter\n")
    cli.main(["compare", "study.csv", "--into", "page.md", *judged])
    again = [Path(f"reports/compare/{n}.csv").read_text() for n in ("compare", "differences")]
    assert again == tables
    text = page_there.read_text()
    assert text.startswith("before\n<!-- tables of study -->\n\n### Means over seeds")
    assert text.endswith("<!-- end of study -->\nafter\n")
    assert "old" not in text
    head, _, first = text.split("### Means over seeds\n\n")[1].splitlines()[:3]
    columns = dict(zip(head.split("|"), first.split("|"), strict=True))
    shown = means(unpainted / "kept").loc["KL, beta 1"]
    for quantity in judged[1:]:
        assert columns[f" {quantity} "].split()[0] == f"{shown.loc[quantity, 'mean']:.4g}", quantity


def test_a_kept_study_says_which_code_and_versions_made_each_run(unpainted: Path) -> None:
    made = {"models/config.json": json.dumps({"versions": {"torch": "9.1", "python": "3.99"}})}
    record_experiment("made", result({"run.seed": 5}, 0.3) | made, 90)
    cli.main(["compare", "made", "--csv", "made.csv"])
    kept = pd.read_csv("made.csv", dtype=str).iloc[0]
    assert (kept["origin.torch"], kept["origin.python"]) == ("9.1", "3.99")
    assert kept["origin.code"] == git("rev-parse", "HEAD")
    cli.main(["compare", "made.csv", "--csv", "again.csv"])  # kept as it was
    assert Path("again.csv").read_text() == Path("made.csv").read_text()


@pytest.mark.parametrize("content", ["", "name,run.seed\nx,zero\n", "\x00\x01"], ids=repr)
def test_a_damaged_study_is_one_line(unpainted: Path, content: str) -> None:
    cli.main(["compare", "--csv", "study.csv"])
    Path("study.csv").write_text(content)
    with pytest.raises(UserError, match=r"study\.csv: no table of runs .*restore it from git"):
        record.read(Path("study.csv"))
    with pytest.raises(UserError, match=r"gone\.csv: no table of runs .*No such file"):
        record.read(Path("gone.csv"))
    cli.main(["compare", "--csv", "other.csv"])
    Path("other.yaml").unlink()
    with pytest.raises(UserError, match=r"other\.yaml: cannot be read"):
        record.read(Path("other.csv"))


def test_the_commands_of_published_studies_make_the_tables_that_stand_there(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/studies.md").read_text()
    shutil.copytree(ROOT / "docs", "docs")
    commands = re.findall(r"^python -m robustvae (compare docs/studies/.*--into.*)$", text, re.M)
    for command in commands:
        cli.main(shlex.split(command))
    assert Path("docs/studies.md").read_text() == text
    assert len(commands) == len(re.findall("^<!-- tables of", text, re.M)) > 0


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=8)
    runs = [
        {s: fake_run(s, e_den=a + 0.01 * rng.normal(), skill=-(a**3), auroc=rng.normal())
         for s in range(3)}
        for a in shared
    ]  # fmt: skip
    groups = [compare.Group(one, f"{k}") for k, one in enumerate(runs)]
    found = together.correlations(groups, ["e_den", "skill", "auroc"]).set_index(["x", "y"])
    means = pd.DataFrame([g.values.mean() for g in groups])
    for (x, y), row in found.iterrows():
        assert row["rho"] == pytest.approx(stats.spearmanr(means[x], means[y]).statistic)
        assert row["low"] < row["high"] <= 1
    assert found.loc[("e_den", "skill"), "rho"] == pytest.approx(-1)
    assert found.loc[("e_den", "auroc"), "high"] - found.loc[("e_den", "auroc"), "low"] > 0.5
    (title, head, rows) = together.table(found.reset_index())
    assert title == "Spearman's rho over the 8 groups"
    assert (head, [row[0] for row in rows]) == (["", "e_den", "skill"], ["skill", "auroc"])
    with pytest.raises(UserError, match="--together: needs 4 groups or more"):
        together.correlations(groups[:3], ["e_den", "skill"])


def fake_run(seed: int, **values: float) -> compare.Run:
    metrics = {f"robustness.{name}": value for name, value in values.items()}
    return compare.Run(f"{seed}", seed, {}, False, metrics, errors(1, 1, 1, 1, 1))


def test_another_setting_may_count_as_the_seed_does(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"run-{k}-{seed}" for k in (0, 1) for seed in range(3)]  # beta 1 and 4
    cli.main(["compare", *names, "--over", "loss.beta"])
    six = means(unpainted).xs("e_den", level="quantity").iloc[0]
    cli.main(["compare", *names])
    three = [means(unpainted).loc[label, "e_den"]["mean"] for label in ("beta 1", "beta 4")]
    assert six["seeds"] == 6
    assert six["mean"] == pytest.approx(np.mean(three))
    with pytest.raises(SystemExit):
        cli.main(["compare", *names, "--over", "loss.bta"])
    assert "--over: no parameter 'loss.bta' (did you mean 'loss.beta'?)" in capsys.readouterr().err


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
    assert means(unpainted).loc["KL, beta 4", "mRE"]["seeds"] == 0
    out = capsys.readouterr().out
    assert "no baseline (KL, beta 1, standard prior" in out
    assert "for beta 1, df 3; KL, beta 4, no relative errors or differences: none qual" in out
    cli.main(["compare", *names, "--baseline", "run-1-0"])
    assert means(unpainted).loc["KL, beta 4", "mRE"]["mean"] == pytest.approx(100)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss.prior.mu": 0.5},
        {"loss.prior.logvar": [0.0] * 15 + [0.1]},
        {"loss.capacity.weight": 10.0},
        {"loss.alpha": 0.5},
        {"loss.robust.name": "welsch", "loss.robust.strength": 3.0},
        {"model.latent.name": "vq"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_baseline_is_kl_with_the_standard_prior_alone(
    unpainted: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    record_experiment("other", result(changes, 0.9), 99)
    cli.main(["compare", "other"])
    assert "none qualifies" in capsys.readouterr().out


def test_of_several_baselines_none_is_picked_in_silence(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_experiment("idle", result({"loss.capacity.steps": 7}, 0.9), 99)
    cli.main(["compare", "run-0-0", "run-1-0", "idle"])
    out = capsys.readouterr().out
    assert "several qualify (beta 1, capacity.steps 7; beta 1)" in out
    assert "--baseline is needed" in out
    assert means(unpainted).xs("mRE", level="quantity")["seeds"].eq(0).all()
    cli.main(["compare", "run-0-0", "run-1-0", "idle", "--baseline", "idle"])
    assert "--baseline is needed" not in capsys.readouterr().out


def test_a_label_is_silent_about_what_is_not_set_and_counts_a_long_list(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["stripe", "impulse_noise", "dotted_line", "canny_edges", "motion_blur", "translate"]
    changes = {"contamination.kind": "corruption", "contamination.names": names}
    robust = {"loss.robust.name": "welsch", "loss.robust.strength": 3.0}
    record_experiment("dirty", result(changes | robust, 0.9), 99)
    cli.main(["compare", "dirty", "run-0-0"])
    label = "contamination.kind corruption, contamination.names stripe to translate (6)"
    out = capsys.readouterr().out
    assert f"| {label}, robust.name welsch, robust.strength 3 | 1 |" in out
    assert "| contamination.names impulse_noise | 1 |" in out

    inner = [names[0], *reversed(names[1:5]), names[5]]  # the same ends, and as many
    record_experiment("inner", result(changes | robust | {"contamination.names": inner}, 0.9), 99)
    cli.main(["compare", "dirty", "inner"])
    out = capsys.readouterr().out
    assert f"| contamination.names {', '.join(names)} | 1 |" in out
    assert f"| contamination.names {', '.join(inner)} | 1 |" in out


def test_spellings_of_one_loss_are_one_group(unpainted: Path) -> None:
    spellings = [
        {"loss.alpha": None},
        {"loss.divergence": "alpha", "loss.alpha": 1},
        {"loss.divergence": "renyi"},
        {"loss.divergence": "gamma", "loss.df": 3},
    ]
    for k, changes in enumerate(spellings):
        record_experiment(f"other-{k}", result({"run.seed": 10 + k, **changes}, 0.3), 90 + k)
    cli.main(["compare"])
    seeds = means(unpainted).xs("e_den", level="quantity")["seeds"]
    assert seeds.to_dict() == {"KL, beta 1": 6, "beta 1, df 3": 4, "KL, beta 4": 3}


def test_a_quantity_null_for_some_seeds_says_for_how_many_it_is_known(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, auroc in enumerate((0.7, 0.8, None)):
        record_experiment(f"run-0-{seed}", result({"run.seed": seed}, 0.3, auroc), 90 + seed)
    cli.main(["compare", *(f"run-0-{seed}" for seed in range(3))])
    assert "| 0.75 (n = 2) |" in capsys.readouterr().out
    assert "<td>0.75 (n = 2)</td>" in (unpainted / "reports/compare/compare.html").read_text()


def test_what_does_not_vary_gets_neither_interval_nor_test_and_that_is_said(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        moved = {"run.seed": seed, "loss.beta": 2.0}
        record_experiment(f"moved-{seed}", result(moved, 0.3 + 0.1 * seed - 0.1), 90 + seed)
    names = [f"{name}-{seed}" for name in ("run-0", "moved") for seed in range(3)]
    cli.main(["compare", *names, "--judge", "skill"])
    table = pd.read_csv(unpainted / "reports/compare/differences.csv").set_index("quantity")
    assert table.loc["skill", ["low", "high", "p", "p_holm", "detectable"]].isna().all()
    out = capsys.readouterr().out
    assert "| skill | beta 2 | beta 1 | 3 | 0.1 | – | – |" in out
    assert "no interval or test of the pairs where all seeds agree up to rounding: skill" in out


def test_a_baseline_that_does_not_get_worse_gives_a_note_and_no_relative_error(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_experiment("flat", result({}, 0.01), 99)
    cli.main(["compare", "flat"])
    assert "no relative mRE where an error, or the baseline's, does not" in capsys.readouterr().out
    found = means(unpainted)
    assert found.loc["all runs", "relative_mRE"]["seeds"] == 0
    assert found.loc["all runs", "mRE"]["mean"] == pytest.approx(100)


def test_of_two_equal_experiments_the_later_counts(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_experiment("again", result({"run.seed": 0, "plots.dpi": 50, "loss.alpha": 1}, 0.9), 99)
    cli.main(["compare"])
    assert "run-0-0 and again have the same parameters and seed" in capsys.readouterr().out
    assert means(unpainted).loc["KL, beta 1", "e_den"]["mean"] == pytest.approx(0.6)


def test_an_experiment_without_results_is_left_out_and_said(
    unpainted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git("rm", "-q", "--cached", "reports/metrics.json")
    (unpainted / "reports/metrics.json").unlink()
    record_experiment("broken", {}, 99)
    record_experiment(
        "foreign", result({}, 0.3) | {"params.yaml": "loss: {beta: 1, gamma: 2}"}, 100
    )
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
    record_experiment("kept", contents, 99)
    cli.main(["compare"])
    assert means(unpainted).loc["alpha 0.5, beta 1", "mRE"]["mean"] == pytest.approx(
        700 / 3, rel=1e-5
    )


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
        (["--judge", "skil"], "--judge: no such quantity 'skil' (did you mean 'skill'?)"),
        (["--margin", "0"], "--margin: must be above 0 and below 100 per cent, got 0"),
        (["--into", "page.md"], "--into: name the one FILE.csv whose table goes there"),
        (["none.csv"], "none.csv: no table of runs"),
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
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    with pytest.raises(UserError, match="dvc exp run"):
        compare.read([], [])


def test_what_is_measured_apart_is_compared_where_a_run_has_it(
    unpainted: Path,
) -> None:
    for seed in range(2):
        files = result({"run.seed": seed, "loss.beta": 2.0}, 0.2)
        files["reports/attack.json"] = json.dumps({"margin": 1.5, "damage_1": 0.25 + seed})
        record_experiment(f"attacked-{seed}", files, 50 + seed)
    cli.main(["compare"])
    assert means(unpainted)["mean"]["KL, beta 2", "damage_1"] == pytest.approx(0.75)
