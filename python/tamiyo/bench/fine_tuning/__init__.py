"""How much does a policy gain from a few experiences with networks and data it has never seen?"""

from tamiyo.bench.fine_tuning.tuning import EXPERIENCES, PAIRS, fine_tuned

__all__ = ["EXPERIENCES", "PAIRS", "fine_tuned"]
