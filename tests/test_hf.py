"""The Hugging Face callback in a real Trainer."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    from tamiyo.hf import TamiyoCallback

pytestmark = pytest.mark.filterwarnings(r"ignore:::(transformers|accelerate|torch)\b")  # not ours


def train(tmp_path, callback, *, accumulate=1):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    data = [{"input_ids": torch.randint(1, 32, (6,)), "labels": index % 2} for index in range(64)]
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=accumulate,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    callbacks = [callback] if callback else []
    trainer = transformers.Trainer(
        model=model, args=args, train_dataset=data, eval_dataset=data, callbacks=callbacks
    )
    trainer.train()
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
