"""`python -m tamiyo.bench.policy_training`: print the learning curve of a training."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tamiyo.bench.policy_training.history import learning_curve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the curve as Markdown; a folder without one ends the program with 2.

    Args:
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tamiyo.bench.policy_training", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="what `tamiyo train --output` was given")
    folder = parser.parse_args(arguments).folder
    try:
        sys.stdout.write(learning_curve(folder))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
