import pytest
import torch

from tamiyo.learn.checkpoints import TrainingCheckpoints, TrainingState


def state(number):
    return TrainingState({"a": torch.full((3,), float(number))}, {"number": number})


def test_the_newest_is_read_back_and_few_are_kept(tmp_path):
    checkpoints = TrainingCheckpoints(tmp_path / "new", keep=2)
    assert checkpoints.newest() is None
    for number in (1, 2, 11):
        checkpoints.write(number, state(number))
    found = TrainingCheckpoints(tmp_path / "new").newest()
    assert found.values == {"number": 11}
    assert torch.equal(found.tensors["a"], torch.full((3,), 11.0))
    assert len(list((tmp_path / "new").iterdir())) == 2


def _flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "state.safetensors").write_bytes(b"cut off"),
        lambda path: _flip_last_byte(path / "state.safetensors"),
        lambda path: (path / "state.json").write_text("{"),
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "state.safetensors").unlink(),
    ],
)
def test_a_damaged_one_is_passed_over(tmp_path, damage):
    checkpoints = TrainingCheckpoints(tmp_path)
    checkpoints.write(1, state(1))
    damage(checkpoints.write(2, state(2)))
    assert checkpoints.newest().values == {"number": 1}


def test_a_half_written_one_is_no_checkpoint_and_no_hindrance(tmp_path):
    checkpoints = TrainingCheckpoints(tmp_path)
    partial = tmp_path / "iteration-00000001.part"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    assert checkpoints.newest() is None
    checkpoints.write(1, state(1))
    assert checkpoints.newest().values == {"number": 1}
    checkpoints.write(1, state(5))
    assert checkpoints.newest().values == {"number": 5}


def test_none_to_keep_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        TrainingCheckpoints(tmp_path, keep=0)
