"""What a model costs: arithmetic, memory, time, energy, money. Bounds and estimates from a Model (lib.decide.counting).

FLOPs count a multiplication and an addition as two. Sizes are in bytes, and a GB is 10⁹ of them. What is a bound says
so: nothing runs faster than its arithmetic over the device's peak, nor than its bytes over the bandwidth.
"""

import difflib
import functools
import math
import tomllib
from dataclasses import dataclass, field

from lib.decide.counting import Model
from lib.errors import CourseError
from lib.sources.places import DATA

DEVICES = DATA / "devices.toml"
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes a number
QUANTIZED = {"int8": (8, 0), "int4": (4, 32)}  # bits a weight, and weights that share a 16-bit scale (0: a row)
PRECISIONS = ("mixed", *WIDTH)
OPTIMIZERS = {"adamw": 2, "momentum": 1, "sgd": 0}  # numbers kept for each weight


# Arithmetic


def _seen(model: Model, context: int) -> list[int]:
    """How many places a token looks at, layer by layer."""
    return [min(context, window or context) for window in model.windows or [None] * model.n_layer]


def attention_flops(model: Model, context: int) -> float | None:
    """One token's scores and mixtures, forward: 4 H·Dh for each place it looks at, each layer. A causal model is
    counted as if it looked at all `context` places, as in the papers; half of them lie in the future. A state that is
    kept instead of places is written and read once. None where it is not known how the model looks back."""
    if model.kind == "encoder-decoder":
        return None if model.pair is None else _shared(model, context, _pair_looks(model, context, context))
    if model.cache is None:
        return None
    if model.cache == "heads":
        return 4 * model.n_head * model.head_dim * sum(_seen(model, context))
    looked = sum(numbers * seen for numbers, seen in zip(model.looked, _seen(model, context), strict=False))
    return 2 * looked + 4 * model.cache.state


def forward_flops(model: Model, context: int = 0) -> float | None:
    """One token's way through: two for each weight it meets in a matrix, and attention over `context` places.

    An encoder-decoder reads `context` tokens and writes as many; what that takes is shared out among all of them, or,
    where it reads sound, among those it writes. None where not known.
    """
    if model.kind == "encoder-decoder":
        return None if model.pair is None else _shared(model, context, pair_flops(model, context, context))
    looking = attention_flops(model, context)
    return None if None in (model.matrices, looking) else 2 * model.matrices + looking


def pair_flops(model: Model, read: int, written: int) -> float:
    """An encoder-decoder's whole way through: `read` tokens (sound: as much as it always hears) and `written` tokens.
    Keys and values of what is read are made once. The model's pair must be known."""
    S = model.pair.places or read
    return 2 * (model.pair.reads * S + model.matrices * written) + _pair_looks(model, read, written)


def _pair_looks(model: Model, read: int, written: int) -> float:
    pair, S, T = model.pair, model.pair.places or read, written
    return 2 * (pair.looks * S * S + pair.own * T * T + pair.cross * S * T)


def _shared(model: Model, context: int, flops: float) -> float:
    """An encoder-decoder's arithmetic by token: of those read and written, of those written where it hears."""
    return flops / max(1, context * (1 if model.pair.places else 2))


def training_flops(model: Model, tokens: float, context: int | None = None) -> dict[str, float | None]:
    """Training on so many tokens. The way back costs twice the way there.

    six_nd: 6 N D, N being the parameters that a token meets (Kaplan et al. 2020). exact: the matrices a token really
    meets, and attention over `context` places (by default the model's own). palm: 6 N + 12 L H Dh T a token
    (Chowdhery et al. 2022, appendix B), all parameters counted as matrices. Each is None where it is not known.
    """
    context = model.context if context is None else context
    forward, looking = forward_flops(model, context), attention_flops(model, context)
    return {
        "six_nd": None if model.active is None else 6.0 * model.active * tokens,
        "exact": None if forward is None else 3.0 * forward * tokens,
        "palm": None if None in (model.active, looking) else (6.0 * model.active + 3 * looking) * tokens,
    }


def chinchilla_flops(L: int, D: int, F: int, H: int, Dh: int, V: int, T: int) -> float:
    """One sequence of T tokens, there and back, counted as in Hoffmann et al. 2022, appendix F.

    Embeddings are counted as a matrix product, and the softmax as three operations a score.
    """
    layer = 2 * 3 * T * D * H * Dh  # queries, keys, values
    layer += 2 * T * T * H * Dh + 3 * H * T * T + 2 * T * T * H * Dh  # scores, softmax, mixture
    layer += 2 * T * H * Dh * D  # the way out
    layer += 2 * T * 2 * D * F  # MLP
    return 3.0 * (2 * T * V * D + L * layer + 2 * T * D * V)


def lora_parameters(D: int, L: int, rank: int, matrices: int = 2) -> int:
    """Weights that LoRA trains: two thin matrices beside each of `matrices` D×D ones a layer (Hu et al. 2021)."""
    return 2 * D * rank * matrices * L


# Memory


def weight_bytes(parameters: float, precision: str = "bfloat16", quantize: str | None = None, group: int = 0) -> float:
    """Bytes of the weights. Quantized: so many bits a weight and a 16-bit scale for each group of them.

    What stays in full width in practice (norms, often the embedding) is neglected. group 0: int4's is 32; int8 has a
    scale a row, which is nothing.
    """
    if quantize is None:
        return parameters * WIDTH[precision]
    bits, usual = QUANTIZED[quantize]
    group = group or usual
    return parameters * (bits / 8 + (2 / group if group else 0))


def stored_bytes(model: Model, precision: str = "bfloat16", quantize: str | None = None, parameters: float | None = None
                 ) -> float | None:  # fmt: skip
    """Bytes of a model's weights, or of so many of them: as the file says that they are stored, unless `quantize` says
    otherwise. None where the file's way of storing them is not understood."""
    share = 1.0 if parameters is None else parameters / model.parameters
    if quantize is not None or model.quantized is None:
        return weight_bytes(share * model.parameters, precision, quantize)
    if model.bits is None:
        return None
    width = 8 * WIDTH[precision]
    if model.pair and parameters is not None:
        return share * stored_bytes(model, precision)
    if parameters is None:
        return sum(size * model.bits.get(part, width) for part, size in model.parts.items()) / 8
    experts = model.parts.get("experts", 0) - (model.parameters - parameters)  # of those, some rest
    parts = model.parts | {"experts": experts}
    return sum(size * model.bits.get(part, width) for part, size in parts.items()) / 8


def kv_cache_bytes(model: Model, context: int, batch: int = 1, width: float = 2) -> float | None:
    """Keys and values of `context` tokens: 2 K·Dh numbers a layer and token. A sliding window keeps no more than it is
    wide, a latent its own width, a recurrent layer a state that does not grow. An encoder has none; an encoder-decoder
    keeps the encoder's for its decoder as well. None where it is not known what the family keeps."""
    if model.kind in ("encoder", "vision"):
        return 0.0
    if model.cache is None:
        return None
    if model.cache == "heads":
        both = 2 if model.kind == "encoder-decoder" else 1
        return 2.0 * model.n_kv_head * model.head_dim * sum(_seen(model, context)) * batch * width * both
    kept = model.cache
    numbers = sum(each * min(context, window or context) for each, window in kept.layers) + kept.state
    numbers += kept.source * (context if kept.heard is None else kept.heard)
    return float(numbers * batch * width)


def layer_activations(model: Model, width: float = 4) -> float:
    """Bytes that one layer keeps of one token for the way back, with fused attention (no T×T scores are kept).

    In numbers: 4 D for the stream and its normed copies, before attention and before the MLP; queries and mixture,
    2 H·Dh; keys and values, 2 K·Dh; the MLP's 2 F. A family with rotary positions and a gated MLP keeps another H·Dh
    and 2 F (gate, its bend, up, product). benchmarks/sizing.py measures it on lib's own Transformer.
    """
    q, kv = model.n_head * model.head_dim, model.n_kv_head * model.head_dim
    rows = 4 * model.d_model + 2 * q + 2 * kv + (q + 4 * model.d_ff if model.gated else 2 * model.d_ff)
    return width * rows


def training_memory(
    model: Model,
    batch: int = 1,
    context: int | None = None,
    *,
    precision: str = "mixed",
    optimizer: str = "adamw",
    checkpointing: bool = False,
    zero: int = 0,
    devices: int = 1,
    accumulate: bool = True,
) -> dict[str, float | None]:
    """Bytes on each of the devices while training with `batch` sequences of `context` tokens on each.

    precision: mixed keeps 2-byte weights and gradients and a 4-byte master copy beside the optimizer's numbers (16
    bytes a parameter with AdamW, as in the ZeRO paper); float32, bfloat16 and float16 keep everything so. zero: what
    the devices share out: 1 the optimizer's numbers, 2 the gradients too, 3 the weights too (Rajbhandari et al. 2020;
    3 is what FSDP does). checkpointing: keep what enters each layer, and compute the rest again on the way back.
    accumulate: gradients lie there all the time; else they grow as the activations go, and the sum is the larger of
    the two moments. Activations and total are None for layers that are more than attention and an MLP.
    """
    context = model.context if context is None else context
    N, width = model.parameters, 2 if precision == "mixed" else WIDTH[precision]
    states = OPTIMIZERS[optimizer] * (4 if precision == "mixed" else width) + (4 if precision == "mixed" else 0)
    tokens = batch * context
    layer = layer_activations(model, width)
    entry = width * model.d_model
    layers = model.n_layer + (model.pair.layers if model.pair else 0)
    writes = model.vocab_size if model.kind in ("decoder", "encoder-decoder") else 0
    memory = {
        "weights": width * N / (devices if zero >= 3 else 1),
        "gradients": width * N / (devices if zero >= 2 else 1),
        "optimizer": states * N / (devices if zero >= 1 else 1),
        "activations": tokens * (layers * entry + layer if checkpointing else layers * layer + 3 * entry),
        "logits": tokens * writes * 12.0,  # scores, their logarithms, and the gradient, 4 bytes each
    }
    if not model.plain:  # the states are known, what such layers keep for the way back is not
        return {key: float(value) for key, value in memory.items()} | {"activations": None, "total": None}
    total = sum(memory.values())
    if not accumulate:  # either all activations are there, or all gradients
        twice = width * model.vocab_size * model.d_model if model.tied else 0  # the head's and the embedding's
        moments = (memory["activations"] + memory["logits"], memory["gradients"] + tokens * 2 * layer + twice)
        total = memory["weights"] + memory["optimizer"] + max(moments)
    return {key: float(value) for key, value in memory.items()} | {"total": float(total)}


def inference_memory(
    model: Model,
    batch: int = 1,
    context: int | None = None,
    *,
    precision: str = "bfloat16",
    quantize: str | None = None,
    prompt: int | None = None,
) -> dict[str, float | None]:
    """Bytes while answering `batch` requests of `context` tokens in all, the first `prompt` of which are read at once.

    working: the widest moment of the prompt's way through a layer (or its scores), which is then forgotten. What is not
    known is None, and so is then the total.
    """
    context = model.context if context is None else context
    prompt = context if prompt is None else prompt
    width = WIDTH[precision]
    rows = 4 * model.d_model + (3 if model.gated else 2) * model.d_ff
    memory = {
        "weights": stored_bytes(model, precision, quantize),
        "kv_cache": kv_cache_bytes(model, context, batch, width),
        "working": float(max(batch * prompt * rows * width, batch * model.vocab_size * 4)),
    }
    return memory | {"total": None if None in memory.values() else sum(memory.values())}


# Devices, time and money


@dataclass(frozen=True)
class Device:
    """memory: bytes. bandwidth: bytes a second. flops: operations a second by precision. price: dollars an hour."""

    name: str
    title: str
    memory: float
    bandwidth: float
    flops: dict[str, float] = field(hash=False)
    watts: float
    source: str = ""
    price: float | None = None
    priced: str = ""

    def peak(self, precision: str) -> float:
        """Operations a second; a precision that the device has not takes the nearest wider one it has."""
        for known in (precision, "bfloat16", "float16", "float32"):
            if known in self.flops:
                return self.flops[known]
        raise CourseError(f"{self.title} states no speed that {precision} could use")


@functools.cache
def devices() -> dict[str, Device]:
    """The devices in data/devices.toml, by name."""
    try:
        table = tomllib.loads(DEVICES.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CourseError(f"cannot read {DEVICES} ({problem.strerror}); restore the file") from None
    return {
        name: Device(
            name=name, memory=row["memory"] * 1e9, bandwidth=row["bandwidth"] * 1e9, title=row["title"],
            flops={precision: speed * 1e12 for precision, speed in row["flops"].items()}, watts=float(row["watts"]),
            source=row["source"], price=row.get("price"), priced=row.get("priced", ""),
        )
        for name, row in table.items()
    }  # fmt: skip


def device(name: str) -> Device:
    """A device by its name in the table, in any case. Raises CourseError with all names."""
    known = devices()
    wanted = str(name).strip().lower().replace("_", "-").replace(" ", "")
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]}?" if near else ""
    raise CourseError(f"unknown device {name!r}; choose {', '.join(known)}.{guess}")


def prefill_seconds(model: Model, chip: Device, tokens: int, batch: int = 1, precision: str = "bfloat16",
                    quantize: str | None = None) -> float | None:  # fmt: skip
    """The least time to read a prompt: its arithmetic over the peak, or the weights' bytes over the bandwidth. None
    where either is not known."""
    forward, nbytes = forward_flops(model, tokens), _read_bytes(model, precision, quantize, model.active)
    if None in (forward, nbytes):
        return None
    work = batch * (pair_flops(model, tokens, 1) if model.pair else tokens * forward)
    if model.kind == "decoder" and model.vocab_size:  # the head is asked about the last token only
        work -= batch * (tokens - 1) * 2 * model.d_model * model.vocab_size
    return max(work / chip.peak(precision), nbytes / chip.bandwidth)


def _read_bytes(model: Model, precision: str, quantize: str | None, parameters: float | None) -> float | None:
    """Bytes of so many weights, None where it is not known how many, or how they are stored."""
    return None if parameters is None else stored_bytes(model, precision, quantize, parameters)


def decode_seconds(
    model: Model,
    chip: Device,
    context: int,
    batch: int = 1,
    precision: str = "bfloat16",
    quantize: str | None = None,
) -> float | None:
    """The least time for one more token of each of `batch` texts: every weight is read once for all, and each text's
    keys and values for itself; or their arithmetic, where that takes longer. With experts, a batch reads what its
    tokens chose, and all of them soon. None where a part of it is not known."""
    read = None
    if model.pair:  # what the encoder read lies in the cache
        read = model.matrices
    elif model.idle is not None:
        read = model.active + model.idle * (1 - (model.idle / model.parameters) ** (batch - 1))
    parts = (_read_bytes(model, precision, quantize, read), kv_cache_bytes(model, context, batch, WIDTH[precision]),
             _last_token_flops(model, context))  # fmt: skip
    if None in parts:
        return None
    weights, cache, forward = parts
    return max((weights + cache) / chip.bandwidth, batch * forward / chip.peak(precision))


def _last_token_flops(model: Model, context: int) -> float | None:
    """One more token after `context` of them."""
    if model.pair is None:
        return forward_flops(model, context)
    looked = model.pair.own * context + model.pair.cross * (model.pair.places or context)
    return 2 * (model.matrices + looked)


def cost(flops: float, chip: Device, count: int = 1, utilisation: float = 0.4, precision: str = "bfloat16",
         price: float | None = None) -> dict[str, float | None]:  # fmt: skip
    """Time, energy and money of so much arithmetic on `count` devices that reach a share `utilisation` of the peak.

    Energy is what the boards draw at their limit: no cooling, no hosts. money: None without a price.
    """
    seconds = flops / (count * chip.peak(precision) * utilisation)
    hours = seconds / 3600
    price = chip.price if price is None else price
    return {
        "seconds": seconds,
        "device_hours": hours * count,
        "kwh": hours * count * chip.watts / 1000,
        "money": None if price is None else hours * count * price,
    }


def cards(model: Model, chip: Device, batch: int, context: int, quantize: str | None = None, spare: float = 1.2) -> int:
    """The fewest devices that hold a model and its caches, with a fifth to spare, and divide its heads evenly.

    Each device computes its own heads (tensor parallelism, Shoeybi et al. 2019), so their number divides the heads.
    Raises CourseError if even one head on each device is too much, or the memory is not known.
    """
    total = inference_memory(model, batch, context, quantize=quantize)["total"]
    if total is None:
        raise CourseError(f"{model.name}: its memory is not known, so devices can't be counted")
    for count in range(1, model.n_head + 1):
        if model.n_head % count == 0 and spare * total <= count * chip.memory:
            return count
    raise CourseError(f"{model.name} needs {total / 1e9:,.0f} GB: more than {model.n_head} × {chip.title} hold")


def serving_cost(model: Model, chip: Device, *, requests: float, prompt: int, answer: int, price: float,
                 api_price: float, batch: int = 16, count: int = 1, utilisation: float = 0.5,
                 quantize: str | None = None, peak: float = 1.0) -> dict[str, float]:  # fmt: skip
    """A month of requests on rented devices, beside an API. Prices: dollars an hour, dollars a million tokens.

    seconds: a request's share of a full batch, at a share `utilisation` of the bounds' speed. needed: devices that run
    all month, at least `count` (what the weights need), and enough for the busiest hour, which brings `peak` times the
    average one's requests. break_even: requests a month from which renting that many is cheaper than the API; infinite
    if they cannot serve so many. able: how many they can. Raises CourseError where the speed is not known, or for a
    peak below 1.
    """
    if not 1 <= peak < math.inf:
        raise CourseError(f"the busiest hour is at least the average one: peak is 1 or more, not {peak}")
    context = prompt + answer
    if model.unknown and decode_seconds(model, chip, context, batch, quantize=quantize) is None:
        said = ", ".join(model.unknown)
        raise CourseError(f"{model.name}: {said} not known for this family, so no price is built on it")
    one = prefill_seconds(model, chip, prompt, batch, quantize=quantize) + answer * decode_seconds(
        model, chip, context, batch, quantize=quantize)  # fmt: skip
    seconds = one / batch / count / utilisation
    month = 30 * 24 * 3600.0
    able = month / seconds / peak  # requests that `count` devices can serve in a month
    sets = max(1, math.ceil(requests / able))
    api = context / 1e6 * api_price  # dollars a request
    rent = count * price * 30 * 24
    break_even = rent / api if api else math.inf
    return {
        "seconds": seconds, "needed": float(sets * count), "rent": sets * rent, "api": requests * api,
        "break_even": break_even if break_even <= able else math.inf, "able": able,
    }  # fmt: skip
