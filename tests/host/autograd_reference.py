"""What autograd knows of a model's data flow, to hold traced graphs against.

Whatever parameters a layer's output depends on by its `grad_fn` must belong to the layer itself or
to one of its ancestors in the traced graph.
"""

import torch

from tamiyo.host import trace
from zoo import ZOO

__all__ = ["first_tensor", "make", "missing_flows", "traced"]


def make(name):
    torch.manual_seed(0)
    sample = ZOO[name]()
    sample.model.train()
    return sample


def traced(sample):
    return trace(sample.model, *sample.args, **(sample.kwargs or {}))


def owners(model):
    """By id of a parameter, the names of all modules that hold it."""
    result = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            result.setdefault(id(parameter), set()).add(name.partition(".parametrizations")[0])
    return result


def ancestors(topology, name):
    """Names of the layers whose data reaches a layer, its own included."""
    found, frontier = set(), [topology.by_name[name].layer_id]
    while frontier:
        layer = frontier.pop()
        if layer not in found:
            found.add(layer)
            frontier += topology.predecessors(layer)
    return {topology.nodes[layer].name for layer in found}


def parameters_behind(output):
    """Parameters that a tensor depends on, by its autograd graph."""
    found, seen, frontier = [], set(), [output.grad_fn]
    while frontier:
        node = frontier.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            frontier += [following for following, _ in node.next_functions]
    return found


def first_tensor(output):
    if torch.is_tensor(output):
        return output
    parts = output.values() if hasattr(output, "values") else output
    if isinstance(output, tuple | list | dict):
        return next((t for part in parts if (t := first_tensor(part)) is not None), None)
    return None


def missing_flows(sample, topology):
    """Pairs of a layer and a parameter's owner that autograd sees and the topology does not."""
    held, missing = owners(sample.model), set()

    def check(name):
        before = ancestors(topology, name)

        def hook(_module, _args, output):
            tensor = first_tensor(output)
            for parameter in parameters_behind(tensor) if tensor is not None else ():
                holders = held.get(id(parameter))
                if holders and not holders & before:
                    missing.add((name, *sorted(holders)))

        return hook

    # A module with children owns a few parameters around other layers; its output is theirs too.
    handles = [
        sample.model.get_submodule(node.name).register_forward_hook(check(node.name))
        for node in topology.nodes
        if not list(sample.model.get_submodule(node.name).children())
    ]
    sample.run()
    for handle in handles:
        handle.remove()
    return missing
