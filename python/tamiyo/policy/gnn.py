"""The learned policy: a graph network that says whether, where and how to adapt."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import SCHEMA_VERSION
from tamiyo.policy.actions import ActionDistribution
from tamiyo.policy.calibration import Calibration
from tamiyo.policy.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.heads import Heads, sample_unit_masks
from tamiyo.policy.inputs import GraphInputs
from tamiyo.policy.judgement import Judge
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

    def __init__(self, policy_config: PolicyConfig | None = None) -> None:
        super().__init__()
        self.config = PolicyConfig() if policy_config is None else policy_config
        self.trunk = Trunk(self.config)
        self.heads = Heads(self.config.hidden_dim)
        self.calibration = Calibration()
        self.budget = make_budget(self.config)
        self._identity = UNTRAINED
        for module in self.trunk.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

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
            data: PyG `Data` or `Batch` as `ModelGraphBuilder` makes them.
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
        inputs = GraphInputs.from_data(data)
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
        if state.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"the graph has schema version {state.schema_version}, "
                f"this policy reads version {SCHEMA_VERSION}"
            )
        if not self.is_trained:
            return Verdict(None, "untrained network: load weights with from_pretrained")
        if state.topology is None:
            return Verdict(None, "no topology: it is not known what may be done to which layer")
        data, device = state.graph_data, self.trunk.whole_model.device
        if data.x.device != device:
            # `to` on PyG's data works in place, and the state is not ours to move.
            data = data.clone().to(device)
        with torch.inference_mode():
            outputs = self(data, uncertainty=self.config.enable_uncertainty)
        judge = Judge(self.name, self.version, self.config, self.calibration, self.budget)
        verdict = judge.verdict(state, outputs)
        if verdict.decision is not None:
            self.budget.charge(verdict.decision, state.epoch)
        return verdict

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision

    def save_pretrained(self, directory: str | Path, training: Mapping[str, Any]) -> str:
        """Write the policy as safetensors and a JSON manifest.

        Args:
            directory: Where to; made when absent.
            training: How the weights came to be (command, seed, data), as JSON values.

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
            "training": dict(training),
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
            policy = cls(config)
            policy.load_state_dict(tensors)
        except (ValidationError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{directory} does not fit this policy: {error}") from None
        policy.calibration = calibration
        policy._identity = _version(manifest["sha256"])
        return policy.eval()

    def _uncertainty(
        self,
        units: Mapping[str, Tensor],
        distribution: ActionDistribution,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        if generator is None:
            generator = torch.Generator().manual_seed(self.config.uncertainty_seed)
        drawn = sample_unit_masks(
            self.config.uncertainty_samples,
            len(SAMPLED_HEADS) * self.config.hidden_dim,
            self.config.attention_dropout,
            generator,
        ).to(self.trunk.whole_model.device)
        masks = dict(zip(SAMPLED_HEADS, drawn.chunk(len(SAMPLED_HEADS), dim=1), strict=True))
        spread, mean = action_uncertainty(
            self.heads, units, distribution, masks, self.calibration.adapt_temperature
        )
        confidence = (mean - self.config.epistemic_weight * spread).clamp(0.0, 1.0)
        return {"uncertainty": spread, "epistemic_confidence": confidence}


def _version(digest: str) -> str:
    return digest[:16]
