import pytest
from pydantic import ValidationError

from tamiyo.learn import ProductionTrainingConfig


def test_defaults_are_those_of_the_design():
    config = ProductionTrainingConfig()
    expected = {
        "learning_rate": 3e-4,
        "weight_decay": 1e-4,
        "adam_eps": 1e-5,
        "batch_size": 64,
        "num_training_steps": 100_000,
        "gradient_clip_norm": 0.5,
        "target_update_freq": 100,
        "ppo_epochs": 4,
        "clip_ratio": 0.2,
        "value_loss_coeff": 0.5,
        "entropy_bonus_coeff": 0.01,
        "gae_lambda": 0.95,
        "safety_loss_weight": 1.0,
        "uncertainty_regularization": 0.1,
        "epistemic_threshold": 0.2,
        "safety_penalty_weight": 2.0,
    }
    assert config.model_dump(include=set(expected)) == expected
    section_4 = {
        "gamma": 1.0,
        "rho_bar": 1.0,
        "c_bar": 1.0,
        "replay_share": 0.25,
        "max_replay_ratio": 4.0,
        "min_effective_samples": 0.3,
    }
    assert config.model_dump(include=set(section_4)) == section_4


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0},
        {"clip_ratio": 1.0},
        {"batch_size": 0},
        {"gae_lambda": 2},
        {"replay_share": 0.6},
        {"exploration": 1.0},
        {"nope": 1},
    ],
)
def test_nonsense_is_refused(settings):
    with pytest.raises(ValidationError):
        ProductionTrainingConfig(**settings)


@pytest.mark.parametrize(("decisions", "steps"), [(2560, 28), (2561, 28), (2689, 30)])
def test_steps_of_an_iteration(decisions, steps):
    config = ProductionTrainingConfig(batch_size=256, replay_share=0.25, ppo_epochs=2)
    assert config.steps_of(decisions) == steps
