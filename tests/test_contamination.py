"""Outliers among the images to train on: exact shares, kept masks, and what finds them again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_robustness
import tiny
from PIL import Image

from robustvae import params
from robustvae.data import contaminated, prepared
from robustvae.data.contaminate import contaminate
from robustvae.data.prepared import Prepared
from robustvae.errors import UserError
from robustvae.models import folder as model_folder
from robustvae.params import ContaminationSettings
from robustvae.robustness import outliers
from robustvae.robustness.finding import Finding
from robustvae.runtime import files


@pytest.fixture(scope="module")
def data() -> Prepared:
    """32 training, 8 validation, 32 test images of two classes."""
    found = prepared.load(tiny.data("gaussian"))
    labels = {name: marks[:, 0] for name, marks in found.labels.items()}
    return Prepared(found.folder, found.info, found.train, found.val, found.test, labels)


def settings(kind: str, fraction: float = 0.25, **more: Any) -> ContaminationSettings:
    inliers = [1] if kind == "classes" else None
    changes = {"kind": kind, "fraction": fraction, "inliers": inliers, **more}
    return params.complete({"contamination": changes}).contamination


def made(data: Prepared, place: Path, kind: str, fraction: float = 0.25, **more: Any) -> Any:
    info = contaminate(data, settings(kind, fraction, **more), place)
    files.write_json(place / "info.json", info)
    return contaminated.Outliers.load(place)


@pytest.mark.parametrize("kind", ["corruption", "noise", "invert"])
def test_an_exact_share_is_replaced_at_seeded_places(
    kind: str, data: Prepared, tmp_path: Path
) -> None:
    for fraction, count in ((0.25, 8), (0.1, 3), (0.05, 2), (0.0, 0)):  # 1.6 rounds to 2
        place = tmp_path / str(fraction)
        found = made(data, place, kind, fraction)
        if not count:
            assert found is None
            assert [path.name for path in place.iterdir()] == ["info.json"]
            assert contaminated.load(data, place) is data
            continue
        mask = np.asarray(found.mask)
        assert mask.sum() == count
        np.testing.assert_array_equal(found.train[~mask], data.train[~mask])
        assert (found.train[mask] != data.train[mask]).reshape(count, -1).any(1).all()
        assert found.info["outliers"] == {"train": count, "val": int(8 * fraction + 0.5)}
        assert len(found.test) == len(data.test)
    again = made(data, tmp_path / "again", kind)
    np.testing.assert_array_equal(again.train, np.load(tmp_path / "0.25" / "train.npy"))
    other = made(data, tmp_path / "other", kind, seed=1)
    assert (other.mask != again.mask).any()


def test_each_kind_makes_what_it_says(data: Prepared, tmp_path: Path) -> None:
    found = made(data, tmp_path / "invert", "invert")
    mask = np.asarray(found.mask)
    np.testing.assert_array_equal(found.train[mask], 255 - data.train[mask])
    np.testing.assert_array_equal(found.test, 255 - data.test)
    noise = made(data, tmp_path / "noise", "noise").train[mask]
    assert abs(noise.mean() - 127.5) < 5
    assert abs(noise.std() - 73.9) < 3
    names = ("fog", "stripe")
    mixed = made(data, tmp_path / "mixed", "corruption", 0.9, names=names, severity=3)
    mask, hits = np.asarray(mixed.mask), np.zeros(2, int)
    for image in mixed.train[mask]:
        hits[int((image == 255).sum() >= 3 * 16)] += 1
    assert hits.min() > 3  # both corruptions are among them
    strong = made(data, tmp_path / "strong", "corruption", severity=5)
    weak = made(data, tmp_path / "weak", "corruption", severity=1)
    assert (np.square(strong.test.astype(float) - data.test).mean()
            > 2 * np.square(weak.test.astype(float) - data.test).mean())  # fmt: skip


def test_classes_are_a_share_of_the_resulting_set(data: Prepared, tmp_path: Path) -> None:
    found = made(data, tmp_path, "classes", 0.2)
    inside, mask = int((data.labels["train"] == 1).sum()), np.asarray(found.mask)
    assert (~mask).sum() == inside
    assert mask.sum() == int(0.25 * inside + 0.5)  # 0.2 of all
    of = contaminated.load(data, tmp_path)
    np.testing.assert_array_equal(of.labels["train"] != 1, mask)
    assert len(of.train) == len(mask) == of.info["counts"]["train"]
    np.testing.assert_array_equal(data.labels["test"][found.clean], 1)
    assert len(found.test) == (data.labels["test"] != 1).sum()
    for name, text in (([7], "no image of train is of class 7"),):
        with pytest.raises(UserError, match=text):
            contaminate(data, settings("classes", 0.2, inliers=name), tmp_path)
    with pytest.raises(UserError, match=r"contamination.fraction: 0.95 needs \d+ train images of"):
        contaminate(data, settings("classes", 0.95), tmp_path)


def test_pictures_for_testing_are_none_of_those_for_training(
    data: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(24):
        Image.new("RGB", (20, 30), (10 * i, 10 * i, 10 * i)).save(tmp_path / "photos" / f"{i}.png")
    found = made(data, tmp_path / "out", "pictures", root=str(tmp_path / "photos"))
    seen = {split: {int(x.mean()) // 10 for x in part} for split, part in (
        ("train", found.train[np.asarray(found.mask)]), ("test", found.test))}  # fmt: skip
    val, mask = (np.load(tmp_path / "out" / f"val{end}.npy") for end in ("", "_mask"))
    seen["val"] = {int(x.mean()) // 10 for x in val[mask]}
    assert seen["test"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & (seen["train"] | seen["test"])


def test_black_and_white_data_get_black_and_white_outliers(tmp_path: Path) -> None:
    data = prepared.load(tiny.data("binary"))
    found = made(data, tmp_path, "noise")
    assert set(np.unique(found.train)) == {0, 255}
    assert set(np.unique(found.test)) == {0, 255}


def test_training_reads_no_mask(data: Prepared, tmp_path: Path) -> None:
    made(data, tmp_path, "noise")
    for name in ("train_mask", "val_mask", "test_outliers", "test_clean"):
        (tmp_path / f"{name}.npy").unlink()
    of = contaminated.load(data, tmp_path)
    assert of.info["contamination"]["kind"] == "noise"
    assert (of.train != data.train).any()
    np.testing.assert_array_equal(of.test, data.test)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fraction": 0.1}, "contamination.fraction: has no effect with kind none, got 0.1"),
        ({"kind": "classes", "fraction": 0.1}, "contamination.inliers: classes needs the inlying"),
        ({"kind": "noise", "inliers": [3]}, "contamination.inliers: belongs to kind classes"),
        ({"kind": "noise", "fraction": 1.0}, "contamination.fraction: must be < 1, got 1.0"),
        ({"kind": "mist"}, "contamination.kind: unknown 'mist'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as error:
        params.complete({"contamination": changes})
    assert str(error.value).startswith(f"settings: {text}")


def test_contamination_and_mixture_do_not_go_together() -> None:
    with pytest.raises(UserError, match="replaces training images as well"):
        params.complete({"contamination.kind": "noise", "train.mixture.fraction": 0.1})


# ---- finding them again


def test_noise_among_shapes_is_found_and_told(data: Prepared, tmp_path: Path) -> None:
    known = made(data, tmp_path, "noise")
    model = model_folder.load(tiny.model("gaussian"))
    weights = np.where(np.asarray(known.mask), 0.25, 1.0)[None].astype(np.float16)
    found = outliers.find(
        model, known.train, np.asarray(known.mask), data.test, known.test, weights, 16, 0
    )
    assert found.headline["train_auroc"] == found.headline["test_auroc"] == 1
    assert found.headline["weight_inliers"] == 1
    assert found.headline["weight_outliers"] == 0.25
    assert found.sentence.startswith("Of the 32 training images that this model finds least likely")
    assert found.arrays["mask"][found.arrays["first"][:8].astype(int)].all()
    assert set(found.table["score"]) == {
        *outliers.MODEL_SCORES, "mean_grey", "pca", "isolation_forest",
    }  # fmt: skip
    assert found.purity["false_alarms"] < 0.1
    assert found.purity["misses"] < 0.1
    assert found.purity["outlier_like"] < 0.2
    assert found.purity["low"] <= found.purity["outlier_like"] <= found.purity["high"]


def test_order_of_the_images_does_not_matter(data: Prepared, tmp_path: Path) -> None:
    known = made(data, tmp_path, "corruption", names=["fog"])
    model = model_folder.load(tiny.model("vq"))
    order = np.random.default_rng(0).permutation(32)
    tables = [
        outliers.find(model, train, mask, data.test, known.test, None, 16, 0).table
        for train, mask in (
            (np.array(known.train), np.array(known.mask)),
            (known.train[order], known.mask[order]),
        )
    ]
    ours = [t[t["model"]].reset_index(drop=True)["auroc"] for t in tables]
    np.testing.assert_allclose(ours[0], ours[1], atol=1e-9)


def test_a_folder_that_is_gone_is_one_line(data: Prepared, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        contaminate(data, settings("pictures", root=str(tmp_path / "none")), tmp_path)


def test_the_stages_tell_of_outliers_and_draw_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import plot, report

    test_robustness.project(tmp_path, "gaussian")
    monkeypatch.chdir(tmp_path)
    data = prepared.load(Path("data/prepared"))
    made(data, Path("data/contaminated"), "noise")
    files.save_npy(Path("reports/train/weights.npy"), np.ones((3, 32), np.float16))
    rows = "epoch,train_total,val_total,train_recon,val_recon,train_divergence,val_divergence\n"
    Path("reports/train/history.csv").write_text(rows + "1,1,1,1,1,1,1\n2,1,1,1,1,1,1\n")
    found = test_robustness.evaluate(tmp_path, monkeypatch)["evaluation"]["outliers"]
    assert found["sentence"].startswith("Of the 32 training images")
    shown = files.read_json(Path("reports/robustness.json"))
    assert shown["weight_outliers"] == 1
    assert shown["outliers"] == 0.25
    for name in ("attack", "foreign", "samples"):
        Finding().save(Path("reports") / name)
    plot.main()
    figures = {item["file"] for item in files.read_json(Path("reports/figures.json"))}
    assert {"outliers.png", "outlier-scores.png", "outlier-weights.png", "thrown-out.png"} < figures
    info = files.read_json(Path("data/corrupted/info.json"))
    sums = [{**item, "sha256": "0"} for item in info["sets"]]
    files.write_json(Path("data/corrupted/info.json"), {**info, "sets": sums})
    report.main()
    page = Path("reports/report.html").read_text()
    assert found["sentence"] in page
    assert "isolation forest" in page
