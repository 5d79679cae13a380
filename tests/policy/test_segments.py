import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.policy.segments import (
    segment_log_softmax,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)

rows = st.lists(
    st.tuples(st.floats(-50, 50, width=32), st.integers(0, 3), st.booleans()), min_size=1
)


def unpack(items):
    scores, segment, valid = zip(*items, strict=True)
    return torch.tensor(scores), torch.tensor(segment), torch.tensor(valid)


@settings(deadline=None)
@given(rows)
def test_reductions_equal_a_loop_over_segments(items):
    values, segment, _ = unpack(items)
    for index in range(4):
        own = values[segment == index]
        expected = (own.sum(), own.mean(), own.max()) if len(own) else (0.0, 0.0, -torch.inf)
        for reduce, value in zip((segment_sum, segment_mean, segment_max), expected, strict=True):
            torch.testing.assert_close(
                reduce(values, segment, 4)[index], torch.as_tensor(value), rtol=1e-5, atol=1e-4
            )


@settings(deadline=None)
@given(rows)
def test_softmaxes_equal_torch_on_each_segment(items):
    scores, segment, valid = unpack(items)
    soft = segment_softmax(scores, segment, 4)
    log = segment_log_softmax(scores, valid, segment, 4)
    for index in range(4):
        own = segment == index
        torch.testing.assert_close(soft[own], scores[own].softmax(0), rtol=1e-5, atol=1e-6)
        chosen = own & valid
        torch.testing.assert_close(log[chosen], scores[chosen].log_softmax(0), rtol=1e-4, atol=1e-4)
    assert bool((log[~valid] == -torch.inf).all())


@settings(deadline=None)
@given(rows)
def test_rows_that_are_not_valid_get_no_gradient(items):
    scores, segment, valid = unpack(items)
    scores.requires_grad_()
    log = segment_log_softmax(scores, valid, segment, 4)
    (log.exp() * torch.arange(len(scores))).sum().backward()
    assert bool(torch.isfinite(scores.grad).all())
    assert bool((scores.grad[~valid] == 0).all())
