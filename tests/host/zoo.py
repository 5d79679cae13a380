"""Architectures that nobody here wrote, small, built from configuration, plus a few shapes of ours.

Each entry returns a model and the inputs of one forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import transformers
from torch import nn

from tamiyo.graph import _pyg  # noqa: F401 - after it, importing PyG warns of nothing

geometric = import_module("torch_geometric.nn")

__all__ = ["ZOO", "Sample"]


@dataclass(frozen=True)
class Sample:
    """A model and what to call it with."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None

    def run(self) -> Any:
        return self.model(*self.args, **(self.kwargs or {}))


ZOO: dict[str, Callable[[], Sample]] = {}


def entry(build: Callable[[], Sample]) -> Callable[[], Sample]:
    ZOO[build.__name__] = build
    return build


def tokens(count: int = 8) -> torch.Tensor:
    return torch.randint(0, 64, (2, count))


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
VISION = {"image_size": 32, "patch_size": 8, "num_channels": 3}


def language(name: str, model: str, config: str, **fields: Any) -> None:
    """A transformer over token ids."""

    def build() -> Sample:
        settings = getattr(transformers, config)(**fields)
        return Sample(getattr(transformers, model)(settings), kwargs={"input_ids": tokens()})

    ZOO[name] = build


def vision(name: str, model: str, config: str, side: int = 32, **fields: Any) -> None:
    """A network over images."""

    def build() -> Sample:
        settings = getattr(transformers, config)(**fields)
        pixels = torch.randn(2, 3, side, side)
        return Sample(getattr(transformers, model)(settings), kwargs={"pixel_values": pixels})

    ZOO[name] = build


language("bert", "BertModel", "BertConfig", **SMALL)
language("roberta", "RobertaModel", "RobertaConfig", **SMALL)
language("albert", "AlbertModel", "AlbertConfig", **SMALL, embedding_size=16)
language("electra", "ElectraModel", "ElectraConfig", **SMALL, embedding_size=16)
language(
    "distilbert", "DistilBertModel", "DistilBertConfig",
    vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64,
)  # fmt: skip
language("deberta", "DebertaV2Model", "DebertaV2Config", **SMALL, relative_attention=True,
         pos_att_type=["p2c", "c2p"])  # fmt: skip
language("gpt2", "GPT2LMHeadModel", "GPT2Config", vocab_size=64, n_embd=32, n_layer=2, n_head=4)
language("llama", "LlamaForCausalLM", "LlamaConfig", **SMALL, num_key_value_heads=2)
language("mistral", "MistralForCausalLM", "MistralConfig", **SMALL, num_key_value_heads=2)
language("qwen2", "Qwen2ForCausalLM", "Qwen2Config", **SMALL, num_key_value_heads=2)
language("gemma", "GemmaForCausalLM", "GemmaConfig", **SMALL, num_key_value_heads=2, head_dim=8)
language("phi", "PhiForCausalLM", "PhiConfig", **SMALL)
language("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", **SMALL)
language("opt", "OPTForCausalLM", "OPTConfig", vocab_size=64, hidden_size=32, ffn_dim=64,
         num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
         word_embed_proj_dim=32)  # fmt: skip
language("bloom", "BloomForCausalLM", "BloomConfig", vocab_size=64, hidden_size=32, n_layer=2,
         n_head=4)  # fmt: skip
language("falcon", "FalconForCausalLM", "FalconConfig", vocab_size=64, hidden_size=32,
         num_hidden_layers=2, num_attention_heads=4)  # fmt: skip
language("mixtral", "MixtralForCausalLM", "MixtralConfig", **SMALL, num_key_value_heads=2,
         num_local_experts=4)  # fmt: skip
language("mamba", "MambaForCausalLM", "MambaConfig", vocab_size=64, hidden_size=32,
         num_hidden_layers=2, state_size=4)  # fmt: skip
vision("vit", "ViTModel", "ViTConfig", **VISION, hidden_size=32, num_hidden_layers=2,
       num_attention_heads=4, intermediate_size=64)  # fmt: skip
vision("deit", "DeiTModel", "DeiTConfig", **VISION, hidden_size=32, num_hidden_layers=2,
       num_attention_heads=4, intermediate_size=64)  # fmt: skip
vision("swin", "SwinModel", "SwinConfig", image_size=32, patch_size=2, embed_dim=16,
       depths=[1, 1], num_heads=[2, 4], window_size=4)  # fmt: skip
vision("resnet", "ResNetModel", "ResNetConfig", embedding_size=8, hidden_sizes=[8, 16],
       depths=[2, 2], layer_type="basic")  # fmt: skip
vision("convnext", "ConvNextModel", "ConvNextConfig", hidden_sizes=[8, 16], depths=[2, 2],
       num_stages=2)  # fmt: skip
vision("mobilenet_v2", "MobileNetV2Model", "MobileNetV2Config", depth_multiplier=0.25)
vision("segformer", "SegformerModel", "SegformerConfig", num_encoder_blocks=2, depths=[1, 1],
       sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[3, 3], strides=[2, 2],
       num_attention_heads=[1, 2], mlp_ratios=[2, 2], side=32)  # fmt: skip


@entry
def t5() -> Sample:
    config = transformers.T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    inputs = {"input_ids": tokens(), "labels": tokens()}
    return Sample(transformers.T5ForConditionalGeneration(config), kwargs=inputs)


@entry
def bart() -> Sample:
    config = transformers.BartConfig(
        vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_position_embeddings=64,
    )  # fmt: skip
    return Sample(transformers.BartModel(config), kwargs={"input_ids": tokens()})


@entry
def wav2vec2() -> Sample:
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0, mask_feature_prob=0.0,
    )  # fmt: skip
    return Sample(transformers.Wav2Vec2Model(config), (torch.randn(2, 800),))


@entry
def clip() -> Sample:
    text = {**SMALL, "projection_dim": 16, "bos_token_id": 1, "eos_token_id": 2}
    picture = {
        **VISION, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "projection_dim": 16,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=picture, projection_dim=16)
    inputs = {"input_ids": tokens(), "pixel_values": torch.randn(2, 3, 32, 32)}
    return Sample(transformers.CLIPModel(config), kwargs=inputs)


@entry
def torch_transformer() -> Sample:
    model = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
    return Sample(model, (torch.randn(2, 5, 32), torch.randn(2, 6, 32)))


@entry
def torch_encoder() -> Sample:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    return Sample(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(2, 5, 32),)
    )


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 16)
        self.core = kind(16, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.core(self.embed(ids))[0][:, -1])


@entry
def lstm() -> Sample:
    return Sample(Recurrent(nn.LSTM), (tokens(),))


@entry
def gru() -> Sample:
    return Sample(Recurrent(nn.GRU), (tokens(),))


class Graph(nn.Module):
    def __init__(self, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm, self.second = layer(8, 16), nn.LayerNorm(16), layer(16, 4)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x, edges)).relu(), edges)


def over_graph(name: str, layer: Callable[[int, int], nn.Module]) -> None:
    def build() -> Sample:
        edges = torch.randint(0, 10, (2, 30))
        return Sample(Graph(layer), (torch.randn(10, 8), edges))

    ZOO[name] = build


over_graph("pyg_gcn", geometric.GCNConv)
over_graph("pyg_gat", geometric.GATConv)
over_graph("pyg_sage", geometric.SAGEConv)
over_graph("pyg_gin", lambda i, o: geometric.GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU())))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x).relu()
        two = self.down2(nn.functional.max_pool2d(one, 2)).relu()
        return self.out(torch.cat([self.up1(two), one], 1))


@entry
def unet() -> Sample:
    return Sample(UNet(), (torch.randn(2, 3, 16, 16),))


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.gate(x).softmax(-1)
        mixed = sum(
            w[..., None] * e(x) for w, e in zip(weights.unbind(-1), self.experts, strict=True)
        )
        return self.head(x + mixed)


@entry
def experts() -> Sample:
    return Sample(Experts(), (torch.randn(4, 8),))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 64, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        return self.head(self.body(self.body(x).relu()).relu())


@entry
def shared() -> Sample:
    return Sample(Shared(), (tokens(),))
