"""The learned policy: a graph network that says whether, where and how to adapt."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tamiyo.contracts import AdaptationDecision, AdaptationType
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS, LAYER_TYPES, SCHEMA_VERSION
from tamiyo.policy.actions import ActionDistribution
from tamiyo.policy.calibration import Calibration
from tamiyo.policy.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.familiarity import KIN
from tamiyo.policy.heads import Heads, sample_unit_masks
from tamiyo.policy.inputs import GraphInputs
from tamiyo.policy.judgement import Judge
from tamiyo.policy.legality import narrowed
from tamiyo.policy.proposal import make_budget
from tamiyo.policy.protocol import Verdict
from tamiyo.policy.trunk import Trunk
from tamiyo.policy.uncertainty import action_uncertainty

__all__ = ["EnhancedTamiyoPolicyGNN"]

UNTRAINED = "untrained"
SAMPLED_HEADS = ("adapt", "target", "adaptation")


class EnhancedTamiyoPolicyGNN(nn.Module):
    """Graph attention policy; see `forward` for its outputs.

    Weights are random, and `make_decision` therefore declines, unless they come from
    `from_pretrained`.

    Args:
        policy_config: Shape of the network and thresholds of its decisions.
    """

    name = "gnn"
    offered: Tensor
    """[types], bool: adaptations that were ever legal in training; none where that is unknown."""

    def __init__(self, policy_config: PolicyConfig | None = None) -> None:
        super().__init__()
        self.config = PolicyConfig() if policy_config is None else policy_config
        self.trunk = Trunk(self.config)
        self.heads = Heads(self.config.hidden_dim)
        self.calibration = Calibration()
        self.budget = make_budget(self.config)
        self.training_notes: Mapping[str, Any] = {}
        """How the loaded weights came to be: what `save_pretrained` was told."""
        self.register_buffer("offered", _offered(()), persistent=False)
        self._identity = UNTRAINED
        for module in self.trunk.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.trunk.whole_model.device

    @property
    def version(self) -> str:
        """The first 16 hex digits of the SHA-256 of the loaded weights, or `untrained`."""
        return self._identity

    @property
    def is_trained(self) -> bool:
        """Whether the weights come from a checkpoint."""
        return self._identity != UNTRAINED

    def forward(
        self, data: Any, *, uncertainty: bool = False, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """All outputs for a graph or a batch of graphs (N layers in B graphs).

        Nothing here drops anything except the uncertainty path, whatever `training` says, and
        nothing touches the global random state.

        Args:
            data: PyG `Data` or `Batch` as `ModelGraphBuilder` makes them, or what was unpacked
                from them.
            uncertainty: Also give `uncertainty` and `epistemic_confidence`.
            generator: Source of the dropout masks; by default a fresh one with the configured seed.

        Returns:
            `adaptation_prob` [B]; `layer_priority` [N] and `model_priority` [B], together one
            distribution per graph over its layers and the model as a whole (all zero where nothing
            is legal); `type_logits` [N, types] and `model_type_logits` [B, types], -inf where
            illegal; `urgency_score`, `risk_assessment`, `safety_score` [B] in [0, 1];
            `value_estimate` [B]; `temporal_analysis`: `health_trend`, `stability_trend`,
            `urgency_trend` [B] in [-1, 1]; `distribution`, the `ActionDistribution`. With
            `uncertainty` also `uncertainty` [B] in [0, 1] and `epistemic_confidence` [B], the mean
            calibrated probability of *adapt?* less `epistemic_weight` times the uncertainty.
        """
        inputs = data if isinstance(data, GraphInputs) else GraphInputs.from_data(data)
        if self.training and torch.is_grad_enabled():
            self.offered |= inputs.legal.any(0)
        candidates, graph = self.trunk(inputs)
        units = self.heads.units(candidates, graph, inputs.candidate_graph)
        raw = self.heads.outputs(units)
        distribution = ActionDistribution(raw["adapt"], raw["target"], raw["adaptation"], inputs)
        priority = distribution.target_log_prob.exp()
        type_logits = raw["adaptation"].masked_fill(~inputs.legal, -torch.inf)
        temporal = raw["temporal"].tanh()
        outputs = {
            "adaptation_prob": distribution.adapt_log_prob[:, 1].exp(),
            "layer_priority": priority[: inputs.nodes],
            "model_priority": priority[inputs.nodes :],
            "type_logits": type_logits[: inputs.nodes],
            "model_type_logits": type_logits[inputs.nodes :],
            "urgency_score": raw["urgency"].sigmoid(),
            "risk_assessment": raw["risk"].sigmoid(),
            "safety_score": raw["safety"].sigmoid(),
            "value_estimate": raw["value"],
            "temporal_analysis": {
                "health_trend": temporal[:, 0],
                "stability_trend": temporal[:, 1],
                "urgency_trend": temporal[:, 2],
            },
            "distribution": distribution,
        }
        if uncertainty:
            outputs |= self._uncertainty(units, distribution, generator)
        return outputs

    def decide(self, state: ModelGraphState) -> Verdict:
        """A decision or none, with the reason; deterministic given weights, state and budget.

        Raises:
            ValueError: the state was built under another schema version than this network reads.
        """
        verdict = self.consider(state)
        if verdict.decision is not None:
            self.budget.charge(verdict.decision, state.epoch)
        return verdict

    def consider(self, state: ModelGraphState) -> Verdict:
        """What `decide` would say; the budget is looked at, but not charged.

        Raises:
            ValueError: the state was built under another schema version than this network reads.
        """
        if state.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"the graph has schema version {state.schema_version}, "
                f"this policy reads version {SCHEMA_VERSION}"
            )
        if not self.is_trained:
            return Verdict(None, "untrained network: load weights with from_pretrained")
        if state.topology is None:
            return Verdict(None, "no topology: it is not known what may be done to which layer")
        data, device = state.graph_data, self.device
        if data.x.device != device:
            # `to` on PyG's data works in place, and the state is not ours to move.
            data = data.clone().to(device)
        with torch.inference_mode():
            inputs = narrowed(GraphInputs.from_data(data), state, self.offered)
            outputs = self(inputs, uncertainty=self.config.enable_uncertainty)
            judge = Judge(self.name, self.version, self.config, self.calibration, self.budget)
            return judge.verdict(state, outputs)

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision

    def training_state(self) -> dict[str, Tensor]:
        """What a training that goes on later must know: `state_dict` and `offered`."""
        return {**self.state_dict(), "offered": self.offered}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `training_state` was taken."""
        weights = dict(state)
        # Older checkpoints do not say it.
        self.offered.copy_(weights.pop("offered", self.offered))
        self.load_state_dict(weights)

    @torch.no_grad()
    def adopt_kin(self, layer_types: Iterable[str]) -> dict[str, str]:
        """See layers of a type without training as what they are most like (`KIN`), if that has it.

        Args:
            layer_types: Names, as in `LAYER_TYPES`, of the types of layers in training.

        Returns:
            As what each type is seen from now on.
        """
        trained, names = set(layer_types), tuple(LAYER_TYPES)
        found = {one: kin for one, kin in KIN.items() if one not in trained and kin in trained}
        table = self.trunk.type_embedding.weight
        for one, kin in found.items():
            table[names.index(one)] = table[names.index(kin)]
        return found

    def save_pretrained(self, directory: str | Path, training: Mapping[str, Any]) -> str:
        """Write the policy as safetensors and a JSON manifest.

        Args:
            directory: Where to; made when absent.
            training: How the weights came to be (command, seed, data), as JSON values; with
                `layer_types`, the names in `tamiyo.graph.schema.LAYER_TYPES` of the layers that
                were trained on, without which no state counts as familiar, and `kin`, what
                `adopt_kin` said of others. `adaptations`, the types
                that the network had to choose from, is added where it is known: others are not
                legal for the loaded policy.

        Returns:
            The version that the loaded policy will carry.

        Raises:
            ValueError: nothing is said about the training; loaded weights count as trained.
        """
        if not training:
            raise ValueError("say how the weights were trained: loaded weights count as trained")
        metadata = {
            "config": self.config.model_dump(mode="json"),
            "calibration": asdict(self.calibration),
            "training": {**self._adaptations(), **training},
        }
        return _version(write_checkpoint(Path(directory), self.state_dict(), metadata))

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, policy_config: PolicyConfig | None = None
    ) -> Self:
        """Load what `save_pretrained` wrote.

        Args:
            directory: The checkpoint.
            policy_config: Other thresholds than the saved ones; the shape must be the same.

        Raises:
            CheckpointError: missing or damaged files, another schema version, or weights that do
                not fit the configuration.
        """
        tensors, manifest = read_checkpoint(Path(directory))
        try:
            config = policy_config or PolicyConfig.model_validate(manifest.get("config"))
            calibration = Calibration(**manifest.get("calibration", {}))
            # Nothing is drawn: the random numbers of this process belong to whoever trains here.
            with torch.device("meta"):
                policy = cls(config)
            policy.load_state_dict(tensors, assign=True)
            notes = dict(manifest.get("training", {}))
            policy.offered = _offered(notes.get("adaptations", ()))
        except (ValidationError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{directory} does not fit this policy: {error}") from None
        policy.calibration = calibration
        policy.training_notes = notes
        policy._identity = _version(manifest["sha256"])
        return policy.eval()

    def _adaptations(self) -> dict[str, list[str]]:
        chosen = self.offered.nonzero()[:, 0].tolist()
        return {"adaptations": [ACTIONS[index].value for index in chosen]} if chosen else {}

    def _uncertainty(
        self,
        units: Mapping[str, Tensor],
        distribution: ActionDistribution,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        config = self.config
        shape = config.uncertainty_samples, len(SAMPLED_HEADS) * config.hidden_dim
        if generator is None:
            drawn = _seeded_masks(*shape, config.attention_dropout, config.uncertainty_seed)
        else:
            drawn = sample_unit_masks(*shape, config.attention_dropout, generator)
        drawn = drawn.to(self.device)
        masks = dict(zip(SAMPLED_HEADS, drawn.chunk(len(SAMPLED_HEADS), dim=1), strict=True))
        spread, mean = action_uncertainty(
            self.heads, units, distribution, masks, self.calibration.adapt_temperature
        )
        confidence = (mean - config.epistemic_weight * spread).clamp(0.0, 1.0)
        return {"uncertainty": spread, "epistemic_confidence": confidence}


def _offered(adaptations: Iterable[str]) -> Tensor:
    known = {AdaptationType(name) for name in adaptations}
    return torch.tensor([action in known for action in ACTIONS])


@lru_cache(maxsize=8)
def _seeded_masks(samples: int, width: int, dropout: float, seed: int) -> Tensor:
    # Tensors that were made in inference mode could not be used in training later.
    with torch.inference_mode(mode=False):
        generator = torch.Generator().manual_seed(seed)
        return sample_unit_masks(samples, width, dropout, generator)


def _version(digest: str) -> str:
    return digest[:16]
