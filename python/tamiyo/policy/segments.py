"""Reductions over the rows of each graph or the edges into each node, without padding.

Rows are looked up with `index_select`, which is faster than indexing, forwards and backwards.
"""

import torch
from torch import Tensor

__all__ = [
    "segment_attention",
    "segment_log_softmax",
    "segment_max",
    "segment_mean",
    "segment_sum",
]


def segment_sum(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """[R, ...] summed per segment: [count, ...]."""
    return values.new_zeros(count, *values.shape[1:]).index_add_(0, segment, values)


def segment_mean(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """[R, ...] averaged per segment: [count, ...]; an empty segment gives 0."""
    rows = segment_sum(values.new_ones(len(segment)), segment, count).clamp_min(1.0)
    return segment_sum(values, segment, count) / rows.view(-1, *(1,) * (values.dim() - 1))


def segment_max(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """[R, ...], the largest per segment: [count, ...]; an empty segment gives -inf."""
    start = values.new_full((count, *values.shape[1:]), -torch.inf)
    index = segment.view(-1, *(1,) * (values.dim() - 1)).expand_as(values)
    return start.scatter_reduce(0, index, values, "amax", include_self=True)


def segment_attention(values: Tensor, scores: Tensor, segment: Tensor, count: int) -> Tensor:
    """Mean over the rows of each segment, weighted by the softmax of their scores.

    Args:
        values: [R, H, D].
        scores: [R, H], one softmax for each of H heads.
        segment: [R], the segment of each row.
        count: Number of segments.

    Returns:
        [count, H, D]; 0 for an empty segment.
    """
    # The shift cancels in the quotient, so no gradient needs to flow through it.
    peak = segment_max(scores.detach(), segment, count)
    exponent = (scores - peak.index_select(0, segment)).exp()
    # A total is at least 1, but for empty segments. At the bound itself no gradient would pass.
    total = segment_sum(exponent, segment, count).clamp_min(0.5)
    return segment_sum(values * exponent.unsqueeze(-1), segment, count) / total.unsqueeze(-1)


def segment_log_softmax(scores: Tensor, valid: Tensor, segment: Tensor, count: int) -> Tensor:
    """Log-softmax of [R] scores over the valid rows of each segment.

    Args:
        scores: [R].
        valid: [R], bool.
        segment: [R], the segment of each row.
        count: Number of segments.

    Returns:
        [R]; -inf, and no gradient, where not valid.
    """
    lowest = torch.finfo(scores.dtype).min
    peak = segment_max(scores.detach().masked_fill(~valid, lowest), segment, count)
    shifted = (scores - peak.index_select(0, segment)).masked_fill(~valid, 0.0)
    exponent = shifted.exp().masked_fill(~valid, 0.0)
    total = segment_sum(exponent, segment, count).clamp_min(torch.finfo(scores.dtype).tiny)
    log_prob = shifted - total.log().index_select(0, segment)
    return log_prob.masked_fill(~valid, -torch.inf)
