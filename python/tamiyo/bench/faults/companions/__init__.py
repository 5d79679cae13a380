"""The policies of the benchmark, a file for each; each says where its rule was published."""

from tamiyo.bench.faults.companions import (
    autotrainer,
    chance,
    controlled,
    deepdiagnosis,
    growth,
    oracle,
    plateau,
    redo,
    sagemaker,
    zclip,
)

__all__ = [
    "autotrainer",
    "chance",
    "controlled",
    "deepdiagnosis",
    "growth",
    "oracle",
    "plateau",
    "redo",
    "sagemaker",
    "zclip",
]
