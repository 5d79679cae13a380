"""An adversary that harms training runs, to see whether the governor takes it all back."""

from tamiyo.bench.adversary.assessment import Assessment
from tamiyo.bench.adversary.runs import Case, Record, run

__all__ = ["Assessment", "Case", "Record", "run"]
