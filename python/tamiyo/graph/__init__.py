"""The model as a graph: what the policy sees, and a per-layer view for people and rules."""

from tamiyo.graph.analyzer import LayerNode, ModelGraphAnalyzer
from tamiyo.graph.builder import ModelGraphBuilder
from tamiyo.graph.schema import ACTIONS, SCHEMA_VERSION, render_schema
from tamiyo.graph.state import ModelGraphState

__all__ = [
    "ACTIONS",
    "SCHEMA_VERSION",
    "LayerNode",
    "ModelGraphAnalyzer",
    "ModelGraphBuilder",
    "ModelGraphState",
    "render_schema",
]
