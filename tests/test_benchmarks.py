"""The benchmarks run, on next to nothing."""

import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import corruptions, evaluation, training
from benchmarks.training import Net


@pytest.mark.slow
def test_every_part_gives_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Net({"name": "mlp", "channels": [4]}, (1, 16, 16), 8, 2)
    monkeypatch.setattr(benchmarks, "MEASURED", ("small",))
    monkeypatch.setattr(training, "peak", lambda *_: 1.0)  # processes of their own
    monkeypatch.setattr(training, "product_rate", lambda _: 1e9)
    monkeypatch.setattr(evaluation, "STARTS", {"python": "pass"})
    monkeypatch.setattr(corruptions, "IMAGES", 40)
    monkeypatch.setattr(corruptions, "COLOUR", 4)
    for name in training.NETS:
        monkeypatch.setitem(training.NETS, name, tiny)
    rows = list(benchmarks.lines(benchmarks.measure(quick=True)))
    kinds = {what.split()[0] for what, *_ in rows}
    assert kinds >= {"train", "time,", "evaluate", "corrupt", "peak", "start", "growth"}
    assert {"shot_noise", "all fifteen"} <= {which for _, which, *_ in rows}
