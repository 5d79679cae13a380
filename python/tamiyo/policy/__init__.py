"""Who decides: the learned graph policy and the published rules, behind one protocol."""

from tamiyo.policy.checkpoint import shipped
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.fallback import FallbackPolicy, learned_policy
from tamiyo.policy.gnn import EnhancedTamiyoPolicyGNN
from tamiyo.policy.protocol import Check, DecisionPolicy, Verdict
from tamiyo.policy.rules import RulesPolicy

__all__ = [
    "Check",
    "DecisionPolicy",
    "EnhancedTamiyoPolicyGNN",
    "FallbackPolicy",
    "PolicyConfig",
    "RulesPolicy",
    "Verdict",
    "learned_policy",
    "shipped",
]
