"""Keeps the parts of a service running: a part that fails is restarted, the others go on."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["PartStatus", "Supervisor"]

log = logging.getLogger(__name__)

FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0


@dataclass
class PartStatus:
    """How one part is doing."""

    running: bool = False
    restarts: int = 0
    last_error: str = ""


class Supervisor:
    """Runs named coroutines; restarts one that raises, with exponential back-off and full jitter.

    A part that returns is finished. Back-off starts afresh once a part has lasted longer than
    the longest delay.
    """

    def __init__(self) -> None:
        self.parts: dict[str, PartStatus] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._jitter = random.Random()  # noqa: S311 - spreads restarts, guards nothing

    def start(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run `part()` under supervision."""
        self.parts[name] = PartStatus()
        self._tasks.append(asyncio.create_task(self._keep_running(name, part), name=name))

    async def stop(self) -> None:
        """Cancel every part and wait until all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _keep_running(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        status = self.parts[name]
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            status.running = True
            try:
                await part()
            except Exception as error:
                status.last_error = f"{type(error).__name__}: {error}"
                log.exception("%s failed and will be restarted", name)
            else:
                return
            finally:
                status.running = False
            failures = 1 if loop.time() - started > LONGEST_DELAY else failures + 1
            status.restarts += 1
            ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (failures - 1))
            await asyncio.sleep(self._jitter.uniform(0, ceiling))
