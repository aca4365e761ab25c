"""`course size`: what a model costs, from its config.json or its name."""

import json
import re

import click

from lib.errors import CourseError

NOT_KNOWN = "not known for this family"
UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


class Amount(click.ParamType):
    """A count of tokens, as a person writes it: 300B, 1.4T, 3e11, 1,000,000."""

    name = "amount"

    def convert(self, value, param, ctx):
        if isinstance(value, int | float):
            return value
        found = re.fullmatch(r"([0-9][0-9_,]*(?:\.[0-9]*)?(?:e[+]?[0-9]{1,3})?)\s*([kmbgt]?)", value.strip().lower())
        number = float(found[1].replace(",", "").replace("_", "")) * UNITS[found[2]] if found else 0.0
        if not 0 < number < 1e30:
            self.fail(f"{value!r} is no number of tokens; write for example 300B, 1.4T or 3e11", param, ctx)
        return number


@click.command("size")
@click.argument("source", required=False, metavar="MODEL_OR_CONFIG")
@click.option("--tokens", type=Amount(), metavar="N", help="Training tokens, e.g. 300B; default: 20 a parameter.")
@click.option("--device", "device_name", default="h100", show_default=True, metavar="NAME", help="See --list.")
@click.option("--devices", type=click.IntRange(1, 10**6), default=1, show_default=True, metavar="N",
              help="How many of them.")
@click.option("--batch", type=click.IntRange(1, 10**7), default=1, show_default=True, metavar="N",
              help="Sequences at a time, on each device.")
@click.option("--context", type=click.IntRange(1, 10**8), metavar="N",
              help="Tokens in a sequence; default: the model's, at most 4096.")
@click.option("--precision", type=click.Choice(["mixed", "float32", "bfloat16", "float16"]), default="mixed",
              show_default=True, help="Of training; inference takes bfloat16 for mixed.")
@click.option("--optimizer", type=click.Choice(["adamw", "momentum", "sgd"]), default="adamw", show_default=True)
@click.option("--zero", type=click.IntRange(0, 3), default=0, show_default=True, metavar="0-3",
              help="What devices share out: 1 optimizer, 2 and gradients, 3 and weights (FSDP).")
@click.option("--checkpointing", is_flag=True, help="Keep only what enters each layer; compute the rest again.")
@click.option("--quantize", type=click.Choice(["int8", "int4"]), help="Weights of inference.")
@click.option("--utilisation", type=click.FloatRange(0, 1, min_open=True), default=0.4, show_default=True,
              metavar="X", help="Share of the device's peak that training reaches.")
@click.option("--price", type=click.FloatRange(0, 1e6), metavar="X", help="Dollars an hour for one device.")
@click.option("--architecture", metavar="CLASS", help="Count this class, e.g. BertModel, whatever the config names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--list", "listed", is_flag=True, help="List the models and devices that are known by name.")
def size(source, device_name, as_json, listed, architecture, **options) -> None:
    """What a model costs: parameters, memory, time, energy, money.

    MODEL_OR_CONFIG is a Hugging Face config.json, a folder with one, or a name such as gpt2 or
    meta-llama/Llama-3.1-8B. Parameters are exact. Memory is an estimate, times are the least that the device's
    arithmetic and bandwidth allow; training is planned at --utilisation of the peak.
    """
    from lib.decide import counting, sizing

    if listed:
        names = dict(models=list(counting.shipped()), devices=list(sizing.devices()))
        click.echo(json.dumps(names, indent=1, allow_nan=False) if as_json else _names(names))
        return
    if source is None:
        raise CourseError("name a model or a config.json, such as `course size gpt2`; --list shows the names")
    for name in ("utilisation", "price"):
        if options[name] is not None and options[name] != options[name]:
            raise CourseError(f"--{name} is not a number; leave it out or give one")
    chip = sizing.device(device_name)
    model = counting.load(source, architecture)
    report = _report(model, chip, **options)
    if as_json:
        click.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        _print(report, model, chip)


def _names(names: dict[str, list[str]]) -> str:
    lines = []
    for what, known in names.items():
        lines += [f"{what}:", *(f"  {name}" for name in known)]
    return "\n".join(lines)


def _report(model, chip, *, tokens, devices, batch, context, precision, optimizer, zero, checkpointing, quantize,
            utilisation, price) -> dict:  # fmt: skip
    """Everything that is printed, as plain numbers: bytes, seconds, FLOPs, dollars."""
    from lib.decide import sizing

    context = context or min(model.context or 4096, 4096)
    if model.vocab_size == 0:
        context = model.context  # a picture has so many places
    tokens = tokens or 20.0 * model.parameters
    narrow = "bfloat16" if precision == "mixed" else precision
    flops = sizing.training_flops(model, tokens, context)
    training = sizing.training_memory(model, batch, context, precision=precision, optimizer=optimizer, zero=zero,
                                      checkpointing=checkpointing, devices=devices)  # fmt: skip
    inference = sizing.inference_memory(model, batch, context, precision=narrow, quantize=quantize)
    again = 4 / 3 if checkpointing else 1  # the way there is gone twice
    plan = None
    if flops["exact"] is not None:
        plan = sizing.cost(flops["exact"] * again, chip, devices, utilisation, narrow, price)
    report = {
        "model": model.name, "family": model.family, "counted": model.counted, "counted_by": model.exact,
        "parameters": model.parameters, "active_parameters": model.active, "parts": model.parts,
        "not_known": model.unknown, "assumed": model.assumed, "notes": list(model.notes), "quantized": model.quantized,
        "shape": {"n_layer": model.n_layer, "d_model": model.d_model, "n_head": model.n_head,
                  "n_kv_head": model.n_kv_head, "head_dim": model.head_dim, "d_ff": model.d_ff,
                  "vocab_size": model.vocab_size, "context": model.context, "tied": model.tied},
        "asked": {"tokens": tokens, "context": context, "batch": batch, "devices": devices, "precision": precision,
                  "optimizer": optimizer, "zero": zero, "checkpointing": checkpointing, "quantize": quantize,
                  "utilisation": utilisation},
        "device": {"name": chip.name, "title": chip.title, "memory": chip.memory, "bandwidth": chip.bandwidth,
                   "flops": chip.peak(narrow), "watts": chip.watts, "source": chip.source,
                   "price_per_hour": chip.price if price is None else price,
                   "priced": chip.priced if price is None else "as given"},
        "flops": {"forward_per_token": sizing.forward_flops(model, context), "training": flops["exact"],
                  "training_6nd": flops["six_nd"], "training_palm": flops["palm"]},
        "training_memory": training | {"fits": _fits(training, chip.memory)},
        "inference_memory": inference | {"fits": _fits(inference, chip.memory * devices)},
        "training_plan": plan,
    }  # fmt: skip
    if model.kind in ("decoder", "encoder-decoder") and model.vocab_size:
        step = sizing.decode_seconds(model, chip, context, batch, narrow, quantize)
        one = [sizing.kv_cache_bytes(model, places, 1, sizing.WIDTH[narrow]) for places in (0, 1)]
        report["inference_bounds"] = {
            "kv_cache_per_token": None if None in one else one[1] - one[0],
            "prefill_seconds": sizing.prefill_seconds(model, chip, context, batch, narrow),
            "decode_seconds_per_token": step, "tokens_per_second": None if step is None else batch / step,
        }  # fmt: skip
    return report


def _fits(parts: dict[str, float | None], room: float) -> bool | None:
    """Whether it fits: no, if what is known alone does not; None where it depends on what is not known."""
    if parts["total"] is not None:
        return parts["total"] <= room
    return False if sum(n for part, n in parts.items() if n is not None) > room else None


def _print(report: dict, model, chip) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    asked, plan, memory, answers = (report[k] for k in "asked training_plan training_memory inference_memory".split())
    idle = "" if model.idle == 0 else f" ({NOT_KNOWN if model.active is None else f'{model.active:,}'} for one token)"
    table.add_row("parameters", f"{model.parameters:,}{idle}")
    table.add_row("", ", ".join(f"{part} {n:,}" for part, n in model.parts.items()))
    if plan is None:
        table.add_row("training", f"arithmetic, time and money {NOT_KNOWN}")
    else:
        table.add_row("training", f"{_si(report['flops']['training'])}FLOPs on {_si(asked['tokens'])}tokens "
                                  f"(6ND: {_si(report['flops']['training_6nd'])}FLOPs)")  # fmt: skip
        money = "no price known, see --price" if plan["money"] is None else f"${plan['money']:,.2f}"
        table.add_row("", f"{_time(plan['seconds'])} on {asked['devices']} × {chip.title} at "
                          f"{asked['utilisation']:.0%} of peak, {plan['kwh']:,.1f} kWh, {money}")  # fmt: skip
    for name, parts, room in (("memory to train", memory, 1), ("memory to answer", answers, asked["devices"])):
        told = ", ".join(f"{part.replace('_', ' ')} {_bytes(n)}" for part, n in parts.items()
                         if part not in ("total", "fits") and n != 0)  # fmt: skip
        table.add_row(name, told if parts["total"] is None else f"{_bytes(parts['total'])}: {told}")
        held = f"{_bytes(chip.memory * room)} of {f'{room} × ' if room > 1 else ''}{chip.title}"
        if parts["fits"] is not None:
            table.add_row("", f"{'fits' if parts['fits'] else 'does not fit'} {held}")
    bound = report.get("inference_bounds", {})
    if bound and None in bound.values():
        table.add_row("at best", f"speed {NOT_KNOWN}")
    elif bound:
        table.add_row("at best", f"prompt of {asked['context']:,} tokens read in {_time(bound['prefill_seconds'])}, "
                                 f"then {bound['tokens_per_second']:,.1f} tokens a second (batch {asked['batch']})")
    if model.quantized:
        table.add_row("stored as", f"{model.quantized}, which --quantize would replace")
    if model.assumed:
        table.add_row("assumed", ", ".join(f"{name}={size:,}" for name, size in model.assumed.items())
                      + " (the file leaves them out)")  # fmt: skip
    for note in model.notes:
        table.add_row("note", note)
    console = Console()
    console.print(f"{model.name}: {model.counted}, {model.n_layer} layers of width {model.d_model}", highlight=False,
                  markup=False)  # fmt: skip
    console.print(table, highlight=False)


def _si(number: float) -> str:
    """1.5e12 as `1.5 T`; what is beyond 10¹⁵ in powers of ten."""
    if number >= 1e15:
        return f"{number:.3g} "
    for unit, name in ((1e12, "T "), (1e9, "B "), (1e6, "M "), (1e3, "k ")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.3g} "


def _bytes(number: float | None) -> str:
    if number is None:
        return NOT_KNOWN
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:,.3g} {name}" if number / unit < 1000 else f"{number / unit:,.0f} {name}"
    return f"{number:.0f} B"


def _time(seconds: float) -> str:
    for unit, name in ((365.25 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")):
        if seconds >= 2 * unit or (unit == 1 and seconds >= 1):
            return f"{seconds / unit:,.3g} {name}" if seconds / unit < 1000 else f"{seconds / unit:,.0f} {name}"
    return f"{seconds * 1e3:.3g} ms" if seconds else "no time"
