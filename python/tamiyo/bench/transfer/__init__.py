"""Whether a policy can be trusted beside live runs: healthy ones that it should leave alone, and
faulty ones that it should mend.
"""  # noqa: D205

from tamiyo.bench.transfer.cases import Case, faulty_cases, healthy_cases
from tamiyo.bench.transfer.live import play
from tamiyo.bench.transfer.rows import Act, Row, read_rows

__all__ = ["Act", "Case", "Row", "faulty_cases", "healthy_cases", "play", "read_rows"]
