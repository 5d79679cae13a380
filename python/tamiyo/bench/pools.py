"""Independent jobs in this process or in several, and an interrupt that ends them all at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from typing import Any, TypeVar

import torch

__all__ = ["INTERRUPTED", "interrupts_held_back", "one_line_when_interrupted", "run_jobs"]

INTERRUPTED = 130
"""Exit code of a program that was interrupted, as shells have it: 128 and the signal's number."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    on_result: Callable[[int, Result], None],
    *,
    prepare: Callable[[], None] | None = None,
) -> None:
    """Do some jobs, and stop at once when anything goes wrong.

    Whatever ends this call early, an interrupt or an exception of a job or of `on_result`, ends the
    workers in the middle of what they do. They also end with this process, even if it is killed.

    Args:
        function: Does a job; with several workers it has to be importable, like what it is given.
        jobs: What to do.
        workers: Processes, with one thread each; with one, everything happens in this one.
        on_result: Called in this process with the place of a job and what came of it, as soon as
            that is known.
        prepare: Called first of all in every worker, but not in this process.

    Raises:
        BrokenProcessPool: a worker died.
    """
    if min(workers, len(jobs)) <= 1:
        for place, job in enumerate(jobs):
            on_result(place, function(job))
        return
    others = set(active_children())
    # A forked child would inherit the locks of torch's threads.
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(prepare,),
    )
    try:
        with interrupts_held_back():
            places = {pool.submit(function, job): place for place, job in enumerate(jobs)}
        for future in as_completed(places):
            on_result(places[future], future.result())
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Processes that are started in here never see an interrupt; this one sees it afterwards.

    An interrupt at the terminal reaches all processes, but is for the first one to handle. A new
    one could say so itself only when it has imported everything, which takes seconds.
    """
    # It is started with the first process otherwise, and then lets interrupts through again.
    resource_tracker.ensure_running()
    with _interrupts_put_off():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_put_off() -> Iterator[None]:
    # What is blocked is so for one thread and the processes that it starts. Another thread may
    # still take the signal, and Python then runs the handler in the main one: it would leave the
    # start of a process in the middle, and the process with half of what it has to know.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if seen:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def one_line_when_interrupted(said: str) -> Iterator[None]:
    """End the program with a line instead of a traceback when it is interrupted.

    Args:
        said: The line.

    Raises:
        SystemExit: it was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{said}\n")
        raise SystemExit(INTERRUPTED) from None


def _begin(prepare: Callable[[], None] | None) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    # An orphan would wait for its next job for ever.
    parent: Any = parent_process()
    parent.join()
    os._exit(1)
