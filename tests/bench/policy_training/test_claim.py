"""Whose folder it is, and what is said when it is somebody else's."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tamiyo.bench.policy_training import PRESETS, Ablation, claim, train_policy
from tamiyo.bench.policy_training.claim import FILE, check_lessons, find_device, identity
from tamiyo.bench.policy_training.claim import claim as make_claim

QUICK = PRESETS["quick"]


@pytest.fixture
def mine():
    return identity(QUICK, 3, torch.device("cpu"))


def test_the_same_training_may_go_on(tmp_path, mine):
    make_claim(tmp_path / "new", mine)
    make_claim(tmp_path / "new", identity(QUICK, 3, torch.device("cpu")))


@pytest.mark.parametrize(
    ("preset", "seed", "device", "said"),
    [
        (QUICK, 4, "cpu", r"differs: seed \(3 there, 4 here\)$"),
        (QUICK, 3, "cuda", r"device \(cpu there, cuda here\)$"),
        (replace(QUICK, lessons=9), 3, "cpu", r"preset: lessons \(8 there, 9 here\)$"),
        (QUICK.without(Ablation.GRAPH), 3, "cpu", "preset: policy "),
    ],
)
def test_another_training_is_refused_with_what_differs(tmp_path, mine, preset, seed, device, said):
    make_claim(tmp_path, mine)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match=f"holds another training.*{said}"):
        make_claim(tmp_path, identity(preset, seed, torch.device(device)))
    assert (tmp_path / FILE).read_bytes() == before


def test_another_environment_is_refused(tmp_path, mine, monkeypatch):
    make_claim(tmp_path, mine)
    monkeypatch.setattr(claim, "environment_digest", lambda: "0" * 64)
    with pytest.raises(ValueError, match=r"differs: environment \(\w{40}… there, 0{40}… here\)$"):
        make_claim(tmp_path, identity(QUICK, 3, torch.device("cpu")))


def test_another_way_of_drawing_runs_is_refused(tmp_path, mine, monkeypatch):
    make_claim(tmp_path, mine)
    split = claim.SPLITS["train"]
    other = replace(split, config=replace(split.config, held_out=64))
    monkeypatch.setattr(claim, "SPLITS", {"train": other})
    with pytest.raises(ValueError, match=r"train split: held_out \(128 there, 64 here\)"):
        make_claim(tmp_path, identity(QUICK, 3, torch.device("cpu")))


@pytest.mark.parametrize("package", ["tamiyo", "torch", "numpy"])
def test_other_software_is_refused(tmp_path, mine, package):
    make_claim(tmp_path, mine | {package: "0.0.1"})
    with pytest.raises(ValueError, match=rf"differs: {package} \(0\.0\.1 there, "):
        make_claim(tmp_path, mine)


def test_a_claim_of_an_older_build_is_another_training(tmp_path, mine):
    (tmp_path / FILE).write_text(json.dumps({"preset": "Preset(...)", "seed": 3}))
    with pytest.raises(ValueError, match=r"differs: device \(unknown there, .*and \d+ more"):
        make_claim(tmp_path, mine)


@pytest.mark.parametrize("content", [b'{"seed": ', b"3", b'"seed"', b"\xff\xfe"])
def test_a_damaged_claim_is_named(tmp_path, mine, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path / FILE} is damaged"):
        make_claim(tmp_path, mine)


def test_a_damaged_lesson_is_named_and_what_to_do(tmp_path):
    folder = tmp_path / "lessons"
    folder.mkdir()
    for number in range(2):
        save_file({"weights": torch.ones(100)}, folder / f"round-{number:04d}.safetensors")
    check_lessons(tmp_path)
    path = folder / "round-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"{path} is damaged .*delete it"):
        check_lessons(tmp_path)


def test_a_training_of_nothing_claims_nothing(tmp_path):
    nothing = QUICK.without(Ablation.IMITATION).without(Ablation.REFINEMENT)
    with pytest.raises(ValueError, match="makes no policy"):
        train_policy(nothing, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["banana", "meta", "cuda:99"])
def test_devices_that_cannot_be_used_are_named(device):
    with pytest.raises(ValueError, match=f"the device '{device}' cannot be used"):
        find_device(device)


def test_the_processor_can_be_used():
    assert find_device("cpu") == torch.device("cpu")
