"""Traces every architecture of the tests and writes `docs/architectures.md`.

python docs/architectures.py
"""

import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "host"))

HEAD = """# Traced architectures

Small models, built from configuration: those of `transformers`, of `torch.nn` and of PyTorch
Geometric, and a few shapes of our own. *Joins* are connections in which data meets other data on
the way (residual sums, concatenations). *Missed flows* are pairs of a layer and a parameter that
autograd knows to influence its output while the traced graph does not. Time is one traced forward
pass, on one core, after another one that warmed up. Made by `python docs/architectures.py`.

| architecture | layers | connections | joins | parameters placed | missed flows | ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def row(name: str) -> str:
    """One line of the table."""
    from autograd_reference import make, missing_flows, traced  # noqa: PLC0415 - needs the path

    sample = make(name)
    traced(sample)
    started = time.perf_counter()
    topology = traced(sample)
    milliseconds = 1e3 * (time.perf_counter() - started)
    total = sum(parameter.numel() for parameter in sample.model.parameters())
    placed = sum(node.parameters for node in topology.nodes) / total
    cells = (
        name,
        len(topology),
        len(topology.edges),
        sum(edge.joins for edge in topology.edges),
        f"{placed:.0%}",
        len(missing_flows(sample, topology)),
        f"{milliseconds:.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from zoo import ZOO  # noqa: PLC0415 - needs the path

    rows = [row(name) for name in ZOO]
    (ROOT / "docs" / "architectures.md").write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
