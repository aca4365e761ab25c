"""The transformer: a residual stream that attention and an MLP take turns to write on.

One configuration covers the GPT-2 family (LayerNorm, learned positions, plain MLP) and the Llama family (RMSNorm,
rotary positions, gated MLP, grouped-query attention), and one Block serves language models and everything else.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import Context, MultiHeadAttention, causal_mask
from lib.embedding import LearnedPositions, rotary_angles, sinusoidal
from lib.errors import CourseError
from lib.kernels.door import with_kernel
from lib.kernels.norms import fast_rms_norm

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}
MOST = 2**24  # of layers, heads, widths and tokens: beyond lies a slip of the finger
CHOICES = {
    "norm": ("rms", "layer"),
    "position": ("rotary", "learned", "sinusoidal", "none"),
    "mlp": ("gated", "plain"),
    "activation": tuple(ACTIVATIONS),
}


@dataclass
class Config:
    """Every size and switch of a Transformer. Left at None, a field follows from the others."""

    vocab_size: int
    block_size: int  # longest sequence, in tokens
    n_layer: int
    n_head: int
    d_model: int
    n_kv_head: int | None = None  # n_head: every query head has its own keys and values
    head_dim: int | None = None  # d_model / n_head
    d_ff: int | None = None  # 4 d_model, or 8/3 d_model for a gated MLP, which has three matrices, not two
    norm: str = "rms"
    position: str = "rotary"
    mlp: str = "gated"
    activation: str = "silu"
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tie: bool = True  # the output head is the token embedding, transposed
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    sliding_window: int | None = None
    dropout: float = 0.0
    causal: bool = True

    @classmethod
    def gpt2(cls, **fields) -> "Config":
        """The GPT-2 family's switches (Radford et al. 2019); any field can be overridden."""
        switches = dict(norm="layer", position="learned", mlp="plain", activation="gelu_tanh")
        return cls(**(switches | dict(qkv_bias=True, out_bias=True, mlp_bias=True) | fields))

    @classmethod
    def llama(cls, **fields) -> "Config":
        """The Llama family's switches (Touvron et al. 2023), which are the defaults."""
        return cls(**fields)

    def __post_init__(self):
        for field in ("vocab_size", "block_size", "n_layer", "n_head", "d_model"):
            if not 1 <= getattr(self, field) <= MOST:
                raise CourseError(f"{field} must be at least 1, and at most {MOST:,}, not {getattr(self, field)}")
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise CourseError(f"unknown {field} {getattr(self, field)!r}; choose {', '.join(choices)}")
        if self.n_kv_head is None:
            self.n_kv_head = self.n_head
        if self.n_kv_head < 1 or self.n_head % self.n_kv_head:
            raise CourseError(f"n_head={self.n_head} is not a multiple of n_kv_head={self.n_kv_head}")
        if self.head_dim is None:
            if self.d_model % self.n_head:
                raise CourseError(
                    f"d_model={self.d_model} does not divide into n_head={self.n_head} heads; "
                    f"change one of them or set head_dim"
                )
            self.head_dim = self.d_model // self.n_head
        if self.d_ff is None:
            self.d_ff = 8 * self.d_model // 3 if self.mlp == "gated" else 4 * self.d_model
        for field in ("head_dim", "d_ff", "sliding_window"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise CourseError(f"{field} must be at least 1, not {value}")

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


@with_kernel(fast_rms_norm)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale to unit root mean square, then stretch: no centring, no shift (Zhang and Sennrich 2019, equation 4).

    x (…, D), weight (D,) → (…, D). eps keeps a vector of zeros from being 0/0.
    """
    square = x.square().mean(-1, keepdim=True)  # (…, 1)
    return x * (square + eps).rsqrt() * weight  # (…, D)


class RMSNorm(nn.Module):
    """`rms_norm` with a stretch that is learned."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))  # (D,)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        return rms_norm(x, self.weight, self.eps)  # (…, D)


def make_norm(config: Config) -> nn.Module:
    """A config's norm, (…, D) → (…, D): RMSNorm, or LayerNorm, which also centres and shifts (Ba et al. 2016)."""
    return (RMSNorm if config.norm == "rms" else nn.LayerNorm)(config.d_model, eps=config.norm_eps)


class MLP(nn.Module):
    """Widen, bend, narrow again, each position on its own: f(x W_up) W_down."""

    def __init__(self, config: Config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return self.down(self.activation(self.up(x)))  # (B, T, D) through (B, T, F)


class GatedMLP(MLP):
    """The same with a gate that decides how much of each feature passes (Shazeer 2020).

    (f(x W_gate) ⊙ x W_up) W_down.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return self.down(self.activation(self.gate(x)) * self.up(x))  # (B, T, D) through (B, T, F)


class Block(nn.Module):
    """Communicate, then compute: x + attention(norm(x)), then x + mlp(norm(x)).

    The x that passes straight through is the residual stream; each half reads a normed copy and adds to it.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.norm1 = make_norm(config)
        self.attention = MultiHeadAttention(config)
        self.norm2 = make_norm(config)
        self.mlp = (GatedMLP if config.mlp == "gated" else MLP)(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Context, cache=None) -> Tensor:
        """x (B, T, D) → (B, T, D); context and cache as in MultiHeadAttention."""
        x = x + self.dropout(self.attention(self.norm1(x), context, cache))  # (B, T, D)
        return x + self.dropout(self.mlp(self.norm2(x)))  # (B, T, D)


def initialise(model: nn.Module) -> None:
    """GPT-2's start for a model with blocks: normal with deviation 0.02, biases zero (Radford et al. 2019)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for block in model.blocks:  # 2 n_layer writes add up on the residual stream: keep their sum at unit scale
        for last in (block.attention.out, block.mlp.down):
            nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * len(model.blocks)))


class Transformer(nn.Module):
    """Tokens in, a score for every possible next token out."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)  # one row a token
        if config.position == "learned":
            self.positions = LearnedPositions(config.block_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie:
            self.head.weight = self.embedding.weight
        initialise(self)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The residual stream before the first block: tokens (B, T) at positions (T,) or (B, T) → (B, T, D)."""
        x = self.embedding(tokens)  # (B, T, D)
        if self.config.position == "learned":
            x = x + self.positions(positions)  # (B, T, D)
        elif self.config.position == "sinusoidal":
            waves = sinusoidal(positions.flatten(), self.config.d_model).to(x.dtype)  # (T, D) or (B·T, D)
            x = x + waves.unflatten(0, positions.shape)  # (B, T, D)
        return self.dropout(x)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """The angles' cos and sin at positions (T,): (T, Dh/2) each; at (B, T): (B, 1, T, Dh/2). None: no rotary."""
        if self.config.position != "rotary":
            return None
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)  # (…, T, Dh/2) each
        return (cos[:, None], sin[:, None]) if positions.ndim > 1 else (cos, sin)

    def context(self, positions: Tensor, S: int, padding: Tensor | None = None) -> Context:
        """The context of T tokens standing at `positions`, the last T of S.

        positions (T,); with padding (B,), as in `forward`, (B, T).
        """
        config, T = self.config, positions.size(-1)
        rotary = self.rotary(positions)  # (T, Dh/2) or (B, 1, T, Dh/2) each
        if padding is not None:
            key = torch.arange(S, device=positions.device)  # (S,)
            past = causal_mask(T, S, config.sliding_window, key.device) if config.causal else key >= 0  # (T, S) or (S,)
            itself = key == key[S - T :, None]  # (T, S): a filler has nobody else, and a softmax needs somebody
            mask = past & (key >= padding[:, None, None]) | itself  # (B, T, S)
            return Context(rotary, mask=mask[:, None])  # (B, 1, T, S)
        if not config.causal or (T == 1 and (config.sliding_window or S) >= S):
            return Context(rotary)  # everyone sees everyone: a lone newest token may look at all before it
        if T == S and (config.sliding_window or S) >= S:
            return Context(rotary, causal=True)
        return Context(rotary, mask=causal_mask(T, S, config.sliding_window, positions.device))

    def forward(self, tokens: Tensor, cache=None, padding: Tensor | None = None) -> Tensor:
        """tokens (B, T) → logits (B, T, V).

        cache: keys and values of the tokens before these (lib.generation.KVCache), extended in passing.
        padding: (B,), how many of all S positions are filler at the left of each row; nobody looks at them, and
        positions count from the first real token. Raises CourseError when the sequence outgrows block_size.
        """
        return self.head(self.last_hidden_state(tokens, cache, padding))  # (B, T, V)

    def last_hidden_state(self, tokens: Tensor, cache=None, padding: Tensor | None = None) -> Tensor:
        """The residual stream after the last norm, (B, T, D), which the head reads; arguments as in `forward`."""
        past = 0 if cache is None else cache.length
        S = past + tokens.size(1)
        if S > self.config.block_size:
            raise CourseError(
                f"{S} tokens are more than block_size={self.config.block_size}; "
                f"shorten the input or train a longer block"
            )
        positions = torch.arange(past, S, device=tokens.device)  # (T,)
        if padding is not None:
            positions = (positions - padding[:, None]).clamp_min(0)  # (B, T)
        x = self.embed(tokens, positions)  # (B, T, D)
        context = self.context(positions, S, padding)
        for i, block in enumerate(self.blocks):
            x = block(x, context, None if cache is None else cache.layers[i])  # (B, T, D)
        return self.norm(x)  # (B, T, D)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers, a tied matrix counted once."""
    return sum(p.numel() for p in model.parameters())
