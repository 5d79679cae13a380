"""Tamiyo: a strategic controller for neural networks in training.

Names are imported when they are first used, so that `import tamiyo` costs nothing and brings in
torch only for what needs it.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tamiyo.collect import ProductionHealthCollector, SignalFilterEngine
    from tamiyo.contracts import (
        AdaptationDecision,
        AdaptationResult,
        AdaptationType,
        HealthSignal,
        ModelTopology,
        SignalBatch,
    )
    from tamiyo.control import Control, attach
    from tamiyo.graph import LayerNode, ModelGraphAnalyzer, ModelGraphBuilder, ModelGraphState
    from tamiyo.host import StructureError, rebuild, trace
    from tamiyo.learn import ProductionPolicyTrainer, ProductionTrainingConfig
    from tamiyo.oona import connect
    from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig, RulesPolicy
    from tamiyo.service import TamiyoService

__all__ = [
    "AdaptationDecision",
    "AdaptationResult",
    "AdaptationType",
    "Control",
    "EnhancedTamiyoPolicyGNN",
    "HealthSignal",
    "LayerNode",
    "ModelGraphAnalyzer",
    "ModelGraphBuilder",
    "ModelGraphState",
    "ModelTopology",
    "PolicyConfig",
    "ProductionHealthCollector",
    "ProductionPolicyTrainer",
    "ProductionTrainingConfig",
    "RulesPolicy",
    "SignalBatch",
    "SignalFilterEngine",
    "StructureError",
    "TamiyoService",
    "attach",
    "connect",
    "rebuild",
    "trace",
]

_HOMES = {
    "tamiyo.control": ("Control", "attach"),
    "tamiyo.collect": ("ProductionHealthCollector", "SignalFilterEngine"),
    "tamiyo.contracts": (
        "AdaptationDecision",
        "AdaptationResult",
        "AdaptationType",
        "HealthSignal",
        "ModelTopology",
        "SignalBatch",
    ),
    "tamiyo.graph": ("LayerNode", "ModelGraphAnalyzer", "ModelGraphBuilder", "ModelGraphState"),
    "tamiyo.host": ("StructureError", "rebuild", "trace"),
    "tamiyo.learn": ("ProductionPolicyTrainer", "ProductionTrainingConfig"),
    "tamiyo.oona": ("connect",),
    "tamiyo.policy": ("EnhancedTamiyoPolicyGNN", "PolicyConfig", "RulesPolicy"),
    "tamiyo.service": ("TamiyoService",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = _version("tamiyo")


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'tamiyo' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
