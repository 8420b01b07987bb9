"""Specimen: a plain transformer whose every part is optional, as a Hugging Face model, for laboratories and tests.

With norms, learned positions and GELU it is GPT-2 (Radford et al. 2019); without any of the three and without feed-forward
layers it is the attention-only model of Elhage et al. 2021; with one block, one head and no norm it is small enough to be
read by hand. Blocks may differ in their number of heads and neurons. It saves, loads and generates like any model of
transformers, and whatever Patchclamp does to those it does to this one.

There is no dropout, no grouped-query attention, no gating and no loss: a laboratory computes its own from the logits.
Importing this module makes the model type known to transformers, so that a saved folder opens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedConfig
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils.output_capturing import capture_outputs

from patchclamp.core.errors import NotAModel, Unserved, did_you_mean

Stream = Float[Tensor, "batch pos d_model"]
Turn = Float[Tensor, "#batch 1 pos d_head"]


def solu(x: Float[Tensor, "*rows neuron"]) -> Float[Tensor, "*rows neuron"]:
    """A softmax of a layer's neurons, times the neurons: few stay large (Elhage et al. 2022, "softmax linear units")."""
    return x * x.softmax(-1)


ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "solu": solu}
OPTIONS = {
    "activation": tuple(ACTIVATIONS),
    "norm": ("none", "layer", "rms"),
    "positional": ("none", "learned", "rotary"),
}


class SpecimenConfig(PreTrainedConfig):
    """What a specimen is made of. Everything has a default; names are those of this package, Hugging Face's work too.

    >>> from patchclamp.model.specimen import SpecimenConfig
    >>> config = SpecimenConfig(layers=2, heads=[1, 4], d_mlp=0, norm="none")
    >>> config.heads_at(1), config.neurons_at(1), config.hidden_size
    (4, 0, 64)
    """

    model_type = "patchclamp_specimen"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (transformers reads a list)
    attribute_map = {  # noqa: RUF012
        "vocab_size": "vocab",
        "hidden_size": "d_model",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "head_dim": "d_head",
        "intermediate_size": "d_mlp",
        "hidden_act": "activation",
        "max_position_embeddings": "length",
        "tie_word_embeddings": "tied",
    }

    vocab: int = 64
    """Tokens it reads."""
    layers: int = 2
    heads: int | list[int] = 4
    """Attention heads of every block, or a list with one number a block; 0 is a block without attention."""
    d_model: int = 64
    d_head: int = 16
    """Width of a head. Heads times width need not be the width of the stream."""
    d_mlp: int | list[int] = 256
    """Neurons of every block, or a list with one number a block; 0 is a block without a feed-forward layer."""
    activation: str = "gelu"
    """`relu`, `gelu`, `silu`, or `solu` (with the LayerNorm behind it that the paper has)."""
    norm: str = "layer"
    """`none`, `layer` or `rms`: before attention, before the feed-forward layer, and before the unembedding."""
    positional: str = "learned"
    """`none`, `learned` (a vector for each of `length` positions, added to the embedding) or `rotary`."""
    length: int = 64
    """How many positions are learned; 0 where none are, and prompts may be of any length."""
    causal: bool = True
    """Whether tokens see earlier ones only."""
    tied: bool = False
    """Whether the unembedding is the embedding."""
    bias: bool = True
    """Whether matrices inside the blocks and LayerNorms have biases. The unembedding never has one."""
    scale: float | None = None
    """What scores are multiplied by; by default one over the square root of `d_head`."""
    classes: int = 0
    """With a number: logits for that many classes at every token, in place of those for the vocabulary."""
    rope_theta: float = 10_000.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name, options in OPTIONS.items():
            said = getattr(self, name)
            if said not in options:
                raise NotAModel(f'a specimen has {name}= {", ".join(options)}, not "{said}".{did_you_mean(str(said), options)}')
        for name in ("heads", "d_mlp"):
            said = getattr(self, name)
            if not isinstance(said, int) and len(said) != self.layers:
                raise NotAModel(f"{name} lists {len(said)} blocks for layers={self.layers}; give one number, or one a block.")
        if self.positional == "rotary" and self.d_head % 2:
            raise NotAModel(f"rotary positions turn pairs of numbers, and d_head={self.d_head} is odd; make it even.")
        if self.positional == "learned" and self.length < 1:
            raise NotAModel("learned positions need length=, the tokens of the longest prompt.")
        if self.tied and self.classes:
            raise NotAModel(
                "classes are not the vocabulary, so their matrix cannot be the embedding; leave tied= or classes= out."
            )
        if self.positional != "learned":
            self.length = 0
        super().__post_init__(**kwargs)

    def heads_at(self, layer: int) -> int:
        """Attention heads of one block."""
        return self.heads if isinstance(self.heads, int) else self.heads[layer]

    def neurons_at(self, layer: int) -> int:
        """Feed-forward neurons of one block."""
        return self.d_mlp if isinstance(self.d_mlp, int) else self.d_mlp[layer]


def eager_attention_forward(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch head key d_head"],
    value: Float[Tensor, "batch head key d_head"],
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch query head d_head"], Float[Tensor, "batch head query key"]]:
    """Attention written out: what runs where scores or the pattern are asked for."""
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    pattern = F.softmax(scores, dim=-1)
    return torch.matmul(pattern, value).transpose(1, 2), pattern


class Writing(nn.Linear):
    """The last matrix of a layer, the one that writes into the stream."""


class Attention(nn.Module):
    """Multi-head attention, through transformers' interface."""

    def __init__(self, config: SpecimenConfig, heads: int, cached: int) -> None:
        super().__init__()
        self.config, self.is_causal = config, config.causal
        self.layer_idx = cached
        """Its place in the key-value cache, which has none for blocks without attention."""
        self.scaling = config.d_head**-0.5 if config.scale is None else config.scale
        inner = heads * config.d_head
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=config.bias) for _ in range(3))
        self.o = Writing(inner, config.d_model, bias=config.bias)

    def forward(self, x: Stream, mask: Tensor | None, turn: tuple[Turn, Turn] | None, past_key_values: Any, **kwargs: Any):
        """What is added to the stream, and the pattern where the kernel makes one."""
        shape = (*x.shape[:-1], -1, self.config.d_head)
        q, k, v = (matrix(x).view(shape).transpose(1, 2) for matrix in (self.q, self.k, self.v))
        if turn is not None:
            q, k = turned(q, *turn), turned(k, *turn)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        kernel = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)  # type: ignore[arg-type]
        z, pattern = kernel(self, q, k, v, mask, scaling=self.scaling, dropout=0.0, **kwargs)
        return self.o(z.reshape(*x.shape[:-1], -1).contiguous()), pattern


class FeedForward(nn.Module):
    """Two matrices and a curve between."""

    def __init__(self, config: SpecimenConfig, neurons: int) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, neurons, bias=config.bias)
        self.act = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(neurons, bias=config.bias) if config.activation == "solu" else None
        self.down = Writing(neurons, config.d_model, bias=config.bias)

    def forward(self, x: Stream) -> Stream:
        """What is added to the stream."""
        neurons = self.act(self.up(x))
        return self.down(neurons if self.norm is None else self.norm(neurons))


class Block(GradientCheckpointingLayer):
    """What attention adds to the stream, and what a feed-forward layer then adds; either may be absent."""

    def __init__(self, config: SpecimenConfig, layer: int) -> None:
        super().__init__()
        heads, neurons = config.heads_at(layer), config.neurons_at(layer)
        cached = sum(config.heads_at(i) > 0 for i in range(layer))
        self.norm1, self.attn = (normalises(config), Attention(config, heads, cached)) if heads else (None, None)
        self.norm2, self.mlp = (normalises(config), FeedForward(config, neurons)) if neurons else (None, None)

    def forward(self, x: Stream, mask: Tensor | None = None, turn: tuple[Turn, Turn] | None = None,
                past_key_values: Any = None, **kwargs: Any) -> Stream:  # fmt: skip
        """The stream after this block."""
        if self.attn is not None:
            x = x + self.attn(x if self.norm1 is None else self.norm1(x), mask, turn, past_key_values, **kwargs)[0]
        if self.mlp is not None:
            x = x + self.mlp(x if self.norm2 is None else self.norm2(x))
        return x


class Specimen(PreTrainedModel, GenerationMixin):
    """The model. In memory it is opened as `pc.load(specimen)`, saved by `save_pretrained(folder)` as `pc.load(folder)`.

    >>> from patchclamp.model.specimen import Specimen, SpecimenConfig
    >>> small = pc.load(Specimen(SpecimenConfig(layers=1, heads=3, d_head=5, d_mlp=0, norm="none")))
    >>> list(small.sites)[1:-2]
    ['blocks.0.in', 'blocks.0.attn.in', 'blocks.0.attn.q', 'blocks.0.attn.k', 'blocks.0.attn.v', 'blocks.0.attn.scores', \
'blocks.0.attn.pattern', 'blocks.0.attn.z', 'blocks.0.attn.out']
    """

    config: SpecimenConfig
    config_class = SpecimenConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = _supports_sdpa = _supports_flex_attn = _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": Block, "attentions": Attention}  # noqa: RUF012
    _tied_weights_keys = {"unembed.weight": "embed.weight"}  # noqa: RUF012

    def __init__(self, config: SpecimenConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.d_model)
        self.positions = nn.Embedding(config.length, config.d_model) if config.positional == "learned" else None
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.layers)])
        self.norm = normalises(config)
        self.unembed = nn.Linear(config.d_model, config.classes or config.vocab, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """What embeds the tokens."""
        return self.embed

    def set_input_embeddings(self, value: Any) -> None:
        """Put another embedding in."""
        self.embed = value

    def get_output_embeddings(self) -> nn.Module:
        """What reads the logits off the stream."""
        return self.unembed

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """Put another unembedding in."""
        self.unembed = new_embeddings

    @capture_outputs
    def forward(
        self,
        input_ids: Int[Tensor, "batch pos"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "#batch pos"] | None = None,
        past_key_values: Any = None,
        inputs_embeds: Stream | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch pos vocab) of ids, or of embeddings in their place; of the last `logits_to_keep` tokens only, if given.

        A cache is kept where one is handed in or `use_cache=True` asks for one.
        """
        for name in ("output_attentions", "output_hidden_states"):  # the decorator's business
            kwargs.pop(name, None)
        x = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        create = create_causal_mask if self.config.causal else create_bidirectional_mask
        mask = create(config=self.config, inputs_embeds=x, attention_mask=attention_mask, past_key_values=past_key_values)
        turn = None
        if self.config.positional != "none":
            if position_ids is None:
                seen = 0 if past_key_values is None else past_key_values.get_seq_length()
                position_ids = torch.arange(seen, seen + x.shape[1], device=x.device)[None]
            if self.positions is not None:
                x = x + self.positions(position_ids)
            else:
                turn = turns(position_ids, self.config, x)
        if past_key_values is not None and not any(self.config.heads_at(i) for i in range(self.config.layers)):
            count = x.new_zeros(x.shape[0], 1, x.shape[1], 1)  # without attention nothing is cached but how many tokens came
            past_key_values.update(count, count, 0)
        for block in self.blocks:
            x = block(x, mask, turn, past_key_values, **kwargs)
        x = x if self.norm is None else self.norm(x)
        logits = self.unembed(x[:, -logits_to_keep:] if logits_to_keep else x)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """See transformers; only a causal model with logits for its own vocabulary goes on writing."""
        if not self.config.causal or self.config.classes:
            reason = f"its logits are {self.config.classes} classes" if self.config.classes else "its tokens see later ones"
            raise Unserved(f"this specimen does not generate: {reason}. Build it with causal=True and classes=0.")
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's way: normal with one width, and smaller for what writes into the stream, the deeper the model."""
        super()._init_weights(module)
        if isinstance(module, Writing):  # transformers asks no module of ours that has no parameters of its own
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range / math.sqrt(2 * self.config.layers))


def normalises(config: SpecimenConfig) -> nn.Module | None:
    """The norm of this kind of specimen, or None."""
    if config.norm == "none":
        return None
    return nn.RMSNorm(config.d_model, eps=1e-6) if config.norm == "rms" else nn.LayerNorm(config.d_model, bias=config.bias)


def turns(position_ids: Int[Tensor, "#batch pos"], config: SpecimenConfig, like: Tensor) -> tuple[Turn, Turn]:
    """Cosines and sines of the angles of every position (Su et al. 2021, "RoFormer"), as GPT-NeoX lays them out."""
    rates = config.rope_theta ** (-torch.arange(0, config.d_head, 2, device=like.device) / config.d_head)
    angles = (position_ids[..., None].float() * rates).repeat(1, 1, 2)[:, None]
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turned(x: Float[Tensor, "batch head pos d_head"], cos: Turn, sin: Turn) -> Float[Tensor, "batch head pos d_head"]:
    """Queries or keys, turned by their positions' angles."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


AutoConfig.register(SpecimenConfig.model_type, SpecimenConfig, exist_ok=True)
AutoModel.register(SpecimenConfig, Specimen, exist_ok=True)
AutoModelForCausalLM.register(SpecimenConfig, Specimen, exist_ok=True)
