"""The digest follows the sources of the environment, and nothing else."""

import shutil
from pathlib import Path

import pytest

import tamiyo
from tamiyo.bench.provenance import SOURCES, environment_digest

ROOT = Path(tamiyo.__file__).parent


@pytest.fixture
def copied(tmp_path):
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_same_sources_elsewhere_are_the_same(copied):
    assert environment_digest(copied) == environment_digest()
    assert len(environment_digest()) == 64


@pytest.mark.parametrize("name", SOURCES)
def test_a_change_anywhere_shows(copied, name):
    one = copied / name
    path = max(one.rglob("*.py")) if one.is_dir() else one
    path.write_text(path.read_text() + "\n")
    assert environment_digest(copied) != environment_digest()


def test_moving_a_line_from_one_file_to_the_next_shows(copied):
    first, second = sorted((copied / "learn/imitation").rglob("*.py"))[:2]
    text = first.read_text() + second.read_text()
    first.write_text(text[:-1])
    second.write_text(text[-1])
    assert environment_digest(copied) != environment_digest()


def test_other_files_do_not_matter(copied):
    (copied / "envs" / "training" / "notes.txt").write_text("")
    (copied / "envs" / "sandbox.py").write_text("")
    assert environment_digest(copied) == environment_digest()
