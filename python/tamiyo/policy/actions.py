"""The action and its distribution: adapt? then where? then what?, as one log-probability."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.policy.inputs import GraphInputs
from tamiyo.policy.segments import segment_log_softmax, segment_max, segment_sum

__all__ = ["Action", "ActionDistribution"]

WHOLE_MODEL = -1


class _PerMode:
    """A tensor that is computed once for each mode of autograd.

    A plain cached property that is first read without gradients would have none ever after.
    """

    def __init__(self, compute: Callable[[Any], Tensor]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Tensor:
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        known: dict[Any, Tensor] = instance.__dict__.setdefault("_known", {})
        found = known.get((self, mode))
        if found is None:
            found = known[self, mode] = self._compute(instance)
        return found


@dataclass(frozen=True, slots=True)
class Action:
    """One action per graph; each field is [B].

    Targets count within their own graph, so that an action survives being batched differently.
    """

    adapt: Tensor
    """Bool."""
    target: Tensor
    """Index of a node within its graph, or -1 for the whole model; -1 where nothing is done."""
    type: Tensor
    """Index into `ACTIONS`; 0 where nothing is done."""

    def to(self, device: torch.device) -> "Action":
        """The same actions on another device."""
        return Action(self.adapt.to(device), self.target.to(device), self.type.to(device))


@dataclass(frozen=True, eq=False)
class ActionDistribution:
    """Factored distribution over the actions of B graphs with N layers together.

    `log π(a|s) = log π_adapt + 1[adapt] (log π_target + log π_type|target)`. Illegal choices have
    probability 0 and pass no gradient; a graph where nothing is legal never adapts.

    Exploration mixes every factor with the uniform distribution over what is legal:
    `(1 - ε) π + ε uniform`.
    """

    adapt_logit: Tensor
    """[B]."""
    target_score: Tensor
    """[N + B]: layers, then whole models."""
    type_score: Tensor
    """[N + B, types]."""
    inputs: GraphInputs

    @_PerMode
    def target_valid(self) -> Tensor:
        """[N + B]: candidates that can take any action."""
        return self.inputs.legal.any(-1)

    @_PerMode
    def can_adapt(self) -> Tensor:
        """[B]: graphs with a legal action."""
        return self._per_graph(self.target_valid.float()) > 0

    @_PerMode
    def adapt_log_prob(self) -> Tensor:
        """[B, 2]: log-probabilities of no and yes."""
        both = torch.stack([-self.adapt_logit, self.adapt_logit], dim=-1)
        certain = both.new_tensor([0.0, -torch.inf])
        return torch.where(self.can_adapt[:, None], functional.logsigmoid(both), certain)

    @_PerMode
    def target_log_prob(self) -> Tensor:
        """[N + B]: log-softmax over each graph's valid candidates."""
        return segment_log_softmax(
            self.target_score,
            self.target_valid,
            self.inputs.candidate_graph,
            self.inputs.graphs,
        )

    @_PerMode
    def type_log_prob(self) -> Tensor:
        """[N + B, types]: log-softmax over each candidate's legal types."""
        legal = self.inputs.legal
        lowest = torch.finfo(self.type_score.dtype).min
        scores = self.type_score.masked_fill(~legal, lowest)
        return scores.log_softmax(-1).masked_fill(~legal, -torch.inf)

    def mode(self) -> Action:
        """The likeliest choice of each factor in turn."""
        adapt = self.adapt_log_prob[:, 1] > self.adapt_log_prob[:, 0]
        return self._action(adapt, *self.greedy_target())

    def greedy_target(self) -> tuple[Tensor, Tensor]:
        """Candidate row and type [B] that would be acted on if the answer to *adapt?* is yes."""
        return self._greedy_row, self._greedy_type

    @torch.no_grad()
    def sample(self, generator: torch.Generator, exploration: float = 0.0) -> Action:
        """Draw one action per graph.

        Args:
            generator: Source of randomness, on the tensors' device.
            exploration: ε of the mixture, in [0, 1].
        """
        target = _mix(self.target_log_prob, self._target_uniform, exploration)
        row = self._segment_argmax(target + _gumbel(target, generator))
        kind = _mix(self.type_log_prob[row], self._type_uniform[row], exploration)
        adapt = _mix(self.adapt_log_prob, self._adapt_uniform, exploration)
        return self._action(
            (adapt + _gumbel(adapt, generator)).argmax(-1) == 1,
            row,
            (kind + _gumbel(kind, generator)).argmax(-1),
        )

    def log_prob(self, action: Action, exploration: float = 0.0) -> Tensor:
        """[B]: joint log-probability of legal actions under the mixture."""
        row = self.row_of(action)

        def factors(adapt: Tensor, target: Tensor, kind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            # Where nothing is done, an illegal row may be looked up: its -inf must not reach a sum.
            return (
                adapt.gather(1, action.adapt.long()[:, None])[:, 0],
                torch.where(action.adapt, target[row], 0.0),
                torch.where(action.adapt, kind[row].gather(1, action.type[:, None])[:, 0], 0.0),
            )

        chosen = factors(self.adapt_log_prob, self.target_log_prob, self.type_log_prob)
        if exploration:
            uniform = factors(self._adapt_uniform, self._target_uniform, self._type_uniform)
            pairs = zip(chosen, uniform, strict=True)
            adapt, target, kind = (_mix(*pair, exploration) for pair in pairs)
        else:
            adapt, target, kind = chosen
        return adapt + torch.where(action.adapt, target + kind, 0.0)

    def entropy(self) -> dict[str, Tensor]:
        """Entropy [B] of `adapt`, `target` and `type`, each over that of a uniform choice.

        The entropy of the type is its mean over targets. A factor without a choice has 0.
        """
        target = self._per_graph(_plogp(self.target_log_prob))
        choices = self._per_graph(self.target_valid.float())
        kind = _plogp(self.type_log_prob).sum(-1) / _log_choices(self.inputs.legal.sum(-1))
        weight = self.target_log_prob.exp().masked_fill(~self.target_valid, 0.0)
        return {
            "adapt": -_plogp(self.adapt_log_prob).sum(-1) / math.log(2),
            "target": -target / _log_choices(choices),
            "type": -self._per_graph(weight * kind),
        }

    def row_of(self, action: Action) -> Tensor:
        """[B]: the candidate row that each action's target stands for."""
        graph = torch.arange(self.inputs.graphs, device=action.target.device)
        whole = self.inputs.nodes + graph
        return torch.where(action.target == WHOLE_MODEL, whole, self._first_node + action.target)

    @_PerMode
    def _greedy_row(self) -> Tensor:
        return self._segment_argmax(self.target_log_prob)

    @_PerMode
    def _greedy_type(self) -> Tensor:
        return self.type_log_prob[self._greedy_row].argmax(-1)

    @_PerMode
    def _first_node(self) -> Tensor:
        graphs = self.inputs.graphs
        sizes = torch.bincount(self.inputs.node_graph, minlength=graphs)
        return sizes.cumsum(0) - sizes

    @_PerMode
    def _adapt_uniform(self) -> Tensor:
        uncertain = self.adapt_logit.new_full((2,), -math.log(2))
        certain = self.adapt_logit.new_tensor([0.0, -torch.inf])
        return torch.where(self.can_adapt[:, None], uncertain, certain)

    @_PerMode
    def _target_uniform(self) -> Tensor:
        choices = self._per_graph(self.target_valid.float()).clamp_min(1.0)
        spread = -choices.log()[self.inputs.candidate_graph]
        return spread.masked_fill(~self.target_valid, -torch.inf)

    @_PerMode
    def _type_uniform(self) -> Tensor:
        legal = self.inputs.legal
        choices = legal.sum(-1, keepdim=True).clamp_min(1).to(self.type_score.dtype)
        return (-choices.log()).expand_as(legal).masked_fill(~legal, -torch.inf)

    def _action(self, adapt: Tensor, row: Tensor, kind: Tensor) -> Action:
        local = torch.where(row < self.inputs.nodes, row - self._first_node, WHOLE_MODEL)
        return Action(adapt, torch.where(adapt, local, WHOLE_MODEL), torch.where(adapt, kind, 0))

    def _per_graph(self, rows: Tensor) -> Tensor:
        return segment_sum(rows, self.inputs.candidate_graph, self.inputs.graphs)

    def _segment_argmax(self, rows: Tensor) -> Tensor:
        """First row of each graph that holds its maximum."""
        graph, graphs = self.inputs.candidate_graph, self.inputs.graphs
        best = segment_max(rows, graph, graphs)[graph]
        index = torch.arange(len(rows), device=rows.device)
        last = torch.full((graphs,), len(rows) - 1, device=rows.device)
        return last.scatter_reduce(0, graph, index.where(rows == best, len(rows) - 1), "amin")


def _mix(log_prob: Tensor, log_uniform: Tensor, exploration: float) -> Tensor:
    if exploration == 0:
        return log_prob
    if exploration == 1:
        return log_uniform
    return torch.logaddexp(log_prob + math.log1p(-exploration), log_uniform + math.log(exploration))


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.empty_like(like).exponential_(generator=generator)
    return -noise.log()


def _plogp(log_prob: Tensor) -> Tensor:
    possible = log_prob > -torch.inf
    finite = log_prob.masked_fill(~possible, 0.0)
    return (finite.exp() * finite).masked_fill(~possible, 0.0)


def _log_choices(choices: Tensor) -> Tensor:
    """Log of a count; infinite for fewer than two, so that dividing by it gives 0."""
    return torch.where(choices > 1, choices.clamp_min(2).float().log(), torch.inf)
