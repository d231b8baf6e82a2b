"""What people and machines do to files: each ends in one clear line, and nothing is lost."""

import errno
import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT
from filelock import FileLock
from safetensors.torch import load_file, save_file

import robustvae
from robustvae import params
from robustvae.errors import UserError
from robustvae.experiments import rwlock
from robustvae.models import folder as model_folder
from robustvae.params.yaml12 import read
from robustvae.runtime import files

WRITTEN = (ROOT / "params.yaml").read_bytes()


def told(path: Path, content: bytes) -> str:
    """What is said of params.yaml with such content: '' where nothing; no other error may come."""
    path.write_bytes(content)
    try:
        params.load(path)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("!!int x", r"line 1, column 6: not valid YAML: no value of type int"),
        ("!!float x", r"line 1, column 6: not valid YAML: no value of type float"),
        ("!!bool maybe", r"line 1, column 6: not valid YAML: no value of type bool"),
        ("!!timestamp x", r"line 1, column 6: not valid YAML: .*timestamp"),
        ("!!python/object:os.system x", r"line 1, column 6: not valid YAML: .*python/object"),
        ("[" * 5000, r"line 1, column \d+: not valid YAML: nested more than 50 deep"),
        ("9" * 5000, r"line 1, column 6: not valid YAML: no value of type int"),
        ("&a [*a]", r"line 1, column \d+: not valid YAML: \*a stands inside itself"),
        ('"\\U00110000"', r"line 1, column \d+: not valid YAML"),
        ("\x00", r"line 1, column 6: not valid YAML: unacceptable character #x0000"),
    ],
)
def test_a_fault_of_yaml_is_named_with_its_place(tmp_path: Path, value: str, text: str) -> None:
    (tmp_path / "params.yaml").write_bytes(f"run: {value}\n".encode())
    with pytest.raises(UserError, match=text) as caught:
        read(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path: Path) -> None:
    text = told(tmp_path / "params.yaml", b"run:\n  seed: \xff\n")
    assert "line 2, column 9: not UTF-8 text; save the file as UTF-8" in text


def test_a_key_that_is_no_word_is_one_line(tmp_path: Path) -> None:
    for key in ("null", "1", "true", "1.5"):
        text = told(tmp_path / "params.yaml", WRITTEN.replace(b"  seed: 0", f"  {key}: 0".encode()))
        assert "params.yaml: run" in text


WORDS = "!!int!!float!!bool!!null!!set!!binary null ~ &a *a <<: .nan -.inf 0o17 0x1f 1e400 --- ..."
MARKS = b"[]{}\n\t\xff\xc3'\"|>%@`#?:-\x00\xef,"
PIECES = [word.encode() + b" x" for word in WORDS.replace("!!", " !!").split()]
PIECES += [bytes([mark]) for mark in MARKS] + [b": ", b"- ", b"  ", b"9" * 5000, b"[" * 200]


def mutated(rng: random.Random) -> bytes:
    """params.yaml with one to four accidents."""
    content = bytearray(WRITTEN)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content))
        end = min(len(content), start + rng.choice((0, 1, 3, 30, 300)))
        how, piece = rng.randrange(4), rng.choice(PIECES)
        if how == 0:
            content[start:end] = piece
        elif how == 1:
            del content[start:end]
        elif how == 2:
            content[start:start] = content[start:end] * rng.randint(1, 3)
        else:  # in place of a value
            colon = content.find(b": ", start)
            stop = content.find(b"\n", colon)
            if 0 <= colon < stop:
                content[colon + 2 : stop] = piece
    return bytes(content)


@pytest.mark.parametrize("part", range(4))
def test_two_thousand_accidents_end_in_lines(tmp_path: Path, part: int) -> None:
    """Of 2,000 damaged files each is read, or refused in lines that name the file."""
    rng, refused = random.Random(part), 0
    for _ in range(500):
        content = mutated(rng)
        try:
            text = told(tmp_path / "params.yaml", content)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} for {content!r}") from error
        lines = text.splitlines()
        assert all(line.startswith("params.yaml: ") or "params.yaml: " in line for line in lines)
        assert all(len(line) < 2000 for line in lines)
        refused += bool(text)
    assert 250 < refused < 500


# --- a lock file that a kill has cut off


@pytest.mark.parametrize("content", [b"", b"{", b'{"read": {'])
def test_a_cut_off_lock_is_removed_unless_it_is_being_written(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    assert not rwlock.mend(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with FileLock(path.with_name("rwlock.lock")):
        code = "from pathlib import Path; from robustvae.experiments.rwlock import mend; "
        code += f"print(mend(Path({str(tmp_path)!r})))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout == b"False\n"
    assert path.exists()
    assert rwlock.mend(tmp_path)
    assert not path.exists()
    assert "cut off by a kill" in capsys.readouterr().out


def test_a_whole_lock_stays(tmp_path: Path) -> None:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text('{"read": {}, "write": {}}')
    assert not rwlock.mend(tmp_path)
    assert path.exists()


# --- models


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of a model folder."""
    return Path(shutil.copytree(tiny.model("gaussian"), tmp_path / "model"))


@pytest.mark.parametrize("size", [10**9, 10**15, 10**30])
def test_absurd_sizes_are_refused_before_memory_is_taken(model: Path, size: int) -> None:
    config = json.loads((model / "config.json").read_text())
    config["model"]["latent_dim"] = size
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json") as caught:
        model_folder.load(model)
    assert "\n" not in str(caught.value)


def test_weights_of_another_type_are_refused(model: Path) -> None:
    state = {name: value.double() for name, value in load_file(model / "model.safetensors").items()}
    save_file(state, model / "model.safetensors")
    with pytest.raises(UserError, match=r"float64, not .*float32"):
        model_folder.load(model)


# --- disks


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 1,000 bytes, as with `ulimit -f`."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _npy(path: Path) -> None:
    files.save_npy(path / "x.npy", np.zeros(5000))


def _npz(path: Path) -> None:
    files.save_npz(path / "x.npz", x=np.zeros(5000))


def _json(path: Path) -> None:
    files.write_json(path / "x.json", list(range(5000)))


def _mapped(path: Path) -> None:
    with files.replace(path / "x.npy") as temporary:
        np.lib.format.open_memmap(temporary, "w+", np.uint8, (5000,))[:] = 1


def _model(path: Path) -> None:
    settings = params.load(ROOT / "params.yaml")
    with torch.random.fork_rng():
        model = model_folder.Autoencoder.build(settings.model, settings.loss, (1, 28, 28))
    model_folder.save(model, {}, path)


WRITERS = [_npy, _npz, _json, _mapped, _model]


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("write", WRITERS)
def test_a_limit_of_the_size_of_files_is_one_line(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    with pytest.raises(
        UserError,
        match=r"(larger than .*\(ulimit -f\)|no space left on .*); make room",
    ):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left on the device; make room"),
        (errno.EFBIG, r"larger than a file may be here \(ulimit -f\); make room"),
        (errno.EDQUOT, "disk quota exceeded; make room"),
        (errno.EROFS, r"cannot be written \(No room\); make its folder writable"),
    ],
)
def test_a_full_disk_is_one_line(
    tmp_path: Path,
    write: Callable[[Path], None],
    number: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(number, "No room")

    monkeypatch.setattr("robustvae.runtime.files.os.fsync", full)
    with pytest.raises(UserError, match=text):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


# --- images


def test_an_empty_array_is_not_corrupted_in_silence(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 28, 28), np.uint8))
    done = subprocess.run(
        [sys.executable, "-m", "robustvae", "corrupt", tmp_path / "x.npy", "--out", tmp_path / "y"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "x.npy: holds no image" in done.stderr
    assert not (tmp_path / "y").exists()


def test_true_is_white(model: Path) -> None:
    vae = robustvae.load(model)
    channels, height, width = vae.model.shape
    black = np.zeros((2, channels, height, width), bool)
    black[0, :, :4] = True
    for images in (black, torch.from_numpy(black)):
        assert (vae.reconstruct(images) == vae.reconstruct(black * np.uint8(255))).all()
