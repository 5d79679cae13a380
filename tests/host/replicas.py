"""Two real processes that train the same small model through DistributedDataParallel (gloo)."""

import faulthandler
import logging
import multiprocessing
import tempfile
from contextlib import nullcontext
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import ClassVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tamiyo.contracts import AdaptationDecision, Topic
from tamiyo.host import HostSession
from tamiyo.oona import connect

RANKS = 2
PATIENCE = 240
"""Seconds after which a rank hangs, however busy the machine is."""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16)
        self.relu = nn.ReLU()
        self.mid = nn.Linear(16, 8)
        self.tanh = nn.Tanh()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.tanh(self.mid(self.relu(self.norm(self.stem(x))))))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 2e-3),
}


class Replica:
    """A rank's training loop. Data differ from rank to rank, as they do in real runs."""

    sessions: ClassVar = []
    log: ClassVar = BufferingHandler(1000)

    def __init__(
        self,
        rank,
        *,
        optimizer="sgd",
        stem=None,
        wrap=True,
        wrapper=None,
        accumulate=1,
        inner=False,
        compiled=False,
        attach=True,
        **options,
    ):
        torch.manual_seed(0)
        self.rank = rank
        self.module = Net()
        if stem is not None:
            self.module.stem = stem
        self.model = self.module
        if wrap:
            self.model = DistributedDataParallel(self.module, **wrapper or {})
        if compiled:
            self.model = torch.compile(self.model, backend="eager")
        self.optimizer = OPTIMIZERS[optimizer](self.module.parameters())
        self.client = connect()
        self.sent = self.client.subscribe(list(Topic))
        defaults = {"run": "run", "mode": "autonomous", "probe_budget": 1.0, "snapshot_budget": 1.0}
        self._seen = self.module if inner else self.model
        self._options = defaults | options
        self._accumulate = accumulate
        self.session = None
        if attach:
            self.attach()
        self.data = torch.Generator().manual_seed(100 + rank)
        self.target = torch.randn(6, 3, generator=torch.Generator().manual_seed(7))

    def attach(self):
        self.session = HostSession(self._seen, self.optimizer, self.client, **self._options)
        Replica.sessions.append(self.session)

    def skip(self, steps):
        """Let the data of some steps pass by."""
        for _ in range(steps * self._accumulate):
            self._inputs()

    def _inputs(self):
        return torch.randn(12, 6, generator=self.data)

    def step(self):
        self.optimizer.zero_grad()
        for batch in range(self._accumulate):
            last = batch == self._accumulate - 1
            with nullcontext() if last else self.model.no_sync():
                x = self._inputs()
                loss = (self.model(x) - x @ self.target).square().mean()
                loss.backward()
        self.optimizer.step()
        if self.session is not None:
            self.session.step(loss=loss)
        return loss.item()

    def steps(self, count):
        return [self.step() for _ in range(count)]

    def decide(self, adaptation, target=(), name="d1", **parameters):
        """The controller speaks to rank 0 only."""
        if self.rank == 0:
            decision = AdaptationDecision(
                decision_id=name,
                run="run",
                term=0,
                adaptation=adaptation,
                target=target,
                parameters=parameters,
                issued_at_step=0,
                expires_at_step=10**6,
            )
            self.client.publish_nowait(Topic.DECISIONS, decision.to_bytes())

    def layer(self, name):
        return next(n.layer_id for n in self.session.topology.nodes if n.name == name)

    def weights(self):
        return {name: value.tolist() for name, value in self.module.named_parameters()}

    def report(self, **more):
        """What the parent process compares."""
        outcomes = {d.decision_id: (str(r.outcome), r.reason) for d, r in self.session.history}
        verified = {d.decision_id: r.verified for d, r in self.session.history}
        messages = 0
        while self.sent.get_nowait() is not None:
            messages += 1
        stats = self.session.stats()
        return {
            "weights": self.weights(),
            "state": {
                f"{n}.{key}": value.tolist()
                for n, state in enumerate(self.optimizer.state.values())
                for key, value in state.items()
                if isinstance(value, torch.Tensor)
            },
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "outcomes": outcomes,
            "verified": verified,
            "messages": messages,
            "losses held": len(self.session._intake._unseen),
            "errors": stats.errors,
            "log": [record.getMessage() for record in Replica.log.buffer],
            "mode": stats.mode,
            "snapshot": stats.snapshot_step,
            **more,
        }


class Pair:
    """Two worker processes with one process group, which run scenarios one after the other."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self.pipes, self.processes = [], []
        for rank in range(RANKS):
            here, there = context.Pipe()
            process = context.Process(
                target=_work,
                args=(rank, str(Path(self._folder.name) / "store"), there),
                daemon=True,
            )
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, scenario, *args):
        """What `scenario(rank, *args)` returned on each rank; its error instead if it raised."""
        for pipe in self.pipes:
            pipe.send((scenario, args))
        return [self._receive(pipe) for pipe in self.pipes]

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    @staticmethod
    def _receive(pipe):
        if not pipe.poll(PATIENCE):
            raise TimeoutError("a rank hangs")
        try:
            return pipe.recv()
        except EOFError:
            return None


def _work(rank, store, pipe):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS
    )
    logging.getLogger("tamiyo.host").addHandler(Replica.log)
    while True:
        scenario, args = pipe.recv()
        faulthandler.dump_traceback_later(PATIENCE / 2)
        try:
            pipe.send(scenario(rank, *args))
        except Exception as error:
            pipe.send(str(error))
        while Replica.sessions:
            Replica.sessions.pop().remove()
        Replica.log.flush()
        faulthandler.cancel_dump_traceback_later()
