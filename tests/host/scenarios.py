"""What ranks do in the tests of data-parallel runs; each function runs in a process of its own."""

import copy
import os
import threading
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

import tamiyo
from replicas import RANKS, Replica
from tamiyo.contracts import AdaptationType
from tamiyo.host.follower import Follower
from tamiyo.host.rendezvous import INTERVAL, Rendezvous
from tamiyo.policy import RulesPolicy


def adapt(rank, kind, layers, parameters, optimizer, more=0, **options):
    run = Replica(rank, optimizer=optimizer, horizon=16, **options)
    run.steps(4)
    run.decide(kind, tuple(run.layer(name) for name in layers), **parameters)
    run.steps(2 * INTERVAL)
    during = run.report()
    run.steps(5 * INTERVAL + more)
    return run.report(during=during)


def hurt_after_widening(rank):
    run = Replica(rank, horizon=200)
    run.steps(30)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(2 * INTERVAL)
    wide = run.module.stem.out_features
    run.target *= 100
    run.steps(3 * INTERVAL)
    return run.report(wide=wide, narrow=run.module.stem.out_features)


def restore(rank):
    run = Replica(rank)
    run.steps(200)
    good = run.report()
    with torch.no_grad():
        run.module.mid.weight.fill_(float("nan"))
    run.steps(8)
    run.decide(AdaptationType.RESTORE)
    run.steps(3 * INTERVAL)
    return run.report(good=good)


def seed_that_is_taken_out(rank):
    run = Replica(rank, horizon=10)
    run.steps(4)
    mid = run.layer("mid")
    run.decide(AdaptationType.ADD_SEED, (mid,), training_steps=2, blending_steps=2)
    run.steps(3 * INTERVAL)
    seeded = len(list(run.module.parameters()))
    run.decide(AdaptationType.REMOVE_SEED, (mid,), "d2", blending_steps=INTERVAL // 2)
    run.steps(4 * INTERVAL)
    return run.report(seeded=seeded)


class Stubborn(nn.Linear):
    """A layer that cannot be drawn anew on one rank."""

    def reset_parameters(self):
        if getattr(self, "stubborn", False):
            raise RuntimeError("not on this rank")
        super().reset_parameters()


def one_refuses(rank, how):
    memory = 10 if how == "memory" and rank == 1 else 1 << 30
    run = Replica(rank, snapshot_memory=memory, stem=Stubborn(6, 16))
    run.steps(4)
    run.module.stem.stubborn = how == "error" and rank == 1
    if how == "apart" and rank == 1:
        with torch.no_grad():
            run.module.head.bias.add_(1e-7)
    run.decide(AdaptationType.REINITIALIZE, (run.layer("stem"),), scope="all")
    run.steps(3 * INTERVAL)
    return run.report()


def undisturbed(rank, attach, **options):
    run = Replica(rank, attach=attach, **options)
    return run.steps(60), run.weights()


def half_attached(rank):
    run = Replica(rank, attach=rank == 0)
    run.steps(4)
    if rank == 0:
        run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(3 * INTERVAL)
    return run.report() if rank == 0 else None


def without_wrapper(rank):
    run = Replica(rank, wrap=False)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(3 * INTERVAL)
    return run.report(advice=len(run.session.advice))


def framework(rank):
    """Attached to the module inside the wrapper, as callbacks of frameworks are."""
    run = Replica(rank, inner=True)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(2 * INTERVAL)
    return run.report()


def communication_hook(rank):
    run = Replica(rank)
    run.model.register_comm_hook(None, _average)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(2 * INTERVAL)
    run.decide(AdaptationType.REINITIALIZE, (run.layer("stem"),), "d2", scope="all")
    run.steps(2 * INTERVAL)
    return run.report()


def _average(_state, bucket):
    work = distributed.all_reduce(bucket.buffer().div_(RANKS), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def compiled(rank):
    run = Replica(rank, compiled=True, horizon=20)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(5 * INTERVAL)
    run.session.remove()
    return run.report(edges=len(run.session.topology.edges))


def failing_hook(rank):
    run = Replica(rank)
    run.steps(4)
    run.decide(AdaptationType.CLIP_GRADIENTS, (run.layer("mid"),), ratio=0.01)
    run.steps(2 * INTERVAL)
    if rank == 1:
        run.session._faults.note("adaptation hooks", RuntimeError("only here"))
    run.steps(3 * INTERVAL)
    return run.report()


def dies(rank, moment):
    Rendezvous.__init__.__kwdefaults__["patience"] = 3.0
    run = Replica(rank)
    run.steps(4)
    if moment == "training" and rank == 1:
        os._exit(1)
    if rank == 1:
        Follower._attempt = lambda *_: os._exit(1)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    try:
        run.steps(3 * INTERVAL)
    except RuntimeError as error:
        run.session.remove()
        return run.report(raised=str(error), width=run.module.stem.out_features)
    return None


def variant(rank, options):
    """Other wrappers, with gradients accumulated over two batches."""
    run = Replica(rank, wrapper=options, accumulate=2, horizon=20)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(2 * INTERVAL)
    during = run.report()
    run.target *= 100
    run.steps(4 * INTERVAL)
    return run.report(during=during)


def sharded(rank):
    mesh = distributed.init_device_mesh("cpu", (RANKS,))
    run = Replica(rank, wrap=False, attach=False)
    fully_shard(run.module, mesh=mesh)
    run.optimizer = torch.optim.SGD(run.module.parameters(), 0.02)
    run.attach()
    run.steps(4)
    run.decide(AdaptationType.REINITIALIZE, (run.layer("stem"),), scope="all")
    run.steps(2 * INTERVAL)
    stats = run.session.stats()
    said = sum("sharded over processes" in record.getMessage() for record in Replica.log.buffer)
    return stats.mode, stats.errors, stats.samples > 0, len(run.session.advice), said


def saved_and_loaded(rank):
    run = Replica(rank, horizon=10)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(4 * INTERVAL)
    saved = copy.deepcopy(
        (run.session.state_dict(), run.module.state_dict(), run.optimizer.state_dict())
    )
    run.session.remove()
    expected = run.steps(20)
    again = Replica(rank, inner=True)
    again.session.load_state_dict(saved[0])
    again.module.load_state_dict(saved[1])
    again.optimizer.load_state_dict(saved[2])
    again.skip(4 + 4 * INTERVAL)
    losses = again.steps(20)
    again.decide(AdaptationType.REINITIALIZE, (again.layer("mid"),), "d2", scope="all")
    again.steps(3 * INTERVAL)
    return again.report(same=losses == expected)


def attached(rank, folder):
    """The whole of Tamiyo on each rank, with the rules deciding."""
    run = Replica(rank, attach=False)
    journal = Path(folder) / f"journal-{rank}"
    control = tamiyo.attach(
        run.model,
        run.optimizer,
        mode="autonomous",
        policy=RulesPolicy(),
        pace="lockstep",
        journal=journal,
        probe_budget=1.0,
        snapshot_budget=1.0,
    )
    threads = [thread.name for thread in threading.enumerate()]
    run.session = control
    run.steps(200)
    with torch.no_grad():
        run.module.mid.weight.fill_(float("nan"))
    run.steps(6 * INTERVAL)
    report = {
        "weights": run.weights(),
        "history": [(str(d.adaptation), str(r.outcome)) for d, r in control.history],
        "journal": journal.exists(),
        "thinks": "tamiyo" in threads,
        "health": len(control.health()),
        "errors": control.stats()["host"]["errors"],
    }
    control.remove()
    return report
