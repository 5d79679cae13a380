"""Whether a state is like those that a network was trained on.

A network answers whatever it is shown, and outside of its training data Monte Carlo dropout can be
as sure as inside. Three things are simple to tell: layers of types that were never trained on,
measurements far from those that the network was normalised by, and missing ones that never were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import LAYER_TYPES
from tamiyo.policy.inputs import MaskedNormalizer
from tamiyo.policy.protocol import Check

__all__ = ["FAR", "KIN", "Familiarity"]

KIN: Mapping[str, str] = {"conv": "linear"}
"""What a type of layer can be seen as by a network that was never trained on it. A convolution is a
linear layer that is applied at many places: what is measured of its channels is what is measured of
units. `docs/deciding.md` says how that was tried; a type is added here only when it was."""
FAR = 5.0
"""Fitted standard deviations from the mean beyond which a value is far."""
MOST = 0.25
"""Share of the measured values, or of the layers, from which on they make a state unfamiliar."""
ALWAYS = 0.999
"""Share of the states in training that had a value, from which on it always was there."""


@dataclass(frozen=True, slots=True)
class Familiarity:
    """What a network has seen, and how to tell what it has not.

    The layer that a decision is about is looked at by itself: in a large model an average over all
    layers would hide it.

    Of the states of held-out runs of Training-v0, faults and random adaptations included, less than
    .5 % are unfamiliar (`tests/policy/test_familiarity.py` holds this).

    Args:
        node_norm: Of the layers' columns, fitted in training.
        global_norm: Of the model's.
        layer_types: Names, as in `LAYER_TYPES`, of the types of layers in training, and of those
            that the network sees as one of them.
    """

    node_norm: MaskedNormalizer
    global_norm: MaskedNormalizer
    layer_types: frozenset[str]

    @torch.no_grad()
    def checks(self, state: ModelGraphState, target: Sequence[int]) -> tuple[Check, ...]:
        """Conditions under which the network may be asked.

        Args:
            state: What it is asked about.
            target: Ids of the layers that it points at; none for the model as a whole.
        """
        data = state.graph_data
        names = tuple(LAYER_TYPES)
        seen = torch.tensor([name in self.layer_types for name in names])
        unseen = ~seen[data.layer_type.cpu()]
        far = far_share(self.node_norm, data.x, data.x_measured)
        run = far_share(self.global_norm, data.global_features, data.global_measured)
        gone = missing_share(self.global_norm, data.global_measured)
        found = [
            _at_most("layers of unseen types", float(unseen.float().mean())),
            _at_most("layers far from training", float((far > MOST).float().mean())),
            _at_most("values of the run far from training", float(run)),
            _at_most("values of the run missing that training always had", float(gone)),
        ]
        if target:
            rows = torch.isin(
                torch.from_numpy(state.layer_ids.astype("int64")), torch.tensor(target)
            )
            found += [
                _at_most("target of an unseen type", float(unseen[rows].any())),
                _at_most("values of the target far from training", float(far[rows].max())),
            ]
        return tuple(found)


def far_share(norm: MaskedNormalizer, values: Tensor, measured: Tensor) -> Tensor:
    """Share of the known values of each row [R, F] that are far; 0 where nothing is known."""
    device = norm.mean.device
    known = norm.known(measured.to(device))
    far = ((values.to(device) - norm.mean).abs() > FAR * norm.scale) & known
    return (far.sum(-1) / known.sum(-1).clamp_min(1)).cpu()


def missing_share(norm: MaskedNormalizer, measured: Tensor) -> Tensor:
    """Of the columns that always were measured in training, the share that is not in rows [R, F].

    It is 0 where there is no such column.
    """
    always = norm.share >= ALWAYS
    gone = ~measured.to(always.device) & always
    return (gone.sum(-1) / always.sum().clamp_min(1)).cpu()


def _at_most(name: str, share: float) -> Check:
    return Check(name, share <= MOST, share, MOST)
