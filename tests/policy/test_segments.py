import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.policy.segments import (
    segment_attention,
    segment_log_softmax,
    segment_max,
    segment_mean,
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
def test_log_softmaxes_equal_torch_on_each_segment(items):
    scores, segment, valid = unpack(items)
    log = segment_log_softmax(scores, valid, segment, 4)
    for index in range(4):
        chosen = (segment == index) & valid
        torch.testing.assert_close(log[chosen], scores[chosen].log_softmax(0), rtol=1e-4, atol=1e-4)
    assert bool((log[~valid] == -torch.inf).all())


@settings(deadline=None)
@given(rows, st.integers(0, 2**16))
def test_attention_equals_a_softmax_over_each_segment_with_its_gradients(items, seed):
    first, segment, _ = unpack(items)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack([first, torch.randn(len(first), generator=generator)], dim=1).double()
    values = torch.randn(len(first), 2, 3, generator=generator).double()
    weight = torch.randn(4, 2, 3, generator=generator).double()

    def by_loop(values, scores):
        means = [
            (values[segment == i] * scores[segment == i].softmax(0).unsqueeze(-1)).sum(0)
            for i in range(4)
        ]
        return torch.stack(means)

    found = []
    for reduce in (by_loop, lambda *both: segment_attention(*both, segment, 4)):
        leaves = [values.clone().requires_grad_(), scores.clone().requires_grad_()]
        result = reduce(*leaves)
        found.append((result, *torch.autograd.grad((result * weight).sum(), leaves)))
    for expected, one in zip(*found, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(rows)
def test_rows_that_are_not_valid_get_no_gradient(items):
    scores, segment, valid = unpack(items)
    scores.requires_grad_()
    log = segment_log_softmax(scores, valid, segment, 4)
    (log.exp() * torch.arange(len(scores))).sum().backward()
    assert bool(torch.isfinite(scores.grad).all())
    assert bool((scores.grad[~valid] == 0).all())
