"""The Hugging Face callback in a real Trainer."""

import warnings

import pytest
import torch

from following import SLOW_SEED, Plan
from tamiyo import StructureError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    from tamiyo.hf import TamiyoCallback

pytestmark = pytest.mark.filterwarnings(r"ignore:::(transformers|accelerate|torch)\b")  # not ours


def train(tmp_path, callback, *, accumulate=1, resume=None, width=32, **options):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=width, max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    draw = torch.Generator().manual_seed(0)
    data = [
        {"input_ids": torch.randint(1, 32, (6,), generator=draw), "labels": index % 2}
        for index in range(64)
    ]
    options = {"num_train_epochs": 2, "save_strategy": "no"} | options
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=accumulate,
        eval_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        **options,
    )
    callbacks = [callback] if callback else []
    trainer = transformers.Trainer(
        model=model, args=args, train_dataset=data, eval_dataset=data, callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=resume)
    return model


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 16), (2, 8)])
def test_it_sees_every_optimiser_step_and_changes_nothing(tmp_path, accumulate, steps):
    callback = TamiyoCallback(pace="lockstep", probe_budget=1.0)
    watched = train(tmp_path, callback, accumulate=accumulate)
    alone = train(tmp_path, None, accumulate=accumulate)
    stats = callback.control.stats()
    assert stats["host"]["steps"] == steps
    assert stats["host"]["errors"] == {}
    assert stats["host"]["mode"] == "observe"
    assert stats["service"]["collection"]["metrics_received"] >= 2
    assert callback.control.topology.notes == ()
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not watched._forward_hooks


class Adapted(TamiyoCallback):
    def __init__(self, plan=None, **options):
        defaults = {"pace": "lockstep", "mode": "autonomous", "probe_budget": 0.0}
        super().__init__(**defaults | options)
        self.plan = Plan(plan or {})

    def on_step_begin(self, args, state, control, **kwargs):
        self.plan.follow(self.control, state.global_step)


ENCODER = "bert.encoder.layer.0"
PLAN = {
    8: ("widen", [f"{ENCODER}.intermediate.dense"], {"units": 3.0}),
    16: ("insert_normalization", ["bert.pooler.dense"], {}),
    24: ("add_seed", [f"{ENCODER}.attention.self.query"], SLOW_SEED),
}
SAVING = {"num_train_epochs": 8, "save_strategy": "epoch"}


def test_training_is_resumed_bit_for_bit_where_it_was_saved(tmp_path):
    callback = Adapted(PLAN, run="mine")
    model = train(tmp_path, callback, **SAVING)
    one = model.state_dict()
    assert f"{ENCODER}.attention.self.query.seed.0.weight" in one
    for step in (32, 56):
        resumed = Adapted()
        other = train(tmp_path, resumed, resume=tmp_path / f"checkpoint-{step}", **SAVING)
        stats = resumed.control.stats()["host"]
        assert (stats["steps"], stats["errors"]) == (64, {})
        other = other.state_dict()
        assert list(one) == list(other)
        assert all(map(torch.equal, one.values(), other.values()))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path, Adapted(PLAN), **SAVING)
    with pytest.raises(StructureError, match=r"not the model that was saved: .* has tensors"):
        train(tmp_path, Adapted(), resume=tmp_path / "checkpoint-64", width=16, **SAVING)


def test_the_best_checkpoint_is_loaded_whatever_has_become_of_the_model(tmp_path):
    callback = Adapted(PLAN)
    # The loss falls, so that the first checkpoint, from before the adaptations, is the best one.
    best = {"metric_for_best_model": "eval_loss", "greater_is_better": True}
    model = train(tmp_path, callback, load_best_model_at_end=True, **best, **SAVING)
    assert callback.control.stats()["host"]["errors"] == {}
    assert not any("seed" in name for name in model.state_dict())
    assert not model._forward_hooks
    assert model(torch.ones(1, 6, dtype=torch.long)).logits.shape == (1, 2)
