"""Files appear whole or not at all, and the same content gives the same bytes."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from robustvae.errors import UserError
from robustvae.runtime import files


def fail(target: Path, error: Exception) -> None:
    with files.replace(target) as temporary:
        temporary.write_text("half")
        raise error


def test_replace_moves_the_file_there_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with files.replace(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_replace_keeps_the_old_file_and_leaves_nothing_behind_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        fail(target, RuntimeError())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_clear_message(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match=r"a\.npy: no space left on the device; make room"):
        fail(tmp_path / "a.npy", full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.EACCES, "Permission denied"),
        (errno.ENOENT, "No such file or directory"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_folder_that_cannot_be_made_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, why: str
) -> None:
    def refuse(folder: Path, **how: bool) -> None:
        raise OSError(code, os.strerror(code), str(folder))

    monkeypatch.setattr(Path, "mkdir", refuse)
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(UserError) as caught, files.replace(path) as temporary:
        temporary.write_text("x")
    expected = f"{path}: cannot be written ({why}); make its folder writable, or name another one"
    assert str(caught.value) == expected


def test_a_file_or_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "b" / "a.json",
                 tmp_path / "folder"):  # fmt: skip
        with pytest.raises(UserError, match=r"cannot be written \(.*\); make its folder writable"):
            files.write_json(path, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_what_a_writer_cannot_read_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    missing = FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "source"))
    with pytest.raises(FileNotFoundError):
        fail(tmp_path / "a.txt", missing)


def test_json_keeps_order_and_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": ["ä", None]})
    assert path.read_bytes() == '{\n  "b": 1,\n  "a": [\n    "ä",\n    null\n  ]\n}\n'.encode()
    assert files.read_json(path) == {"b": 1, "a": ["ä", None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path)["b"] == 1


@pytest.mark.parametrize("content", [None, b"{"], ids=["missing", "cut"])
def test_unreadable_json_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "info.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"info\.json: cannot be read as JSON"):
        files.read_json(path)


def test_npz_bytes_do_not_depend_on_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"mu/fog-3": np.arange(6.0).reshape(2, 3), "n": np.int64(7)}
    files.save_npz(tmp_path / "a.npz", **arrays)
    monkeypatch.setattr("time.time", lambda: 2e9)
    files.save_npz(tmp_path / "b.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as back:
        assert sorted(back) == ["mu/fog-3", "n"]
        np.testing.assert_array_equal(back["mu/fog-3"], arrays["mu/fog-3"])


def test_npy_is_mapped_read_only_and_a_cut_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    files.save_npy(path, np.arange(1000))
    mapped = files.open_npy(path)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, np.arange(1000))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"a\.npy: not a whole \.npy file"):
        files.open_npy(path)
    with pytest.raises(UserError, match=r"b\.npy: not a whole \.npy file"):
        files.open_npy(tmp_path / "b.npy")


@pytest.mark.parametrize("content", [None, "", "a,b\n", "a,b\n1,", "a,b\n1,2\n1,2,3\n"],
                         ids=["missing", "empty", "no rows", "cut", "not a table"])  # fmt: skip
def test_a_damaged_table_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "history.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        UserError, match=r"history\.csv: damaged or missing .*`dvc repro`"
    ) as caught:
        files.read_csv(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", sorted((ROOT / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_stages_read_tables_and_archives_through_files(stage: Path) -> None:
    assert not re.search(r"pd\.read_|np\.load", stage.read_text())


def test_a_whole_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\nx,\ny,2.5\n")
    table = files.read_csv(tmp_path / "a.csv")
    assert table["a"].tolist() == ["x", "y"]
    np.testing.assert_array_equal(table["b"], [np.nan, 2.5])


def test_an_archive_is_read_whole_and_a_damaged_one_named(tmp_path: Path) -> None:
    path = tmp_path / "latents.npz"
    files.save_npz(path, mu=np.arange(1000.0), labels=np.int64(3))
    back = files.read_npz(path)
    np.testing.assert_array_equal(back["mu"], np.arange(1000.0))
    assert back["labels"] == 3
    whole = bytearray(path.read_bytes())
    flipped = whole.copy()
    flipped[2000] ^= 1
    for content in (whole[:-8], whole[:100], b"", b"text", flipped):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"latents\.npz: damaged or missing .*`dvc checkout`"):
            files.read_npz(path)
    with pytest.raises(UserError, match=r"b\.npz: damaged or missing \(No such file"):
        files.read_npz(tmp_path / "b.npz")


def test_sha256_of_the_standard_example(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "a") == expected
