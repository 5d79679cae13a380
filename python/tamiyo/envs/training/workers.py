"""Processes that train cohorts at the same time, each on one thread.

What is large stays in memory that they share; commands, scenarios and errors go through pipes.
Processes are spawned, never forked, because torch has threads: a script that makes an environment
with workers needs the usual `if __name__ == "__main__":` around what it does.
"""

import signal
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from tamiyo.envs.training.board import Board, Fields
from tamiyo.envs.training.hosts import Optimizer
from tamiyo.envs.training.runner import Runner, Task
from tamiyo.envs.training.sampling import TrainingConfig

__all__ = ["Workers"]

GRACE = 5.0
"""Seconds between the end of a process's pipe and its own."""
FIXED = 10.0
"""Levels that take as long as what is done once for all of them, measurements included."""
WEIGHTS: Mapping[Optimizer, float] = {"sgd": 24_000.0, "adam": 17_000.0}
"""Weights that take as long as one level more."""
_SPAWN = get_context("spawn")


class Workers:
    """N processes with a `Runner` each.

    They end with `close`, with this object and with the process that made it, even if that one is
    killed.

    Args:
        count: N.
        fields: Of the board.
        runs: B.
        config: What episodes are made of.
        device: Where to train.
    """

    def __init__(
        self, count: int, fields: Fields, runs: int, config: TrainingConfig, device: torch.device
    ) -> None:
        memory = _SPAWN.RawArray("b", Board.size(fields, runs))
        self.board = Board(fields, runs, memory)
        """What all processes read and write."""
        self._connections: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        self.close = weakref.finalize(self, _end, self._processes, self._connections)
        """End the processes; nothing is left to be done a second time."""
        for number in range(count):
            mine, theirs = _SPAWN.Pipe()
            arguments = (theirs, fields, runs, memory, config, device)
            name = f"tamiyo-training-{number}"
            process = _SPAWN.Process(target=_serve, args=arguments, name=name, daemon=True)
            process.start()
            # With this end open here, the death of the worker would go unnoticed.
            theirs.close()
            self._connections.append(mine)
            self._processes.append(process)

    def __len__(self) -> int:
        return len(self._processes)

    def begin(self, tasks: Sequence[Task]) -> None:
        """See `Runner.begin`; an episode stays where it begins."""
        self._run([("begin", (own,)) for own in _shared_out(tasks, len(self))])

    def step(self) -> None:
        """See `Runner.step`."""
        self._run([("step", ())] * len(self))

    def oracle(self) -> None:
        """See `Runner.oracle`."""
        self._run([("oracle", ())] * len(self))

    def _run(self, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        """Have every worker carry out its command, all at the same time.

        Raises:
            RuntimeError: one of them failed or died, or they have been closed.
        """
        if not self.close.alive:
            raise RuntimeError("the environment is closed")
        crew = list(zip(self._processes, self._connections, strict=True))
        try:
            for (process, connection), command in zip(crew, commands, strict=True):
                with _alive(process):
                    connection.send(command)
            for process, connection in crew:
                with _alive(process):
                    failure = connection.recv()
                _check(process, failure)
        except BaseException:
            # Answers that nobody waited for would be taken for those to the next command.
            self.close()
            raise


def _shared_out(tasks: Sequence[Task], workers: int) -> Sequence[Sequence[Task]]:
    """Tasks of each worker: the longest first, each to the one that has least to do."""
    shares: Sequence[list[Task]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for task in sorted(tasks, key=_cost, reverse=True):
        least = loads.index(min(loads))
        shares[least].append(task)
        loads[least] += _cost(task)
    return shares


def _cost(task: Task) -> float:
    """Time of an episode, in that of one level with hardly any weights for one interval's step."""
    plan = task.plan
    layers = [scenario.spec.layers for scenario in plan.scenarios]
    weights = sum(layers) * plan.width**2
    step = FIXED + max(layers) + weights / WEIGHTS[plan.scenarios[0].spec.optimizer]
    return step * plan.sensing.interval


@contextmanager
def _alive(process: SpawnProcess) -> Iterator[None]:
    """Say which process died when its pipe turns out to be closed."""
    try:
        yield
    except (EOFError, OSError) as error:
        process.join(GRACE)
        died = f"{process.name} died (exit code {process.exitcode})"
        raise RuntimeError(died) from error


def _check(process: SpawnProcess, failure: str | None) -> None:
    if failure is not None:
        raise RuntimeError(f"{process.name} failed:\n{failure}")


def _end(processes: Sequence[SpawnProcess], connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _serve(
    connection: Connection,
    fields: Fields,
    runs: int,
    memory: Any,
    config: TrainingConfig,
    device: torch.device,
) -> None:
    """Carry out commands until nobody is left to give any."""
    # An interrupt at the terminal reaches all processes, but is for the first one to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    runner = Runner(Board(fields, runs, memory), config, device)
    while True:
        try:
            command, arguments = connection.recv()
        except EOFError:
            return
        failure = None
        try:
            getattr(runner, command)(*arguments)
        except Exception:
            failure = traceback.format_exc()
        try:
            connection.send(failure)
        except BrokenPipeError:
            return
