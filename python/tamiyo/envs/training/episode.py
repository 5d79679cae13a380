"""One episode of one cohort: train an interval, measure, observe, decide, and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from tamiyo.contracts import AdaptationType
from tamiyo.envs.observations import Observation
from tamiyo.envs.training.adaptations import Clinic
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.faults import CURES, WHOLE_RUN, strike
from tamiyo.envs.training.graphs import Graphs, most_edges, most_nodes
from tamiyo.envs.training.history import LayerHistory, ReportHistory
from tamiyo.envs.training.measurements import activity, measure
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.observation import observe
from tamiyo.envs.training.sampling import Scenario, TrainingConfig
from tamiyo.envs.training.snapshots import SnapshotKeeper
from tamiyo.graph.schema import ACTIONS

__all__ = ["Episode", "Quality", "train_twins"]

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

SUSPICIOUS = 1.5
"""Loss of an interval, over the lowest one so far, that is not called healthy any more."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Held-out loss and accuracy, each [H]."""

    loss: Floats
    accuracy: Floats


class _Course:
    """Hosts, their faults and their held-out data: what hosts and twins have in common."""

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        width: int,
        config: TrainingConfig,
        device: torch.device | str,
    ) -> None:
        specs = [scenario.spec for scenario in scenarios]
        self.cohort = Cohort(specs, steps=config.steps, width=width, device=device)
        self._held_out = self.cohort.pool.held_out(config.held_out)
        self._strikes: dict[int, list[int]] = {}
        for host, scenario in enumerate(scenarios):
            self._strikes.setdefault(scenario.fault.step, []).append(host)
        self._scenarios = scenarios

    def strike(self) -> None:
        """Let happen what is to happen now."""
        with torch.no_grad():
            for host in self._strikes.get(self.cohort.steps, ()):
                strike(self.cohort, host, self._scenarios[host].fault)

    def quality(self) -> Quality:
        loss, accuracy = self.cohort.evaluate(*self._held_out)
        return Quality(loss.double().cpu().numpy(), accuracy.double().cpu().numpy())


def train_twins(
    scenarios: Sequence[Scenario],
    width: int,
    config: TrainingConfig,
    device: torch.device | str = "cpu",
) -> Sequence[Quality]:
    """Quality of the runs if nothing is done to them, at each of the T + 1 moments of an episode.

    The twins run in the same program and the same order as the hosts, so that they are the same to
    the last bit until the first adaptation.
    """
    course = _Course(scenarios, width, config, device)
    moments = []
    for _ in range(config.decisions + 1):
        for _ in range(config.interval):
            course.strike()
            course.cohort.train()
        moments.append(course.quality())
    return moments


class Episode:
    """H runs from the first interval to the last decision's.

    The first interval has been trained when the episode is made; its hosts are then what their
    twins are.

    Args:
        scenarios: The runs, deepest first.
        width: Width to pad to.
        config: What an episode is.
        twins: What `train_twins` says of the same scenarios.
        random: Draws the new weights of adaptations.
        device: Where to train.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        width: int,
        config: TrainingConfig,
        twins: Sequence[Quality],
        random: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scenarios, self.config = scenarios, config
        self._course = _Course(scenarios, width, config, device)
        self.cohort = self._course.cohort
        hosts, nodes = len(scenarios), most_nodes(config.max_hidden)
        self.graphs = Graphs.of(self.cohort.specs, nodes, most_edges(config.max_hidden))
        self.keeper = SnapshotKeeper(self.cohort)
        self.clinic = Clinic(self.cohort, self.keeper, nodes, random)
        self.history, self.reports = LayerHistory(hosts, nodes), ReportHistory(hosts)
        self.adaptations = np.zeros(hosts)
        """[H]: how many each run has had."""
        self.moment = -1
        """Decisions that were made."""
        self._twins = twins
        self._lowest_loss = np.full(hosts, np.inf)
        self._last_adaptation = np.full(hosts, np.nan)
        self._train()

    @property
    def over(self) -> bool:
        """Whether the last decision was made."""
        return self.moment == self.config.decisions

    def step(self, actions: Ints) -> npt.NDArray[np.bool_]:
        """Adapt and train one interval.

        Args:
            actions: [H, 3]: adapt?, node (N is the run as a whole), index into `ACTIONS`.

        Returns:
            [H]: which runs were adapted; what is not legal is not done.
        """
        legal = self._legal(actions)
        for host in np.flatnonzero(legal):
            _, target, kind = actions[host]
            node = -1 if target == self.clinic.nodes else int(target)
            self.clinic.apply(int(host), node, ACTIONS[kind])
        self.adaptations += legal
        self._last_adaptation[legal] = self.cohort.steps
        self._train()
        return legal

    def objective(self) -> Floats:
        """[H]: held-out accuracy beyond the twin's, minus the cost of the adaptations."""
        gain = self.quality.accuracy - self.twin.accuracy
        return gain - self.config.adaptation_cost * self.adaptations

    @property
    def twin(self) -> Quality:
        """What the hosts would be now if they had been left alone."""
        return self._twins[self.moment]

    def masks(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """[H, N, types] and [H, types]; nothing is legal once the budget is spent."""
        layers, model = self.clinic.masks()
        left = self.adaptations < self.config.max_adaptations
        return layers & left[:, None, None], model & left[:, None]

    def observation(self) -> Observation:
        """What the policy sees."""
        layers, model = self.masks()
        return observe(
            self.cohort,
            self.graphs,
            self.history,
            self.reports,
            budget_used=self.adaptations / self.config.max_adaptations,
            since_adaptation=self.cohort.steps - self._last_adaptation,
            action_mask=layers,
            model_action_mask=model,
            snapshot=self.keeper.good.cpu().numpy(),
        )

    def oracle(self) -> Ints:
        """[H, 3]: what one does who is told the fault: one cure, at once, if it is legal."""
        actions = np.zeros((len(self.scenarios), 3), np.int64)
        for host, scenario in enumerate(self.scenarios):
            fault = scenario.fault
            if self.adaptations[host] or fault.step >= self.cohort.steps:
                continue
            for cure in CURES[fault.kind]:
                whole = cure is AdaptationType.RESTORE or fault.layer == WHOLE_RUN
                target = self.clinic.nodes if whole else 2 * fault.layer
                action = np.array([[1, target, ACTIONS.index(cure)]])
                if self._may(host, action[0]):
                    actions[host] = action
                    break
        return actions

    def _may(self, host: int, action: Ints) -> bool:
        layers, model = self._masks
        _, target, kind = action
        return bool(
            model[host, kind] if target == self.clinic.nodes else layers[host, target, kind]
        )

    def _legal(self, actions: Ints) -> npt.NDArray[np.bool_]:
        return np.array(
            [bool(action[0]) and self._may(host, action) for host, action in enumerate(actions)]
        )

    def _train(self) -> None:
        """One interval, of which the last step is measured."""
        losses = []
        for _ in range(self.config.interval - 1):
            self._course.strike()
            losses.append(self.cohort.train())
        self._course.strike()
        meter = StepMeter(self.cohort.layout.rows, self.cohort.device)
        losses.append(self.cohort.train(meter))
        reading = measure(self.cohort, meter, self.clinic.nodes)
        self.clinic.activity = activity(meter)
        self.clinic.update_ratio = reading["update_ratio"]
        self.history.add(self.cohort.steps, reading)
        self.quality = self._course.quality()
        series = torch.stack(losses, dim=1).double().cpu().numpy()
        first = self.cohort.learning_rate[: self.cohort.hosts]  # the first layers' rows
        rate = first.double().cpu().numpy()
        self.reports.add(series, self.quality.loss, self.quality.accuracy, rate)
        self.moment += 1
        self._keep(reading["error_count"])
        self._masks = self.masks()

    def _keep(self, errors: Floats) -> None:
        loss = np.nan_to_num(self.reports.loss[-1], nan=np.inf)
        well = (self.reports.nonfinite[-1] == 0) & (np.nansum(errors, axis=1) == 0)
        healthy = well & (loss <= SUSPICIOUS * self._lowest_loss)
        self._lowest_loss = np.minimum(self._lowest_loss, loss)
        self.keeper.observe(torch.as_tensor(healthy, device=self.cohort.device))
