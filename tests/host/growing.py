"""Small models that can be grown, their first site, and the same models with units appended."""

import copy

import torch
from torch import nn

from tamiyo.host import TopologyRecorder
from tamiyo.host.growth.chains import growth_site
from tamiyo.host.growth.recording import GradientRecording
from tamiyo.host.units import unit_chain


class Forked(nn.Module):
    """Units that two layers read."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.activation = nn.Linear(5, 4), activation()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        units = self.activation(self.first(x))
        return torch.cat([self.left(units), self.right(units)], dim=1)


BUILDERS = {
    "linear": (lambda act: nn.Sequential(nn.Linear(5, 4), act(), nn.Linear(4, 3)), (6, 5)),
    "tokens": (lambda act: nn.Sequential(nn.Linear(5, 4), act(), nn.Linear(4, 3)), (6, 2, 5)),
    "forked": (Forked, (6, 5)),
    "convolution": (
        lambda act: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            act(),
            nn.Conv2d(3, 2, 3, padding=2, dilation=2),
        ),
        (4, 2, 6, 5),
    ),
    "pooled": (
        lambda act: nn.Sequential(
            nn.Conv2d(2, 3, 3), act(), nn.MaxPool2d(2), nn.Dropout(0.0), nn.Conv2d(3, 2, 2)
        ),
        (4, 2, 7, 7),
    ),
    "flattened": (
        lambda act: nn.Sequential(
            nn.Conv1d(2, 3, 3), act(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(9, 2)
        ),
        (4, 2, 8),
    ),
    "transposed": (
        lambda act: nn.Sequential(
            nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1),
            act(),
            nn.ConvTranspose1d(3, 2, 2),
        ),
        (4, 2, 5),
    ),
}
"""How to build each, with an activation, and the shape of its inputs."""


class Growing:
    """A model with fixed inputs and targets in double precision."""

    def __init__(self, name="linear", activation=nn.ReLU, seed=0):
        torch.manual_seed(seed)
        build, shape = BUILDERS[name]
        self.model = build(activation).double()
        self.inputs = torch.randn(*shape, dtype=torch.float64)
        self.target = torch.randn_like(self.model(self.inputs))
        self.layers = self.layers_of(self.model, self.inputs)
        self.layer_id = 0
        self.chain = unit_chain(self.layers, self.layer_id)
        self.site = growth_site(self.layers, self.chain)

    @staticmethod
    def layers_of(model, inputs):
        recorder = TopologyRecorder(model)
        recorder.attach()
        model(inputs)
        recorder.detach()
        return recorder.layers()

    def loss(self, model=None):
        return (
            (self.model if model is None else model)(self.inputs).sub(self.target).square().mean()
        )

    def recorded(self):
        """What one backward pass leaves, and the gradients' norm."""
        with GradientRecording(self.site) as recording:
            self.loss().backward()
        norm = torch.stack([g.norm() for g in recording._passes[0].gradients]).norm()
        return recording.passes(), norm


def appended(growing, incoming, outgoing):
    """The same function with units more: a functional call with longer weights."""
    weights = dict(growing.model.named_parameters())
    names = {id(module): name for name, module in growing.model.named_modules()}
    site = growing.site
    first = names[id(site.layer)]
    weights[f"{first}.weight"] = torch.cat(
        [weights[f"{first}.weight"].detach(), site.incoming(incoming)], dim=site.axis
    )
    weights[f"{first}.bias"] = torch.cat(
        [weights[f"{first}.bias"].detach(), incoming.new_zeros(len(incoming))]
    )
    for outlet, part in zip(site.outlets, site.outgoing(outgoing), strict=True):
        name = f"{names[id(outlet.reader)]}.weight"
        weights[name] = torch.cat([weights[name].detach(), part], dim=outlet.axis)
    model = copy.deepcopy(growing.model)
    return lambda inputs: torch.func.functional_call(model, weights, inputs)
