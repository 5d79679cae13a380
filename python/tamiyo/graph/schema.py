"""The table of everything the policy sees: node, edge and global columns and the layer types.

Absolute losses, norms and times do not transfer between data sets and models, so every column is a
share, a quotient within the network, or a quotient against the run's own history. Quotients are in
decades (powers of ten) divided by four, so that four decades either way fill [-1, 1].
"""

from dataclasses import dataclass

from tamiyo.contracts import AdaptationType

__all__ = [
    "ACTIONS",
    "EDGE_COLUMNS",
    "EDGE_DIM",
    "GLOBAL_COLUMNS",
    "GLOBAL_DIM",
    "LAYER_TYPES",
    "NODE_COLUMNS",
    "NODE_DIM",
    "SCHEMA_VERSION",
    "Column",
    "layer_type_index",
    "render_schema",
]

SCHEMA_VERSION = 1
"""Raised whenever a column, its normalisation, an action or a layer type changes."""

ACTIONS = tuple(AdaptationType)
"""Columns of an action mask, in order."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number that the policy sees."""

    name: str
    unit: str
    normalisation: str
    missing: str
    """When the value is missing: its mask is then false and its value zero."""


_SHARE = "as it is, in [0, 1]"
_DECADES = "log10, clipped to ±4, divided by 4"
_UNMEASURED = "not measured in the window"

NODE_COLUMNS = (
    Column("health", "share", f"mean over the window, {_SHARE}", _UNMEASURED),
    Column("measured_share", "share of the health inputs", _SHARE, _UNMEASURED),
    Column(
        "activation_variance",
        "decades from the layer's own start",
        f"last / first, {_DECADES}",
        f"{_UNMEASURED}, or zero at the start",
    ),
    Column("dead_ratio", "share of units", f"last, {_SHARE}", _UNMEASURED),
    Column("correlation", "coefficient", "last, as it is, in [-1, 1]", _UNMEASURED),
    Column("saturation", "share of units", f"last, {_SHARE}", _UNMEASURED),
    Column(
        "gradient_norm",
        "decades from the network's median",
        f"last / median of the positive norms, {_DECADES}",
        f"{_UNMEASURED}, or no layer has a gradient",
    ),
    Column("update_ratio", "decades from 1e-3", f"last / 1e-3, {_DECADES}", _UNMEASURED),
    Column(
        "latency",
        "decades from an equal share of the forward time",
        f"mean / mean over layers, {_DECADES}",
        _UNMEASURED,
    ),
    Column("error_rate", "errors per signal", "clipped to [0, 1]", "no signals"),
    Column(
        "health_trend",
        "health per window",
        "slope times the window's span, clipped to [-1, 1]",
        _UNMEASURED,
    ),
    Column("stability", "share", _SHARE, _UNMEASURED),
    Column("occupied_seeds", "share of the layer's slots", _SHARE, "no slots"),
    Column("ready", "share of signals", _SHARE, "no signals"),
    Column("parameters", "decades", "log10(1 + count) / 8, clipped to 1", "no topology"),
    Column("depth", "share of the deepest layer's", _SHARE, "no topology, or a single level"),
)

EDGE_COLUMNS = (
    Column("same_shape", "0 or 1", "as it is", "a shape is unknown"),
    Column("parameter_share", "share of both ends in the network", _SHARE, "no parameters at all"),
    Column("skip_length", "levels skipped", "(depth difference - 1) / deepest, ±1", "never"),
    Column("joins", "0 or 1", "1 where data meets other data", "never"),
    Column(
        "gradient_flow",
        "decades, sending over receiving layer",
        f"quotient of last gradient norms, {_DECADES}",
        "an end is not measured, or both are zero",
    ),
    Column(
        "activation_scale",
        "decades, sending over receiving layer",
        f"quotient of last activation deviations, {_DECADES}",
        "an end is not measured, or both are zero",
    ),
    Column("same_type", "0 or 1", "as it is", "never"),
    Column("direction", "+1 or -1", "+1 with the data, -1 against it", "never"),
)

GLOBAL_COLUMNS = (
    Column("health_mean", "share", f"mean over layers, {_SHARE}", _UNMEASURED),
    Column("health_worst", "share", f"least over layers, {_SHARE}", _UNMEASURED),
    Column("health_trend", "health per window", "mean over layers", _UNMEASURED),
    Column("stability", "share", f"mean over layers, {_SHARE}", _UNMEASURED),
    Column("seen_layers", "share of layers with signals", _SHARE, "never"),
    Column(
        "update_over_gradient",
        "decades",
        f"median of update ratio / gradient norm, {_DECADES}",
        "no layer has both",
    ),
    Column("loss_level", "decades", f"loss / its slow level, {_DECADES}", "not reported"),
    Column("loss_since_start", "decades", f"loss / oldest kept, {_DECADES}", "fewer than 2"),
    Column("loss_trend", "decades over the last reports", "slope x length, / 4", "fewer than 4"),
    Column("loss_nonfinite", "0 or 1", "whether the latest report saw any", "not reported"),
    Column("validation_since_start", "decades", f"loss / oldest kept, {_DECADES}", "fewer than 2"),
    Column("validation_trend", "decades", "slope x length, / 4", "fewer than 4"),
    Column("validation_gap", "decades", f"validation / training loss, {_DECADES}", "not reported"),
    Column("validation_accuracy", "share", _SHARE, "not reported"),
    Column("learning_rate", "decades", f"rate / oldest kept, {_DECADES}", "not reported"),
    Column("progress", "share of the planned run", _SHARE, "length unknown"),
    Column("has_snapshot", "0 or 1", "whether `restore` has a goal", "nothing reported"),
    Column("budget_used", "share of this epoch's adaptations", _SHARE, "caller does not say"),
    Column(
        "since_adaptation",
        "optimiser steps",
        "log10(1 + steps) / 5, clipped to 1",
        "caller does not say, or none yet",
    ),
)

NODE_DIM, EDGE_DIM, GLOBAL_DIM = len(NODE_COLUMNS), len(EDGE_COLUMNS), len(GLOBAL_COLUMNS)

LAYER_TYPES: dict[str, tuple[str, ...]] = {
    "other": (),
    "linear": ("Linear", "LazyLinear", "Bilinear", "NonDynamicallyQuantizableLinear", "Conv1D"),
    "conv": ("Conv1d", "Conv2d", "Conv3d", "LazyConv1d", "LazyConv2d", "LazyConv3d"),
    "conv_transpose": ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
    "embedding": ("Embedding", "EmbeddingBag"),
    "attention": ("MultiheadAttention",),
    "recurrent": ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"),
    "batch_norm": ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"),
    "layer_norm": ("LayerNorm", "RMSNorm", "LlamaRMSNorm", "T5LayerNorm"),
    "group_norm": ("GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
    "relu": ("ReLU", "ReLU6"),
    "leaky_relu": ("LeakyReLU", "PReLU", "RReLU"),
    "elu": ("ELU", "SELU", "CELU"),
    "gelu": ("GELU", "GELUActivation", "NewGELUActivation"),
    "silu": ("SiLU", "Mish", "Hardswish"),
    "sigmoid": ("Sigmoid", "Hardsigmoid"),
    "tanh": ("Tanh", "Hardtanh", "Softsign"),
    "softplus": ("Softplus",),
    "softmax": ("Softmax", "LogSoftmax"),
    "dropout": ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout"),
}
"""Layer-type vocabulary: a type's name and the module classes that count as it."""

_INDEX_OF_CLASS = {
    class_name: index
    for index, class_names in enumerate(LAYER_TYPES.values())
    for class_name in class_names
}


def layer_type_index(class_name: str) -> int:
    """Index into `LAYER_TYPES` of a module's class name; unknown classes are `other` (0)."""
    return _INDEX_OF_CLASS.get(class_name, 0)


def render_schema() -> str:
    """The whole table as Markdown."""
    parts = [f"Schema version {SCHEMA_VERSION}.\n"]
    for title, columns in (
        ("Node columns (`x`)", NODE_COLUMNS),
        ("Edge columns (`edge_attr`)", EDGE_COLUMNS),
        ("Global columns (`global_features`)", GLOBAL_COLUMNS),
    ):
        parts.append(f"### {title}\n")
        parts.append("| # | name | unit | normalisation | missing when |\n|---|---|---|---|---|")
        parts.extend(
            f"| {index} | `{column.name}` | {column.unit} | {column.normalisation} "
            f"| {column.missing} |"
            for index, column in enumerate(columns)
        )
        parts.append("")
    parts.append("### Layer types (`layer_type`)\n")
    parts.append("| # | type | module classes |\n|---|---|---|")
    parts.extend(
        f"| {index} | `{name}` | {', '.join(classes) or 'every other class'} |"
        for index, (name, classes) in enumerate(LAYER_TYPES.items())
    )
    parts.append("\n### Actions (`action_mask`)\n")
    parts.append(", ".join(f"`{action}`" for action in ACTIONS))
    return "\n".join(parts) + "\n"
