"""The last two checkpoints: a damaged one is found, and the one before it takes its place."""

from pathlib import Path

import pytest
import torch

from ssdd_lightning.callbacks.checkpoint import WholeCheckpointIO, before, whole_checkpoint
from ssdd_lightning.errors import InputError


@pytest.fixture
def last(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    for step in (1, 2, 3):
        WholeCheckpointIO().save_checkpoint({"state_dict": {"a": torch.full((999,), float(step))}}, path)
    return path


def step_of(path: Path | None) -> float:
    assert path is not None
    return float(torch.load(path, weights_only=True)["state_dict"]["a"][0])


def damage(path: Path) -> None:
    """Change a byte in the middle of the tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def test_the_last_two_are_kept(last: Path) -> None:
    assert step_of(whole_checkpoint(last)) == 3
    assert step_of(before(last)) == 2
    assert sorted(path.name for path in last.parent.iterdir()) == ["last-before.ckpt", "last.ckpt"]


@pytest.mark.parametrize("how", [damage, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-100])])
def test_the_one_before_takes_the_place_of_a_damaged_one(
    last: Path, how: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(how)
    how(last)
    with caplog.at_level("INFO"):
        assert step_of(whole_checkpoint(last)) == 2
    assert f"the one before it, {before(last)}, takes its place." in caplog.text


def test_without_a_whole_one_there_is_a_sentence(last: Path) -> None:
    damage(last)
    damage(before(last))
    with pytest.raises(InputError, match=r"^cannot read the checkpoint .*last\.ckpt: damaged: Bad CRC-32 for file"):
        whole_checkpoint(last)
    last.unlink()
    before(last).unlink()
    assert whole_checkpoint(last) is None


def test_a_checkpoint_that_is_written_damaged_replaces_nothing(last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def torn(content: object, stream: object) -> None:
        save(content, stream)  # type: ignore[arg-type]
        stream.seek(700)  # type: ignore[attr-defined]
        stream.write(b"torn")  # type: ignore[attr-defined]

    monkeypatch.setattr("torch.save", torn)
    with pytest.raises(InputError, match="damaged"):
        WholeCheckpointIO().save_checkpoint({"state_dict": {"a": torch.zeros(999)}}, last)
    assert (step_of(last), step_of(before(last))) == (3, 2)
    assert sorted(path.name for path in last.parent.iterdir()) == ["last-before.ckpt", "last.ckpt"]


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"a": torch.zeros(10)}, path)
    whole, before = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*last\.ckpt: File too large; choose a folder"):
            WholeCheckpointIO().save_checkpoint({"a": torch.zeros(1 << 16)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    assert not list(tmp_path.glob(".*"))
