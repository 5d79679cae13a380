import pytest
from pydantic import ValidationError

from tamiyo.policy import PolicyConfig


def test_defaults_are_those_of_the_design():
    config = PolicyConfig()
    assert config.model_dump(
        exclude={"uncertainty_seed", "budget_window_steps", "cooldown_steps", "decision_ttl_steps"}
    ) == {
        "node_feature_dim": 16,
        "edge_feature_dim": 8,
        "hidden_dim": 128,
        "num_gnn_layers": 4,
        "num_attention_heads": 4,
        "attention_dropout": 0.1,
        "enable_uncertainty": True,
        "uncertainty_samples": 10,
        "epistemic_weight": 0.1,
        "health_threshold": 0.3,
        "adaptation_confidence_threshold": 0.75,
        "uncertainty_threshold": 0.2,
        "max_adaptations_per_epoch": 2,
        "safety_margin": 0.1,
        "confirmation_steps": 10,
        "quiet_confidence": 0.05,
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"node_feature_dim": 15},
        {"hidden_dim": 10, "num_attention_heads": 4},
        {"attention_dropout": 1.0},
        {"uncertainty_samples": 1},
        {"safety_margin": 1.5},
        {"max_adaptations_per_epoch": 0},
        {"cooldown_steps": 10, "decision_ttl_steps": 20},
        {"no_such_setting": 1},
    ],
)
def test_nonsense_is_refused(settings):
    with pytest.raises(ValidationError):
        PolicyConfig(**settings)


def test_it_cannot_be_changed():
    with pytest.raises(ValidationError):
        PolicyConfig().hidden_dim = 4
