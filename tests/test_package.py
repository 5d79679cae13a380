"""The package as a whole: what it exports, what importing it costs, and who may import whom."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tamiyo

ROOT = Path(tamiyo.__file__).parent
ORDER = (
    "_core",
    "contracts",
    "oona",
    "host",
    "collect",
    "graph",
    "policy",
    "learn",
    "envs",
    "service",
    "control",
    "hf",
    "lightning",
    "bench",
    "cli",
)


def imported_parts(path: Path) -> set[str]:
    """Top-level parts of Tamiyo that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("tamiyo.")}
    return parts


@pytest.mark.parametrize("part", ORDER[1:])
def test_imports_only_point_up_the_list(part):
    files = sorted((ROOT / part).rglob("*.py")) or [ROOT / f"{part}.py"]
    allowed = {*ORDER[: ORDER.index(part) + 1]}
    if part == "collect":
        allowed.remove("host")  # they meet on the bus
    for path in files:
        assert imported_parts(path) <= allowed, path


def test_every_part_of_the_tree_has_its_place():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    assert parts - {"__init__", "__pycache__", "py"} <= {*ORDER}


@pytest.mark.parametrize("name", tamiyo.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(tamiyo, name).__doc__
    assert name in dir(tamiyo)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        _ = tamiyo.nothing_of_the_sort


def test_attach_is_the_function_whatever_was_imported_before():
    importlib.import_module("tamiyo.bench")
    assert callable(tamiyo.attach)


def test_importing_tamiyo_brings_in_neither_torch_nor_numpy():
    code = "import sys, tamiyo; sys.exit(int('torch' in sys.modules or 'numpy' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
