"""The policies of the benchmark, a file for each; each says where its rule was published."""

from tamiyo.bench.faults.companions import controlled, growth, oracle, plateau, redo, zclip

__all__ = ["controlled", "growth", "oracle", "plateau", "redo", "zclip"]
