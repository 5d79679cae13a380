"""Print the learning curve of a training: `python -m tamiyo.bench.policy_training FOLDER`."""

import sys
from pathlib import Path

from tamiyo.bench.policy_training.history import learning_curve

if __name__ == "__main__":
    sys.stdout.write(learning_curve(Path(sys.argv[1])))
