"""The Lightning callback in a real Trainer."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from following import SLOW_SEED, Plan
from tamiyo import StructureError, rebuild

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch")
    from tamiyo.lightning import TamiyoCallback

pytestmark = pytest.mark.filterwarnings(r"ignore:::(lightning|torch)\b")  # theirs, not ours


class Classifier(lightning.LightningModule):
    def __init__(self, *, fail_at=None, width=16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))
        self.fail_at = fail_at

    def training_step(self, batch, index):
        if index == self.fail_at:
            raise KeyError("mine")
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        logits = self.net(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def loader():
    inputs = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=16)


def trainer_of(tmp_path, *callbacks, **options):
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, lightning.callbacks.Checkpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **{"max_epochs": 3} | options,
    )


def fit(tmp_path, callback, *, fail_at=None, **options):
    torch.manual_seed(0)
    module = Classifier(fail_at=fail_at)
    trainer_of(tmp_path, *[callback] if callback else [], **options).fit(module, loader(), loader())
    return module


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 48), (2, 24)])
def test_it_sees_every_optimiser_step_and_changes_nothing(tmp_path, accumulate, steps):
    callback = TamiyoCallback(pace="lockstep", probe_budget=1.0)
    options = {"accumulate_grad_batches": accumulate}
    watched, alone = fit(tmp_path, callback, **options), fit(tmp_path, None, **options)
    stats = callback.control.stats()
    assert stats["host"]["steps"] == steps
    assert stats["host"]["errors"] == {}
    assert stats["service"]["collection"]["metrics_received"] >= 3
    assert {node.name for node in callback.control.topology.nodes} == {"net.0", "net.1", "net.2"}
    assert callback.control.topology.notes == ()
    assert len(callback.control.topology.edges) == 2
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_error_of_the_user_passes_through_and_everything_comes_off(tmp_path):
    callback = TamiyoCallback(pace="lockstep")
    with pytest.raises(KeyError, match="mine"):
        fit(tmp_path, callback, fail_at=5)
    assert callback.control.stats()["host"]["steps"] == 5


class Decides(lightning.Callback):
    def __init__(self, callback, plan):
        self.callback, self.plan = callback, Plan(plan)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.plan.follow(self.callback.control, trainer.global_step)


PLAN = {
    8: ("widen", ["net.0"], {"units": 3.0}),
    16: ("scale_learning_rate", ["net.2"], {"factor": 0.5}),
    24: ("add_seed", ["net.0"], SLOW_SEED),
}


def fit_and_save(tmp_path, accumulate=1, *, plan=PLAN, ckpt_path=None, **options):
    """Six epochs, each of which is saved, or what is left of them after `ckpt_path`."""
    torch.manual_seed(0)
    defaults = {"pace": "lockstep", "mode": "autonomous", "probe_budget": 0.0}
    callback = TamiyoCallback(**defaults | options)
    saving = lightning.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    trainer = trainer_of(
        tmp_path,
        Decides(callback, plan),
        callback,
        saving,
        max_epochs=6,
        accumulate_grad_batches=accumulate,
    )
    module = Classifier()
    trainer.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    return module, callback


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fitting_is_resumed_bit_for_bit_where_it_was_saved(tmp_path, accumulate):
    module, callback = fit_and_save(tmp_path, accumulate, run="mine")
    one = module.state_dict()
    assert "net.0.seed.0.weight" in one
    steps = callback.control.stats()["host"]["steps"]
    for epoch in (3, 4):
        path = tmp_path / f"epoch={epoch}.ckpt"
        again, resumed = fit_and_save(tmp_path, accumulate, plan={}, ckpt_path=path)
        assert resumed.control.topology.run == "mine"
        assert resumed.control.stats()["host"]["steps"] == steps
        assert resumed.control.stats()["host"]["errors"] == {}
        other = again.state_dict()
        assert list(one) == list(other)
        assert all(map(torch.equal, one.values(), other.values()))


def test_a_checkpoint_is_evaluated_with_a_fresh_module_and_loads_without_a_trainer(tmp_path):
    module, _ = fit_and_save(tmp_path)
    path = tmp_path / "epoch=5.ckpt"
    fresh = Classifier()
    trainer_of(tmp_path, TamiyoCallback()).validate(fresh, loader(), ckpt_path=path, verbose=False)
    assert "on_load_checkpoint" not in vars(fresh)
    checkpoint = torch.load(path, weights_only=True)
    plain = Classifier()
    rebuild(plain, checkpoint["callbacks"]["TamiyoCallback"])
    plain.load_state_dict(checkpoint["state_dict"])
    inputs = torch.randn(4, 8)
    for other in (fresh, plain):
        assert torch.equal(other.net(inputs), module.net(inputs))


def test_a_checkpoint_of_another_module_is_refused(tmp_path):
    fit_and_save(tmp_path)
    trainer = trainer_of(tmp_path, TamiyoCallback())
    with pytest.raises(StructureError, match=r"not the model that was saved: 'net.0' has tensors"):
        trainer.fit(Classifier(width=8), loader(), ckpt_path=tmp_path / "epoch=5.ckpt")
