"""What policies propose is what the host can apply."""

import pytest

from tamiyo.host.actions import ACTIONS
from tamiyo.policy.proposal import Proposal, to_decision
from tamiyo.policy.rules import RULES


def accepts(adaptation, parameters):
    rules = ACTIONS[adaptation].rules
    assert set(parameters) <= set(rules)
    for name, rule in rules.items():
        rule.check(name, parameters.get(name))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_host_accepts_the_parameters_of_the_cures(rule):
    for cure in rule.cures:
        if cure.adaptation in ACTIONS:
            accepts(cure.adaptation, cure.parameters)


def test_the_same_content_has_the_same_id_and_another_has_another(make_topology, make_state):
    state = make_state(make_topology(3))

    def identity(target=(0,), version="1", **parameters):
        proposal = Proposal("scale_learning_rate", target, "because", parameters)
        return to_decision(proposal, state, "test", version, 10).decision_id

    assert identity() == identity()
    different = {identity(), identity(()), identity(version="2"), identity(factor=0.5)}
    assert len(different) == 4


def test_a_decision_needs_a_run(make_state):
    with pytest.raises(ValueError, match="needs a topology"):
        to_decision(Proposal("restore", (), "because"), make_state(None, {0: {}}), "t", "1", 10)
