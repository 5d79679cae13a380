"""Jobs in real processes: nothing of them is left, whatever ends the program, and little is said.

Workers share the standard output of the program, so that its end, which `communicate` waits for,
is the end of all of them.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from tamiyo.bench.pools import INTERRUPTED, interrupts_held_back, run_jobs

PROGRAM = '''
"""What is done by whom goes into a folder, by process id."""

import os
import sys
from pathlib import Path

FOLDER, KIND = Path(sys.argv[1]), sys.argv[2]
if __name__ == "__mp_main__":
    (FOLDER / f"importing-{os.getpid()}").touch()

from tamiyo.bench.pools import one_line_when_interrupted, run_jobs


def work(place):
    (FOLDER / f"working-{os.getpid()}").touch()
    while KIND == "endless" or (KIND == "failing" and place > 0):
        pass
    return place**2


def prepare():
    (FOLDER / f"prepared-{os.getpid()}").touch()


def fail(*_):
    raise RuntimeError("no such luck")


if __name__ == "__main__":
    found = {}
    with one_line_when_interrupted("stopped"):
        on_result = fail if KIND == "failing" else found.__setitem__
        run_jobs(work, range(3), 2, on_result, prepare=prepare)
    print(sorted(found.items()))
'''


@pytest.fixture
def start(tmp_path):
    """Starts the program, in a process group of its own as at a terminal."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    begun = []

    def run(kind):
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers(folder, sign, process):
    """Process ids of both workers, as soon as they are at it."""
    while len(found := list(folder.glob(f"{sign}-*"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    return [int(path.name.partition("-")[2]) for path in found]


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_with_one_line(start, tmp_path):
    process = start("endless")
    workers(tmp_path, "working", process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=300) == ("", "stopped\n")
    assert process.returncode == INTERRUPTED


@pytest.mark.slow
def test_a_worker_that_is_still_importing_does_not_see_interrupts(start, tmp_path):
    process = start("short")
    for worker in workers(tmp_path, "importing", process):
        os.kill(worker, signal.SIGINT)
    assert process.communicate(timeout=300) == ("[(0, 0), (1, 1), (2, 4)]\n", "")
    assert list(tmp_path.glob("prepared-*"))


@pytest.mark.slow
def test_workers_end_with_a_program_that_is_killed(start, tmp_path):
    process = start("endless")
    workers(tmp_path, "working", process)
    process.kill()
    process.communicate(timeout=300)


@pytest.mark.slow
def test_an_error_ends_workers_that_are_busy(start):
    process = start("failing")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said.endswith("RuntimeError: no such luck\n")


def test_one_process_does_all_jobs_in_their_order():
    found, jobs = [], [3, 1, 2]
    run_jobs(lambda job: job * 10, jobs, 1, lambda *one: found.append(one))
    assert found == [(0, 30), (1, 10), (2, 20)]
    run_jobs(lambda job: job, [], 2, lambda *one: found.append(one))
    assert len(found) == 3


@pytest.fixture
def taken():
    """Waits until a signal was taken by some thread, and tells its number."""
    theirs, mine = socket.socketpair()
    mine.setblocking(False)
    before = signal.set_wakeup_fd(mine.fileno())
    yield lambda: theirs.recv(1)[0]
    signal.set_wakeup_fd(before)
    theirs.close()
    mine.close()


def test_an_interrupt_that_another_thread_takes_waits_for_the_end_of_the_block(taken):
    """The system gives a signal to any thread that does not block it, and Python to the first."""
    done, reached = threading.Event(), []
    other = threading.Thread(target=done.wait, daemon=True)
    other.start()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with interrupts_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            assert taken() == signal.SIGINT
            reached.append("the end of the block")
        reached.append("what follows")
    done.set()
    other.join()
    assert reached == ["the end of the block"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupts_are_held_back_in_any_thread():
    reached = []

    def run():
        with interrupts_held_back():
            reached.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    other = threading.Thread(target=run)
    other.start()
    other.join()
    assert reached == [True]
