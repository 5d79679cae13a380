"""Processes train what one process trains, say what went wrong, and leave nobody behind."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from test_vector_env import legal_at_random

CONFIG = TrainingConfig(decisions=3, interval=5, max_hidden=4, held_out=64)


def make(workers):
    return TrainingVectorEnv(7, config=CONFIG, cohort_size=2, workers=workers)


@pytest.fixture(scope="module")
def two():
    env = make(2)
    yield env
    env.close()


def flattened(values):
    """Every array in nested results by a name."""
    if isinstance(values, dict):
        values = values.items()
    elif isinstance(values, tuple):
        values = enumerate(values)
    else:
        return {"": values}
    return {
        f"{name}/{rest}": array for name, one in values for rest, array in flattened(one).items()
    }


def assert_same(one, other):
    one, other = flattened(one), flattened(other)
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_the_results_are_those_of_one_process(two):
    one, random = make(1), np.random.default_rng(0)
    start = one.reset(seed=3)
    assert_same(start, two.reset(seed=3))
    (observation, _), adapted = start, False
    # Beyond the end of an episode.
    for number in range(2 * CONFIG.decisions):
        assert_same(one.oracle_actions(), two.oracle_actions())
        actions = one.oracle_actions() if number % 2 else legal_at_random(one, observation, random)
        results = one.step(actions)
        assert_same(results, two.step(actions))
        observation = results[0]
        adapted |= results[-1]["adapted"].any()
    assert adapted


def test_what_was_returned_does_not_change_any_more(two):
    observation, infos = two.reset(seed=0)
    before = {name: array.copy() for name, array in flattened((observation, infos)).items()}
    two.step(np.zeros((7, 3), np.int64))
    assert_same(before, flattened((observation, infos)))


def test_there_are_no_more_processes_than_cohorts():
    env = TrainingVectorEnv(4, config=CONFIG, cohort_size=4, workers=3)
    env.reset(seed=0)
    assert len(env.episodes) == 1


def running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def children(env):
    return [process.pid for process in env._crew._processes]


@pytest.mark.slow
def test_a_process_that_dies_is_named_and_the_others_end():
    env = make(2)
    env.reset(seed=0)
    first, second = children(env)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"tamiyo-training-0 died \(exit code -9\)"):
        env.step(np.zeros((7, 3), np.int64))
    assert not running(second)
    with pytest.raises(RuntimeError, match="closed"):
        env.step(np.zeros((7, 3), np.int64))
    env.close()


@pytest.mark.slow
def test_an_error_is_raised_with_its_traceback():
    env = make(2)
    env.reset(seed=0)
    actions = np.ones((7, 3), np.int64)
    actions[:, 1] = 10**6
    with pytest.raises(RuntimeError, match=r"(?s)tamiyo-training-. failed.*IndexError"):
        env.step(actions)
    env.close()


@pytest.mark.slow
def test_an_environment_that_is_dropped_ends_its_processes():
    env = make(2)
    processes = children(env)
    assert all(map(running, processes))
    del env
    assert not any(map(running, processes))


SCRIPT = """
    import os, sys
    import numpy as np
    from tamiyo.envs.training.sampling import TrainingConfig
    from tamiyo.envs.training.vector_env import TrainingVectorEnv

    if __name__ == "__main__":
        config = TrainingConfig(decisions=3, interval=5, max_hidden=4, held_out=64)
        env = TrainingVectorEnv(4, config=config, cohort_size=2, workers=2)
        env.reset(seed=0)
        print(*(process.pid for process in env._crew._processes), flush=True)
        if sys.argv[1:] == ["wait"]:
            sys.stdin.read()
"""


@pytest.mark.slow
def test_a_script_that_is_killed_leaves_no_processes(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    script = subprocess.Popen(
        [sys.executable, path, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with script:
        processes = [int(word) for word in script.stdout.readline().split()]
        assert len(processes) == 2
        assert all(map(running, processes))
        script.kill()
        # The output ends with the last process that could write to it.
        script.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["-m", "-c"])
def test_a_module_and_a_session_without_a_file_can_have_workers(start, tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    main = "script" if start == "-m" else textwrap.dedent(SCRIPT)
    found = subprocess.run(
        [sys.executable, start, main], cwd=tmp_path, text=True, capture_output=True, check=True
    )
    processes = [int(word) for word in found.stdout.split()]
    assert len(processes) == 2
    assert not any(map(running, processes))
    assert not found.stderr
