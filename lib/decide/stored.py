"""How many bits a weight takes where a model is published with quantised weights, from its quantization_config.

Linear layers of the blocks are stored so; embeddings, the head, norms and routers stay in 16 bits, in all of these.
"""

import re
from collections.abc import Callable

BLOCKS = ("attention", "mlp", "experts")


def stored_bits(config, parts: dict[str, int], whole: Callable[[Callable], dict | None]
                ) -> tuple[str | None, dict[str, float] | None]:  # fmt: skip
    """The method's name, and the bits a weight of each part that is stored so, scales among them.

    whole(spared): which share of each part lies in layers of such names, which stay in 16 bits; None if not known.
    (None, None) for plain weights; (name, None) where the method is not understood, or it is not known what it spares.
    """
    if not config:
        return None, None
    method = config.get("quant_method") if isinstance(config, dict) else None
    if not isinstance(method, str):
        return "an unnamed method", None
    try:
        bits = _bits(method, config)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError):
        bits = None
    spared = [str(name) for key in ("modules_to_not_convert", "ignore", "ignored_layers", "llm_int8_skip_modules")
              for name in config.get(key) or []]  # fmt: skip
    quantised = ("experts",) if method == "mxfp4" else BLOCKS
    for name in spared:
        if method == "mxfp4" or not any(word in name for word in ("attn", "attention", "mlp", "proj", "layers.")):
            continue
        if any(word in name for word in ("gate", "router")) and "gate_proj" not in name:
            continue
        shares = None if bits is None else _shares(spared, whole)
        if shares is None:
            return method, None
        return method, {part: bits + (16 - bits) * shares.get(part, 0) for part in quantised if part in parts}
    return method, None if bits is None else {part: bits for part in quantised if part in parts}


def _shares(patterns: list[str], whole: Callable) -> dict | None:
    """The share of each part that these patterns spare; None if one of them is of no layer, and so not understood.

    A pattern is the beginning or the end of a layer's name, between dots, or an expression that says `re:`.
    """
    rest = {pattern for pattern in patterns if "head" not in pattern and "embed" not in pattern}

    def spared(name: str) -> bool:
        hit = {pattern for pattern in patterns if _fits(pattern, name)}
        rest.difference_update(hit)
        return bool(hit)

    shares = whole(spared)
    return None if rest else shares


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    return f".{pattern.strip('.')}." in f".{name}."


def _bits(method: str, config: dict) -> float | None:
    group = config.get("group_size", config.get("q_group_size"))
    if method == "mxfp4":  # 4 bits, and one byte for each 32 (OCP Microscaling Formats 1.0)
        return 4 + 8 / 32
    if method in ("fp8", "fbgemm_fp8"):
        block = config.get("weight_block_size")
        return 8 + (32 / (block[0] * block[1]) if block else 0)
    if method in ("gptq", "awq"):  # a 16-bit scale and a zero point for each group
        bits = config.get("bits", config.get("w_bit"))
        return None if bits is None else bits + ((16 + bits) / group if group and group > 0 else 0)
    if method == "bitsandbytes":
        if config.get("load_in_4bit"):  # a 32-bit scale for each 64 weights, or that in 8 bits (Dettmers et al. 2023)
            return 4 + (8 / 64 + 32 / (64 * 256) if config.get("bnb_4bit_use_double_quant") else 32 / 64)
        return 8.0 if config.get("load_in_8bit") else None
    if method == "compressed-tensors":
        groups = list(config["config_groups"].values())
        weights = groups[0]["weights"]
        if len(groups) > 1 or groups[0].get("targets") != ["Linear"]:
            return None
        return weights["num_bits"] + (16 / weights["group_size"] if weights.get("group_size") else 0)
    return None
