"""Commands that are interrupted as at a terminal, where a signal reaches all their processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tamiyo.bench.pools import INTERRUPTED

EVALUATE = textwrap.dedent(
    """
    import sys
    from dataclasses import replace
    from pathlib import Path

    from tamiyo.cli import evaluate as command
    from tamiyo.cli.main import app
    from tamiyo.envs.training.sampling import TrainingConfig

    short = TrainingConfig(decisions=6, interval=3, max_hidden=2, widths=(16,), held_out=32)
    find, run = command.find_splits, command.run
    command.find_splits = lambda names: [replace(split, config=short) for split in find(names)]

    def noted(request, workers, on_done):
        def done(job):
            marker.touch()
            on_done(job)

        return run(request, workers, done)

    marker = Path(sys.argv[1])
    command.run = noted
    options = ["--cohorts", "rules", "--seeds", "2000", "--hosts", "2", "--workers", "2"]
    app(["evaluate", *options])
    """
)
"""The installed command with runs that take a moment, which touches a file when one is done."""
TRAIN = textwrap.dedent(
    """
    import sys

    from tamiyo.cli.main import app

    app(["train", "--workers", "2", "--output", sys.argv[1]])
    """
)


def interrupted(program, argument, marker):
    """What was said by a program that is interrupted as soon as a file is there, line by line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(argument)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not marker.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
        # The workers have the same output: its end is theirs.
        output, errors = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == INTERRUPTED, errors
    assert not output
    return errors.strip().splitlines()


@pytest.mark.slow
def test_an_evaluation_stops_with_one_line(tmp_path):
    marker = tmp_path / "done"
    assert interrupted(EVALUATE, marker, marker) == ["Interrupted: nothing was written."]


@pytest.mark.slow
def test_a_training_stops_and_says_that_it_goes_on(tmp_path):
    said = interrupted(TRAIN, tmp_path, tmp_path / "lessons" / "round-0000.safetensors")
    text = "".join(said)
    assert f"Interrupted: the same command goes on where it was, from {tmp_path}." in text
    assert "Traceback" not in text
    # It does: the folder is that of the same training, and whole.
    assert (tmp_path / "training.json").exists()


@pytest.mark.slow
def test_a_training_that_is_interrupted_while_its_workers_begin_says_the_same(tmp_path):
    said = interrupted(TRAIN, tmp_path, tmp_path / "training.json")
    assert "Traceback" not in "".join(said)
