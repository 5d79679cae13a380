"""Has what Tamiyo logs during a run put down, instead of shown."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["heard"]


class _Ear(logging.Handler):
    """Keeps what is logged.

    Args:
        heard: Where to.
    """

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record, with its traceback."""
        self._heard.append(self.format(record))


@contextmanager
def heard(problems: list[str]) -> Iterator[None]:
    """Have warnings and errors of Tamiyo's own parts put down instead of shown."""
    logger, ear = logging.getLogger("tamiyo"), _Ear(problems)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.propagate = before
