"""One episode of one cohort: train an interval, measure, observe, decide, and again."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from tamiyo.contracts import AdaptationType
from tamiyo.envs.observations import Observation
from tamiyo.envs.training.adaptations import Clinic
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.course import Course
from tamiyo.envs.training.faults import WHOLE_RUN, cures
from tamiyo.envs.training.graphs import Graphs, most_edges, most_nodes
from tamiyo.envs.training.history import LayerHistory
from tamiyo.envs.training.measurements import activity, measure
from tamiyo.envs.training.medians import row_median
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.objective import Objective
from tamiyo.envs.training.observation import observe
from tamiyo.envs.training.reports import ReportHistory
from tamiyo.envs.training.sampling import CohortPlan, TrainingConfig
from tamiyo.envs.training.snapshots import SnapshotKeeper
from tamiyo.envs.training.twins import Twins
from tamiyo.graph.schema import ACTIONS

__all__ = ["Episode"]

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

SUSPICIOUS, ALARMING = 1.5, 3.0
"""Loss of an interval, over the lowest one so far, that is not called healthy any more, and that is
reported at once."""
RESTORE = ACTIONS.index(AdaptationType.RESTORE)


class Episode:
    """H runs from the first interval to the last decision's.

    The first interval has been trained when the episode is made.

    Args:
        plan: The runs, and how they are watched.
        config: What an episode is.
        random: Draws the new weights of adaptations.
        device: Where to train.
    """

    def __init__(
        self,
        plan: CohortPlan,
        config: TrainingConfig,
        random: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scenarios, self.config, self.sensing = plan.scenarios, config, plan.sensing
        scenarios = plan.scenarios
        specs = [scenario.spec for scenario in scenarios]
        steps = self.sensing.steps(config.decisions)
        self.cohort = Cohort(specs, steps=steps, width=plan.width, device=device)
        self._course = Course(self.cohort, scenarios, config.held_out)
        self._twins = Twins(self._course)
        hosts, nodes = len(scenarios), most_nodes(config.max_hidden)
        self.graphs = Graphs.of(self.cohort.specs, nodes, most_edges(config.max_hidden))
        self.keeper = SnapshotKeeper(self.cohort)
        self.clinic = Clinic(self.cohort, self.keeper, nodes, random)
        self.worth = Objective(self.cohort, config)
        self.history = LayerHistory(hosts, nodes, self.sensing.window)
        self.reports = ReportHistory(hosts)
        self.adaptations = np.zeros(hosts)
        """[H]: how many each run has had."""
        self.moment = -1
        """Decisions that were made."""
        self._lowest_loss = np.full(hosts, np.inf)
        self._last_adaptation = np.full(hosts, np.nan)
        self._treated = np.zeros(hosts, bool)
        if self.sensing.lead:
            self._course.train(self.sensing.lead)
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
        self._twins.fork(np.flatnonzero(legal & (self.adaptations == 0)))
        for host in np.flatnonzero(legal):
            self._treated[host] |= any(
                (actions[host] == cure).all() for cure in self._cures(int(host))
            )
            _, target, kind = actions[host]
            node = -1 if target == self.clinic.nodes else int(target)
            self.clinic.apply(int(host), node, ACTIONS[kind])
        self.adaptations += legal
        self._last_adaptation[legal] = self.cohort.steps
        self._train()
        return legal

    def objective(self) -> Floats:
        """[H]: J beside the twin's, see `Objective`, minus the price of the adaptations."""
        return self.worth.value - self.config.adaptation_cost * self.adaptations

    @property
    def budget_used(self) -> Floats:
        """[H]: share of the adaptations that are called allowed."""
        return self.adaptations / self.sensing.budgets

    def masks(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """[H, N, types] and [H, types]: what can be done and the objective's constraints allow.

        Nothing is legal once the budget is spent, or the episode over.
        """
        layers, model = self.clinic.masks()
        left = self.adaptations < self.config.max_adaptations
        allowed = self.worth.system.allowed() & left[:, None]
        # Only the newest report says whether there is a snapshot to go back to.
        model[:, RESTORE] &= self.reports.latest["snapshot"] == 1.0
        return layers & allowed[:, None], model & allowed

    def observation(self) -> Observation:
        """What the policy sees."""
        layers, model = self._masks
        return observe(
            self.cohort,
            self.graphs,
            self.history,
            self.reports,
            budget_used=self.budget_used,
            since_adaptation=self.cohort.steps - self._last_adaptation,
            action_mask=layers,
            model_action_mask=model,
        )

    def oracle(self) -> Ints:
        """[H, 3]: what one does who is told the fault: one cure, at once, if it is legal.

        It is the same whatever else was done before, as long as no cure was among it.
        """
        actions = np.zeros((len(self.scenarios), 3), np.int64)
        for host in np.flatnonzero(~self._treated):
            legal = [cure for cure in self._cures(int(host)) if self._may(int(host), cure)]
            if legal:
                actions[host] = legal[0]
        return actions

    def _cures(self, host: int) -> Sequence[Ints]:
        """The actions that mend a host's fault, best first; none before it has struck."""
        fault = self.scenarios[host].fault
        if fault.step >= self.cohort.steps:
            return ()
        nodes = self.clinic.nodes
        found = [
            np.array([1, nodes if layer == WHOLE_RUN else 2 * layer, ACTIONS.index(cure)])
            for layer, cure in cures(fault.kind, fault.layer)
        ]
        # Nothing else brings numbers back, whatever has taken them away.
        return found if self._sound[host] else [one for one in found if one[2] == RESTORE]

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
        """One interval, whose last step, at least, is measured."""
        parts = [self._stride(steps) for steps in self.sensing.strides(self.moment + 1)]
        losses, twin_losses = (np.hstack(part) for part in zip(*parts, strict=True))
        self.quality = self._course.quality()
        self.twin = self._twins.quality(self.quality)
        if self.moment < 0:
            self.worth.judge(self.quality, self.twin)
        else:
            self.worth.step(self.quality, self.twin, losses, twin_losses)
        self.moment += 1
        self._report(losses)
        self._masks = self.masks()

    def _stride(self, steps: int) -> tuple[Floats, Floats]:
        """Train so many steps, of which the last is measured; losses [H, k] of hosts and twins."""
        meter = StepMeter(self.cohort.layout.rows, self.cohort.device)
        losses = self._course.train(steps, meter)
        twin_losses = self._twins.train(steps, losses)
        reading = measure(self.cohort, meter, self.clinic.nodes)
        self.clinic.activity = activity(meter)
        self.clinic.update_ratio = reading["update_ratio"]
        self.history.add(self.cohort.steps, reading)
        self._sound = np.nansum(reading["error_count"], axis=1) == 0
        return losses, twin_losses

    def _report(self, losses: Floats) -> None:
        """Keep what is worth going back to, and say how the runs are."""
        finite = np.isfinite(losses)
        loss = np.nan_to_num(row_median(np.where(finite, losses, np.nan)), nan=np.inf)
        self._sound &= finite.all(axis=1)
        healthy = self._sound & (loss <= SUSPICIOUS * self._lowest_loss)
        alarming = ~self._sound | (loss > ALARMING * self._lowest_loss)
        self._lowest_loss = np.minimum(self._lowest_loss, loss)
        self.keeper.observe(torch.as_tensor(healthy, device=self.cohort.device))
        sensing, cohort = self.sensing, self.cohort
        self.reports.add(
            losses,
            alarming | ((self.moment + 1) % sensing.reports_every == 0),
            held_out_loss=np.where(sensing.held_out_known, self.quality.loss, np.nan),
            accuracy=np.where(sensing.held_out_known, self.quality.accuracy, np.nan),
            learning_rate=cohort.run_rate.double().cpu().numpy(),
            progress=np.where(sensing.length_known, cohort.steps / cohort.total_steps, np.nan),
            snapshot=self.keeper.good.cpu().numpy().astype(np.float64),
        )
