"""The Lightning callback in a real Trainer."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch")
    from tamiyo.lightning import TamiyoCallback

pytestmark = pytest.mark.filterwarnings(r"ignore:::(lightning|torch)\b")  # theirs, not ours


class Classifier(lightning.LightningModule):
    def __init__(self, *, fail_at=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
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


def fit(tmp_path, callback, *, fail_at=None, **options):
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    loader = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback] if callback else [],
        **options,
    )
    module = Classifier(fail_at=fail_at)
    trainer.fit(module, loader, loader)
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
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_error_of_the_user_passes_through_and_everything_comes_off(tmp_path):
    callback = TamiyoCallback(pace="lockstep")
    with pytest.raises(KeyError, match="mine"):
        fit(tmp_path, callback, fail_at=5)
    assert callback.control.stats()["host"]["steps"] == 5
