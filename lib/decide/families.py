"""The families of models, one sum each: how many parameters a config.json comes to, part by part.

A field that the file leaves out has the default that `transformers` gives it. The letters are the course's: D width,
L layers, H query heads, K key and value heads, Dh a head's width, F the MLP's, V the vocabulary, T the context.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from lib.errors import CourseError

LARGEST = 10**9  # of any size in a config: a thousand times what has been built
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Size:
    """Parameters of a part. matrix: those that multiply a token on its way; other: biases, norms, tables."""

    matrix: int = 0
    other: int = 0

    def __add__(self, more: "Size") -> "Size":
        return Size(self.matrix + more.matrix, self.other + more.other)

    def __mul__(self, times: int) -> "Size":
        return Size(self.matrix * times, self.other * times)

    __rmul__ = __mul__

    @property
    def total(self) -> int:
        return self.matrix + self.other


def linear(inputs: int, outputs: int, bias: bool = False) -> Size:
    """y = W x (+ b): a weight for each pair, a bias for each output."""
    return Size(inputs * outputs, outputs * bias)


def attention(D: int, H: int, K: int, Dh: int, qkv_bias: bool = False, out_bias: bool = False) -> Size:
    """Queries for H heads, keys and values for K of them, and the way out of H heads back to D."""
    return linear(D, H * Dh, qkv_bias) + 2 * linear(D, K * Dh, qkv_bias) + linear(H * Dh, D, out_bias)


def mlp(D: int, F: int, gated: bool = False, bias: bool = False) -> Size:
    """Up to F and down again; a gated MLP goes up twice."""
    return (2 if gated else 1) * linear(D, F, bias) + linear(F, D, bias)


def norm(width: int, shift: bool = False) -> Size:
    """RMSNorm stretches, LayerNorm stretches and shifts."""
    return Size(other=width * (2 if shift else 1))


def table(rows: int, width: int) -> Size:
    """An embedding: looked up, not multiplied."""
    return Size(other=rows * width)

class Fields:
    """A config.json, read with care: the right type, a sane size, or one line that says which field is wrong."""

    def __init__(self, config: dict, own: dict[str, str]):
        self.config, self.own = config, own
        self.assumed: dict[str, int] = {}  # sizes that the file leaves out

    def raw(self, name: str, default=None):
        """A field by its usual name, or by the name that this family has for it."""
        for known in (self.own.get(name), name):
            if known is not None and known in self.config:
                return self.config[known]
        return default

    def _called(self, name: str) -> str:
        own = self.own.get(name)
        return own if own and (own in self.config or name not in self.config) else name

    def size(self, name: str, default: int | None, least: int = 1, most: int = LARGEST) -> int | None:
        """A whole number in bounds; None (a field that says null) only where the default is None."""
        value = self.raw(name, default)
        if value is None and default is None:
            return None
        called = self._called(name)
        if name not in self.config and called not in self.config:
            self.assumed[called] = default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CourseError(f"{called} is {short(value)} in this config; a whole number is needed there")
        if not least <= value <= most:
            raise CourseError(f"{called}={number(value)} in this config; it must be from {least} to {most:,}")
        return value

    def needed(self, name: str, most: int = LARGEST) -> int:
        """A size that no model can do without. Raises CourseError for a file that leaves it out."""
        if self._called(name) not in self.config:
            own = self.own.get(name, name)
            raise CourseError(f"this config has no {own}, so the model's size is not known; give its own config.json")
        return self.size(name, 1, most=most)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw(name, default)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise CourseError(f"{self._called(name)} is {short(value)} in this config; true or false is needed there")
        return value

    @property
    def labels(self) -> int:
        """How many classes a classifier tells apart: id2label's length, num_labels, or 2."""
        names = self.raw("id2label")
        if isinstance(names, dict):
            return len(names)
        return self.size("num_labels", 2, least=0)


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def number(value: int) -> str:
    if abs(value) < 10**15:
        return str(value)
    return f"{float(value):.0e}" if abs(value) < 10**300 else "a number with hundreds of digits"


@dataclass(frozen=True)
class Family:
    """A family's sum and the defaults of its fields; own: its own names for the usual fields."""

    build: Callable[["Fields", "Family"], dict]
    vocab_size: int
    hidden_size: int
    intermediate_size: int | None
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tied: bool = False
    own: dict[str, str] = field(default_factory=dict)
    extra: dict = field(default_factory=dict)


def _sizes(f: Fields, family: Family) -> dict[str, int]:
    """The sizes that all families have: D, L, H, K, Dh, F, V and the context, checked against one another."""
    D, H = f.needed("hidden_size"), f.needed("num_attention_heads")
    L = f.needed("num_hidden_layers", most=MOST_LAYERS)
    K = H
    if "num_key_value_heads" in family.own or family.num_key_value_heads or family.extra.get("groups"):
        given = f.raw("num_key_value_heads", family.num_key_value_heads)
        K = H if given is None else f.size("num_key_value_heads", family.num_key_value_heads or H)
    if H % K:
        raise CourseError(f"{H} query heads do not divide over {K} key and value heads; "
                          f"{f._called('num_key_value_heads')} must divide {f._called('num_attention_heads')}")
    Dh = f.size("head_dim", family.head_dim) if family.extra.get("head_dim", True) else None
    if Dh is None:
        if D % H:
            raise CourseError(f"{f._called('hidden_size')}={D} does not divide into {H} heads; change one of them")
        Dh = D // H
    F = f.size("intermediate_size", family.intermediate_size)
    return dict(D=D, L=L, H=H, K=K, Dh=Dh, F=4 * D if F is None else F, V=f.size("vocab_size", family.vocab_size),
                T=f.size("max_position_embeddings", family.max_position_embeddings))


def _decoder(f: Fields, family: Family, *, gated=True, qkv_bias=False, out_bias=False, mlp_bias=False, shift=False,
             norms=2, head_norms: int = 0, positions: int | None = None, head_bias=False, final_norm=True,
             embedding_norm=False, windows: Callable | None = None, sizes: dict | None = None,
             embedding_width: int | None = None, experts: dict | None = None) -> dict:  # fmt: skip
    """A language model: L layers of attention and MLP with `norms` norms each, between an embedding and a head.

    shift: norms are LayerNorms. head_norms: weights of the norms on queries and keys, a layer. positions: rows of a
    learned table. embedding_width: of an embedding narrower than the model, with a matrix in and one out.
    experts: dict(layers, count, chosen, width, shared) where some layers choose among several MLPs.
    """
    s = sizes or _sizes(f, family)
    D, L, E = s["D"], s["L"], embedding_width or s["D"]
    tied = f.flag("tie_word_embeddings", family.tied)
    parts = {"embedding": table(s["V"], E)}
    if E != D:
        parts["projections"] = 2 * linear(E, D)
    if positions:
        parts["positions"] = table(positions, D)
    parts["attention"] = L * attention(D, s["H"], s["K"], s["Dh"], qkv_bias, out_bias)
    plain = L - (experts["layers"] if experts else 0)
    parts["mlp"] = plain * mlp(D, s["F"], gated, mlp_bias)
    idle = Size()
    if experts and experts["layers"]:
        one = mlp(D, experts["width"], gated=True)
        parts["experts"] = experts["layers"] * experts["count"] * one
        parts["router"] = experts["layers"] * linear(D, experts["count"])
        if experts.get("shared"):  # one MLP that all tokens pass, with a gate of its own
            parts["mlp"] += experts["layers"] * (mlp(D, experts["shared"], gated=True) + linear(D, 1))
        idle = experts["layers"] * (experts["count"] - experts["chosen"]) * one
        s = s | dict(F=experts["chosen"] * experts["width"] + (experts.get("shared") or 0))  # what a token meets
    parts["norms"] = (L * norms + final_norm + embedding_norm) * norm(D, shift) + Size(other=L * head_norms)
    return dict(kind="decoder", parts=parts, idle=idle, tied=tied, gated=gated, sizes=s, head_width=E,
                head_bias=head_bias, windows=tuple(windows(s["L"]) if windows else [None] * L))  # fmt: skip


def _window(f: Fields, default: int | None, on: bool = True) -> Callable:
    """Every layer looks back as far as sliding_window says, or to the start."""
    width = f.size("sliding_window", default, least=0) if f.raw("sliding_window", default) is not None and on else None
    return lambda L: [width or None] * L


def _layer_types(f: Fields, default: int, slides: Callable[[int], bool]) -> Callable:
    """Layers that slide among layers that see everything: as layer_types says, or by the family's rule."""
    width = f.size("sliding_window", default, least=0) if f.raw("sliding_window", default) is not None else None

    def windows(L: int) -> list[int | None]:
        kinds = f.raw("layer_types")
        if isinstance(kinds, list) and len(kinds) == L:
            return [width if kind == "sliding_attention" else None for kind in kinds]
        return [width if slides(i) else None for i in range(L)]

    return windows


# The families, one sum each


def _gpt2(f, family):
    s = _sizes(f, family)
    if f.flag("add_cross_attention"):
        raise Unknown
    return _decoder(f, family, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, shift=True,
                    positions=s["T"], sizes=s)  # fmt: skip


def _bigcode(f, family):
    s = _sizes(f, family)
    s["K"] = 1 if f.flag("multi_query", True) else s["H"]
    if f.flag("add_cross_attention"):
        raise Unknown
    return _decoder(f, family, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, shift=True,
                    positions=s["T"], sizes=s)  # fmt: skip


def _gpt_neo(f, family):
    s = _sizes(f, family)
    local = f.size("window_size", 256)
    return _decoder(f, family, gated=False, out_bias=True, mlp_bias=True, shift=True, positions=s["T"], sizes=s,
                    windows=lambda L: [local if i % 2 else None for i in range(L)])  # fmt: skip


def _gptj(f, family):
    return _decoder(f, family, gated=False, mlp_bias=True, shift=True, norms=1, head_bias=True)


def _neox(f, family):
    bias = f.flag("attention_bias", True)
    return _decoder(f, family, gated=False, qkv_bias=bias, out_bias=bias, mlp_bias=True, shift=True)


def _llama(f, family):
    bias = f.flag("attention_bias")
    window = _window(f, 4096, f.flag("use_sliding_window")) if family.extra.get("slides") else None
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, mlp_bias=f.flag("mlp_bias"), windows=window)


def _mistral(f, family):
    return _decoder(f, family, windows=_window(f, family.extra.get("window")))


def _mixtral(f, family):
    s = _sizes(f, family)
    count = f.size("num_local_experts", 8)
    chosen = f.size("num_experts_per_tok", 2)
    experts = dict(layers=s["L"], count=count, chosen=_chosen(chosen, count), width=s["F"])
    return _decoder(f, family, sizes=s, experts=experts, windows=_window(f, None))


def _chosen(chosen: int, count: int) -> int:
    if chosen > count:
        raise CourseError(f"a token cannot go to {chosen} of {count} experts; num_experts_per_tok is too large")
    return chosen


def _sparse(f: Fields, s: dict, width: int, chosen: int, count: int, shared: int | None = None) -> dict:
    """Qwen's rule: every decoder_sparse_step-th layer has experts, but for those in mlp_only_layers."""
    step = f.size("decoder_sparse_step", 1)
    dense = f.raw("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise CourseError(f"mlp_only_layers is {short(dense)} in this config; a list of layers is needed there")
    count = f.size("num_experts", f.size("num_local_experts", count), least=0)
    layers = sum(i not in dense and (i + 1) % step == 0 for i in range(s["L"])) if count else 0
    chosen = _chosen(f.size("num_experts_per_tok", chosen), count) if layers else 0
    width = f.size("moe_intermediate_size", width)
    return dict(layers=layers, count=count, chosen=chosen, width=width,
                shared=f.size("shared_expert_intermediate_size", shared) if shared else None)  # fmt: skip


def _late(f: Fields) -> Callable:
    """Qwen2: the layers from max_window_layers on slide, if any do."""
    first = f.size("max_window_layers", 28, least=0)
    if not f.flag("use_sliding_window"):
        return lambda L: [None] * L
    return _layer_types(f, 4096, lambda i: i >= first)


def _qwen2(f, family):
    return _decoder(f, family, qkv_bias=True, windows=_late(f))


def _qwen2_moe(f, family):
    s = _sizes(f, family)
    return _decoder(f, family, qkv_bias=f.flag("qkv_bias", True), sizes=s,
                    experts=_sparse(f, s, 1408, 4, 60, shared=5632))  # fmt: skip


def _qwen3(f, family):
    s, bias = _sizes(f, family), f.flag("attention_bias")
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, head_norms=2 * s["Dh"], sizes=s, windows=_late(f))


def _qwen3_moe(f, family):
    s, bias = _sizes(f, family), f.flag("attention_bias")
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, head_norms=2 * s["Dh"], sizes=s,
                    experts=_sparse(f, s, 768, 8, 128))  # fmt: skip


def _gemma(f, family):
    bias = f.flag("attention_bias")
    return _decoder(f, family, qkv_bias=bias, out_bias=bias)


def _gemma2(f, family):
    bias = f.flag("attention_bias")
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, norms=4,
                    windows=_layer_types(f, 4096, lambda i: i % 2 == 0))  # fmt: skip


def _gemma3(f, family):
    s, bias = _sizes(f, family), f.flag("attention_bias")
    every = f.size("sliding_window_pattern", f.size("_sliding_window_pattern", 6))
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, norms=4, head_norms=2 * s["Dh"], sizes=s,
                    windows=_layer_types(f, 4096, lambda i: (i + 1) % every != 0))  # fmt: skip


def _phi(f, family):
    s = _sizes(f, family)
    head_norms = 4 * (s["D"] // s["H"]) if f.flag("qk_layernorm") else 0
    return _decoder(f, family, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, shift=True, norms=1,
                    head_norms=head_norms, head_bias=True, sizes=s)  # fmt: skip


def _opt(f, family):
    s, bias, affine = _sizes(f, family), f.flag("enable_bias", True), f.flag("layer_norm_elementwise_affine", True)
    before = f.flag("do_layer_norm_before", True) and not f.flag("_remove_final_layer_norm")
    built = _decoder(f, family, gated=False, qkv_bias=bias, out_bias=bias, mlp_bias=bias, shift=True, final_norm=before,
                     positions=s["T"] + 2, sizes=s, embedding_width=f.size("word_embed_proj_dim", None))  # fmt: skip
    if not affine:
        built["parts"]["norms"] = Size()
    return built


def _bloom(f, family):
    s = _sizes(f, family) | dict(T=f.size("seq_length", 2048))
    s["F"] = 4 * s["D"]
    return _decoder(f, family, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, shift=True,
                    embedding_norm=True, sizes=s)  # fmt: skip


def _falcon(f, family):
    s, bias = _sizes(f, family), f.flag("bias")
    new, parallel = f.flag("new_decoder_architecture"), f.flag("parallel_attn", True)
    if not new:
        s["K"] = 1 if f.flag("multi_query", True) else s["H"]
    two = f.size("num_ln_in_parallel_attn", None) if f.raw("num_ln_in_parallel_attn") is not None else 2 if new else 1
    norms = (2 if two == 2 else 1) if parallel else 2
    return _decoder(f, family, gated=False, qkv_bias=bias, out_bias=bias, mlp_bias=bias, shift=True, norms=norms,
                    sizes=s)  # fmt: skip


def _olmo(f, family):
    bias = f.flag("attention_bias")
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, norms=0, final_norm=False)


def _olmo2(f, family):
    s, bias = _sizes(f, family), f.flag("attention_bias")
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, head_norms=(s["H"] + s["K"]) * s["Dh"], sizes=s)


def _starcoder2(f, family):
    bias = f.flag("use_bias", True)
    return _decoder(f, family, gated=False, qkv_bias=bias, out_bias=bias, mlp_bias=bias, shift=True,
                    windows=_window(f, None))  # fmt: skip


def _cohere(f, family):
    s, bias = _sizes(f, family), f.flag("attention_bias")
    head_norms = (s["H"] + s["K"]) * s["Dh"] if f.flag("use_qk_norm") else 0
    return _decoder(f, family, qkv_bias=bias, out_bias=bias, norms=1, head_norms=head_norms, sizes=s)


def _stablelm(f, family):
    s = _sizes(f, family)
    head_norms = (s["H"] + s["K"]) * s["Dh"] if f.flag("qk_layernorm") else 0
    return _decoder(f, family, qkv_bias=f.flag("use_qkv_bias"), shift=True, head_norms=head_norms, sizes=s,
                    norms=1 if f.flag("use_parallel_residual") else 2)  # fmt: skip


def _encoder(f: Fields, family: Family) -> dict:
    """BERT and those after it: LayerNorms after each half of a layer, biases everywhere, tables for words and places.

    extra["types"]: rows of the table that tells a first sentence from a second. The heads are in _encoder_head.
    """
    if f.flag("is_decoder") or f.flag("add_cross_attention"):
        raise Unknown
    s, types = _sizes(f, family), family.extra.get("types")
    D, L = s["D"], s["L"]
    layer = attention(D, s["H"], s["H"], s["Dh"], True, True), mlp(D, s["F"], bias=True)
    parts = {
        "embedding": table(s["V"], D),
        "positions": table(s["T"] + (f.size("type_vocab_size", types, least=0) if types else 0), D),
        "attention": L * layer[0],
        "mlp": L * layer[1],
        "norms": (2 * L + 1) * norm(D, shift=True),
    }
    tied = f.flag("tie_word_embeddings", True)
    return dict(kind="encoder", parts=parts, idle=Size(), tied=tied, gated=False, sizes=s, head_width=D,
                head_bias=True, windows=(None,) * L)  # fmt: skip


def _t5(f: Fields, family: Family) -> dict:
    """Two stacks that share one embedding; a decoder's layer also listens to the encoder. No biases; RMSNorms.

    Places are told by a small table of distances, one a stack. T5 1.1, FLAN-T5 and mT5 have a head of their own.
    """
    s = _sizes(f, family)
    f.assumed.pop("max_position_embeddings", None)  # it has none
    D, H, Dh, F = s["D"], s["H"], s["Dh"], s["F"]
    upper = f.raw("num_decoder_layers")
    upper = s["L"] if upper is None else f.size("num_decoder_layers", s["L"], most=MOST_LAYERS)
    kind = f.raw("feed_forward_proj", family.extra["mlp"])
    gated = isinstance(kind, str) and kind.startswith("gated")
    distances = table(f.size("relative_attention_num_buckets", 32), H)
    parts = {
        "embedding": table(s["V"], D),
        "positions": 2 * distances,
        "attention": s["L"] * attention(D, H, H, Dh) + 2 * upper * attention(D, H, H, Dh),
        "mlp": (s["L"] + upper) * mlp(D, F, gated),
        "norms": (2 * s["L"] + 3 * upper + 2) * norm(D),
    }
    below = {
        "embedding": parts["embedding"], "positions": distances, "attention": s["L"] * attention(D, H, H, Dh),
        "mlp": s["L"] * mlp(D, F, gated), "norms": (2 * s["L"] + 1) * norm(D),
    }  # fmt: skip
    heard = upper * 2 * linear(D, H * Dh)  # the decoder's keys and values of what was read
    look = 2 * H * Dh
    pair = dict(layers=s["L"], reads=(below["attention"] + below["mlp"] + heard).matrix, looks=s["L"] * look,
                own=upper * look, cross=upper * look)  # fmt: skip
    tied = f.flag("tie_word_embeddings", family.tied)
    return dict(kind="encoder-decoder", parts=parts, below=below, idle=Size(), tied=tied, gated=gated, head_width=D,
                sizes=s | dict(T=512, L=upper), head_bias=False, windows=(None,) * upper, pair=pair)  # fmt: skip


def _vit(f: Fields, family: Family) -> dict:
    """Patches through one matrix, a class token, learned places, then a pre-norm encoder (Dosovitskiy et al. 2021)."""
    s = _sizes(f, family)
    D, L = s["D"], s["L"]
    image, patch = (_pair(f, name, default) for name, default in (("image_size", 224), ("patch_size", 16)))
    if patch[0] > image[0] or patch[1] > image[1]:
        raise CourseError(f"patches of {patch[0]}×{patch[1]} do not fit a picture of {image[0]}×{image[1]}")
    places = (image[0] // patch[0]) * (image[1] // patch[1]) + 1
    parts = {
        "embedding": linear(f.size("num_channels", 3) * patch[0] * patch[1], D, bias=True) + table(1, D),
        "positions": table(places, D),
        "attention": L * attention(D, s["H"], s["H"], s["Dh"], f.flag("qkv_bias", True), True),
        "mlp": L * mlp(D, s["F"], bias=True),
        "norms": (2 * L + 1) * norm(D, shift=True),
    }
    return dict(kind="vision", parts=parts, idle=Size(), tied=False, gated=False, sizes=s | dict(T=places, V=0),
                head_width=D, head_bias=True, windows=(None,) * L)  # fmt: skip


def _pair(f: Fields, name: str, default: int) -> tuple[int, int]:
    value = f.raw(name, default)
    if isinstance(value, list) and len(value) == 2:
        return tuple(Fields({name: v}, {}).size(name, default) for v in value)
    return (f.size(name, default),) * 2


class Unknown(Exception):
    """No formula of ours covers this; transformers may."""


def add_head(f: Fields, family: Family, built: dict, counted: str) -> int:
    """Put the head of a class, such as ForCausalLM, among the parts; returns the weights that it multiplies each token
    with. Raises Unknown for a class that no rule is for."""
    parts, s, D, n = built["parts"], built["sizes"], built["head_width"], f.labels
    if not counted.endswith("Classification"):
        f.assumed.pop("num_labels", None)
    base, writes, task = counted == "Model", counted in ("ForCausalLM", "LMHeadModel"), counted.removeprefix("For")
    if built["kind"] == "decoder":
        if writes:
            own = Size() if built["tied"] else linear(D, s["V"])
            parts["head"] = own + Size(other=s["V"] * built["head_bias"])
            return D * s["V"]
        if not base:
            if task not in ("SequenceClassification", "TokenClassification"):
                raise Unknown
            parts["head"] = linear(D, n, bias=task == "TokenClassification")
        return 0
    if built["kind"] == "encoder-decoder":
        if counted == "EncoderModel":
            parts.clear()
            parts.update(built["below"])
            lower = built.pop("pair")["layers"]
            built.update(kind="encoder", sizes=s | dict(L=lower), windows=(None,) * lower)
            return 0
        if not base and task != "ConditionalGeneration":
            raise Unknown
        if not base and not built["tied"]:
            parts["head"] = linear(D, s["V"])
        return 0 if base else D * s["V"]
    if built["kind"] == "vision":
        if base:
            parts["head"] = linear(D, f.size("pooler_output_size", None) or D, bias=True)
        elif task == "ImageClassification":
            parts["head"] = linear(D, n, bias=True) if n else Size()
        else:
            raise Unknown
        return 0
    return _encoder_head(built, parts, s, D, n, base, task, writes, family.extra["heads"])


def _encoder_head(built, parts, s, D, n, base, task, writes, style: str) -> int:
    pooler, dense = linear(D, D, bias=True), linear(D, D, bias=True)
    words = dense + norm(D, shift=True) + Size(other=s["V"])  # the bias of the tied head
    if (style == "distilbert" and writes) or not built["tied"]:
        raise Unknown
    if base:
        parts["head"] = Size() if style == "distilbert" else pooler
    elif task == "MaskedLM" or writes:
        parts["head"] = words
        return D * s["V"] + D * D
    elif task == "PreTraining" and style == "bert":
        parts["head"] = words + pooler + linear(D, 2, bias=True)
        return D * s["V"] + D * D
    elif task == "NextSentencePrediction" and style == "bert":
        parts["head"] = pooler + linear(D, 2, bias=True)
    elif task == "SequenceClassification":
        parts["head"] = dense + linear(D, n, bias=True)  # BERT's pooler, or a dense layer of the head's own
    elif task in ("TokenClassification", "QuestionAnswering"):
        parts["head"] = linear(D, n, bias=True)
    else:
        raise Unknown
    return 0


_GPT2_NAMES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
               "max_position_embeddings": "n_positions", "intermediate_size": "n_inner"}  # fmt: skip
_G = {"groups": True}

# type: sum, vocabulary, width, MLP, layers, heads, context, then key/value heads, head width and the rest
FAMILIES: dict[str, Family] = {
    "gpt2": Family(_gpt2, 50257, 768, None, 12, 12, 1024, tied=True, own=_GPT2_NAMES,
                   extra=dict(head_dim=False)),
    "gpt_bigcode": Family(_bigcode, 50257, 768, None, 12, 12, 1024, tied=True, own=_GPT2_NAMES,
                          extra=dict(head_dim=False)),
    "gpt_neo": Family(_gpt_neo, 50257, 2048, None, 24, 16, 2048, tied=True, extra=dict(head_dim=False),
                      own={"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}),
    "gptj": Family(_gptj, 50400, 4096, None, 28, 16, 2048, own=_GPT2_NAMES, extra=dict(head_dim=False)),
    "gpt_neox": Family(_neox, 50432, 6144, 24576, 44, 64, 2048, extra=dict(head_dim=False)),
    "llama": Family(_llama, 32000, 4096, 11008, 32, 32, 2048, extra=_G),
    "smollm3": Family(_llama, 128256, 2048, 11008, 36, 16, 32768, 4, tied=True, extra=dict(slides=True)),
    "mistral": Family(_mistral, 32000, 4096, 14336, 32, 32, 131072, 8, extra=dict(window=4096)),
    "mixtral": Family(_mixtral, 32000, 4096, 14336, 32, 32, 131072, 8),
    "qwen2": Family(_qwen2, 151936, 4096, 22016, 32, 32, 32768, 32),
    "qwen2_moe": Family(_qwen2_moe, 151936, 2048, 5632, 24, 16, 32768, 16),
    "qwen3": Family(_qwen3, 151936, 4096, 22016, 32, 32, 32768, 32, 128),
    "qwen3_moe": Family(_qwen3_moe, 151936, 2048, 6144, 24, 32, 32768, 4),
    "gemma": Family(_gemma, 256000, 3072, 24576, 28, 16, 8192, 16, 256, tied=True),
    "gemma2": Family(_gemma2, 256000, 2304, 9216, 26, 8, 8192, 4, 256, tied=True),
    "gemma3_text": Family(_gemma3, 262208, 2304, 9216, 26, 8, 131072, 4, 256, tied=True),
    "phi": Family(_phi, 51200, 2048, 8192, 24, 32, 2048, extra=_G),
    "phi3": Family(_mistral, 32064, 3072, 8192, 32, 32, 4096, extra=_G),
    "opt": Family(_opt, 50272, 768, 3072, 12, 12, 2048, tied=True, own={"intermediate_size": "ffn_dim"},
                  extra=dict(head_dim=False)),
    "bloom": Family(_bloom, 250880, 64, None, 2, 8, 2048, tied=True, extra=dict(head_dim=False),
                    own={"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "hidden_size": "n_embed"}),
    "falcon": Family(_falcon, 65024, 4544, None, 32, 71, 2048, tied=True, extra=dict(head_dim=False),
                     own={"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"}),
    "olmo": Family(_olmo, 50304, 4096, 11008, 32, 32, 2048, extra=_G),
    "olmo2": Family(_olmo2, 50304, 4096, 11008, 32, 32, 2048, extra=_G),
    "starcoder2": Family(_starcoder2, 49152, 3072, 12288, 30, 24, 4096, 2, tied=True),
    "cohere": Family(_cohere, 256000, 8192, 22528, 40, 64, 8192, tied=True, extra=_G),
    "stablelm": Family(_stablelm, 50304, 2560, 6912, 32, 32, 4096, 32, extra=dict(head_dim=False)),
    "bert": Family(_encoder, 30522, 768, 3072, 12, 12, 512, extra=dict(heads="bert", types=2, head_dim=False)),
    "roberta": Family(_encoder, 50265, 768, 3072, 12, 12, 512, extra=dict(heads="roberta", types=2, head_dim=False)),
    "distilbert": Family(_encoder, 30522, 768, 3072, 6, 12, 512, extra=dict(heads="distilbert", head_dim=False),
                         own={"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                              "intermediate_size": "hidden_dim"}),
    "t5": Family(_t5, 32128, 512, 2048, 6, 8, 512, head_dim=64, tied=True, extra=dict(mlp="relu"),
                 own={"hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
                      "intermediate_size": "d_ff", "head_dim": "d_kv"}),
    "mt5": Family(_t5, 250112, 512, 1024, 8, 6, 512, head_dim=64, extra=dict(mlp="gated-gelu"),
                  own={"hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
                       "intermediate_size": "d_ff", "head_dim": "d_kv"}),
    "vit": Family(_vit, 1, 768, 3072, 12, 12, 1, extra=dict(head_dim=False)),
}  # fmt: skip
