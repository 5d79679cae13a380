"""Seeds in a running network: planted behind a layer, trained, blended in, kept or taken out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from tamiyo.host.grafts import Form, bare, is_graft, seeded
from tamiyo.host.layers import Layers
from tamiyo.host.lifecycle import SCHEDULES, Stage, transition
from tamiyo.host.snapshot import TrainedParameters
from tamiyo.host.surgery import Surgery
from tamiyo.host.training import TrainingRun

__all__ = ["Seed", "SeedBed", "SeedPlan"]

_FORMS = {
    Stage.GERMINATED: Form.ISOLATED,
    Stage.TRAINING: Form.ISOLATED,
    Stage.BLENDING: Form.BLENDED,
    Stage.HOLDING: Form.BLENDED,
    Stage.PERMANENT: Form.MERGED,
}
"""What is in the model at each stage; at all others it is the bare layer."""
_RESUMED = {
    None: Stage.ROLLED_BACK,
    Form.ISOLATED: Stage.TRAINING,
    Form.BLENDED: Stage.BLENDING,
    Form.MERGED: Stage.PERMANENT,
}
"""Where a seed goes on that a snapshot has put back."""


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """How long a seed stays in each stage, in optimiser steps, and how it is blended."""

    training: int
    blending: int
    holding: int
    schedule: str
    """A name of `SCHEDULES`."""

    def length(self, stage: Stage) -> int | None:
        """Steps that a stage takes; `None` if it is not left by itself."""
        lengths = {
            Stage.GERMINATED: 1,
            Stage.TRAINING: self.training,
            Stage.BLENDING: self.blending,
            Stage.HOLDING: self.holding,
        }
        return lengths.get(stage)


@dataclass(slots=True)
class _Progress:
    stage: Stage = Stage.DORMANT
    steps: int = 0
    """Optimiser steps done in this stage."""
    start: float = 0.0
    """Alpha at which the present blending began."""
    target: float = 1.0


class Seed:
    """One seed from planting to its end.

    Args:
        run: The run.
        layers: Its layers.
        layer_id: A graftable layer.
        network: Maps the layer's output to a tensor of the same shape; zero at first.
        plan: How it is to grow.
    """

    def __init__(
        self, run: TrainingRun, layers: Layers, layer_id: int, network: nn.Module, plan: SeedPlan
    ) -> None:
        self.layer_id = layer_id
        self.network = network
        self._run, self._layers, self._plan = run, layers, plan
        self._layer = layer = layers.module(layer_id)
        weight = layer.get_parameter("weight")
        alpha = torch.zeros((), dtype=weight.dtype, device=weight.device)
        self._grafts = {form: seeded(layer, network, form, alpha) for form in Form}
        self._progress = _Progress()
        self._written = self._alpha._version, 0.0
        """Alpha as it was written last, to notice that a snapshot has put another one back; the
        version spares a GPU from being asked at every step."""
        self._surgery = Surgery(run, layers)
        """Takes back what was done since the seed was planted, or since it began to retire."""

    @classmethod
    def resumed(cls, run: TrainingRun, layers: Layers, state: Mapping[str, Any]) -> Self:
        """A seed that is in the model already, as `state()` has described it.

        Raises:
            ValueError: it is not in the model.
        """
        layer_id = state["layer"]
        graft = layers.module(layer_id)
        if not is_graft(graft):
            raise ValueError(f"there is no seed behind {layers.names[layer_id]!r}")
        with Surgery(run, layers) as surgery:
            surgery.replace(graft, bare(graft))
            plan, network = SeedPlan(**state["plan"]), graft.get_submodule("seed")
            seed = cls(run, layers, layer_id, network, plan)
            seed._progress = _Progress(**state["progress"])
            seed._progress.stage = Stage(seed._progress.stage)
            surgery.replace(layers.module(layer_id), seed._installed(seed._form))
        seed._write(state["alpha"])
        return seed

    def state(self) -> dict[str, Any]:
        """Where it stands, as plain data."""
        progress = asdict(self._progress) | {"stage": self.stage.value}
        return {
            "layer": self.layer_id,
            "plan": asdict(self._plan),
            "progress": progress,
            "alpha": float(self._alpha),
        }

    @property
    def stage(self) -> Stage:
        """Where it stands."""
        return self._progress.stage

    @property
    def alpha(self) -> float:
        """Share of its output that the network feels."""
        if self._form is Form.BLENDED:
            return float(self._alpha)
        return 1.0 if self._form is Form.MERGED else 0.0

    def plant(self) -> Callable[[], None]:
        """Put it into the model, in isolation; returns what takes it out again.

        Raises:
            Refusal: the optimiser cannot train it; nothing was changed.
        """
        with self._surgery as surgery:
            self._enter(Stage.GERMINATED)
            surgery.join(self.layer_id, self.network.parameters())
        return self._roll_back

    @property
    def ready(self) -> bool:
        """Whether it leaves its present stage with the next step."""
        length = self._plan.length(self.stage)
        return length is not None and self._progress.steps + 1 >= length

    @property
    def retiring(self) -> bool:
        """Whether it is being blended out."""
        return self.stage is Stage.BLENDING and self._progress.target == 0.0

    def retire(self, steps: int, schedule: str) -> Callable[[], None]:
        """Blend it out, or take it out at once where the network does not feel it yet.

        Args:
            steps: Optimiser steps that blending out takes.
            schedule: A name of `SCHEDULES`.

        Returns:
            What brings it back to where it stood.
        """
        plan, before, surgery_before = self._plan, self._progress, self._surgery
        self._plan = replace(plan, blending=steps, schedule=schedule)
        self._progress = _Progress(before.stage)
        self._surgery = surgery = Surgery(self._run, self._layers)
        alpha = float(self._alpha)

        def undo() -> None:
            surgery.undo()
            self._plan, self._progress, self._surgery = plan, before, surgery_before
            self._write(alpha)

        with ExitStack() as undone:
            undone.callback(undo)
            if self._form is Form.ISOLATED:
                self._cull()
            else:
                self._blend_out()
            return undone.pop_all().close

    def tick(self) -> None:
        """An optimiser step is done."""
        if not self._follow_rollback() or self.stage is Stage.PERMANENT:
            return
        ready = self.ready
        self._progress.steps += 1
        match self.stage:
            case Stage.GERMINATED:
                self._enter(Stage.TRAINING)
            case Stage.TRAINING if ready:
                self._enter(Stage.BLENDING)
            case Stage.BLENDING:
                self._blend()
            case Stage.HOLDING if ready:
                self._enter(Stage.PERMANENT)

    def settle(self) -> None:
        """Nobody will tick it any more: take it out if it is isolated, else leave it as it is."""
        if self._follow_rollback() and self._form is Form.ISOLATED:
            self._cull()

    @property
    def _alpha(self) -> torch.Tensor:
        return self._grafts[Form.BLENDED].get_buffer("alpha")

    @property
    def _form(self) -> Form | None:
        return _FORMS.get(self.stage)

    def _installed(self, form: Form | None) -> nn.Module:
        return self._layer if form is None else self._grafts[form]

    def _enter(self, stage: Stage) -> None:
        """Go to the next stage, and exchange the graft if another one belongs to it."""
        old = self._installed(self._form)
        self._progress = _Progress(
            transition(self.stage, stage), 0, self._progress.start, self._progress.target
        )
        new = self._installed(self._form)
        if new is not old:
            self._surgery.replace(old, new)

    def _blend(self) -> None:
        progress, plan = self._progress, self._plan
        share = SCHEDULES[plan.schedule](min(1.0, progress.steps / plan.blending))
        start, target = progress.start, progress.target
        done = progress.steps >= plan.blending
        self._write(target if done else start + (target - start) * share)
        if done and target == 0.0:
            self._cull()
        elif done:
            self._enter(Stage.HOLDING)

    def _blend_out(self) -> None:
        start = self.alpha
        self._write(start)
        if self.stage is not Stage.BLENDING:
            self._enter(Stage.BLENDING)
        self._progress.start, self._progress.target = start, 0.0

    def _cull(self) -> None:
        self._enter(Stage.CULLED)
        self._surgery.leave(self.network.parameters())

    def _roll_back(self) -> None:
        self._surgery.undo()
        self._progress.stage = Stage.ROLLED_BACK

    def _write(self, alpha: float) -> None:
        self._alpha.fill_(alpha)
        self._written = self._alpha._version, float(torch.tensor(alpha, dtype=self._alpha.dtype))

    def _follow_rollback(self) -> bool:
        """Whether the seed is in the model; a snapshot may have put another stage of it back."""
        module = self._layers.module(self.layer_id)
        if module is not self._installed(self._form):
            form = next((form for form, graft in self._grafts.items() if graft is module), None)
            self._progress = _Progress(_RESUMED[form], target=self._progress.target)
        version, written = self._written
        if self._form is Form.BLENDED and version != self._alpha._version:
            alpha = float(self._alpha)
            self._write(alpha)
            if alpha != written:
                self._progress = _Progress(Stage.BLENDING, 0, alpha, self._progress.target)
        return self._form is not None


class SeedBed:
    """The seeds of a run, at most one behind each layer.

    Args:
        run: The run.
        layers: Its layers.
    """

    def __init__(self, run: TrainingRun, layers: Layers) -> None:
        self._run, self._layers = run, layers
        self._seeds: dict[int, Seed] = {}
        self.trained: TrainedParameters | None = None
        """What the adaptation on trial is known to have left to the optimiser."""

    def __iter__(self) -> Iterator[Seed]:
        return iter(self._seeds.values())

    def seed(self, layer_id: int) -> Seed | None:
        """The seed that is in the model behind a layer."""
        seed = self._seeds.get(layer_id)
        return None if seed is None or seed.stage.ended else seed

    def alive(self) -> Sequence[Seed]:
        """The seeds that are in the model."""
        return [seed for seed in self if not seed.stage.ended]

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on with a seed that is in the model already, see `Seed.resumed`."""
        self._seeds[state["layer"]] = Seed.resumed(self._run, self._layers, state)

    def plant(self, layer_id: int, network: nn.Module, plan: SeedPlan) -> Callable[[], None]:
        """Plant a seed; returns what takes it out again.

        Raises:
            Refusal: the optimiser cannot train it; nothing was changed.
        """
        seed = Seed(self._run, self._layers, layer_id, network, plan)
        take_out = seed.plant()
        earlier = self._seeds.get(layer_id)
        self._seeds[layer_id] = seed

        def undo() -> None:
            take_out()
            del self._seeds[layer_id]
            # An earlier seed of the layer has ended, but while the bed knows it, it is tended.
            if earlier is not None:
                self._seeds[layer_id] = earlier

        return undo

    def tick(self, *_: object) -> None:
        """An optimiser step is done."""
        for seed in self:
            lived = not seed.stage.ended
            seed.tick()
            if lived and seed.stage.ended and self.trained is not None:
                self.trained.forget(seed.network.parameters())

    def settle(self) -> None:
        """End of the session: seeds that the network does not feel are taken out, others stay."""
        for seed in self:
            seed.settle()
