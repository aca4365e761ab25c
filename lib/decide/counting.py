"""How many parameters a published model has, to the digit, from its config.json alone.

`architectures` says which class is counted; where it is missing, it is the language model for decoders, T5's for
generation, and the bare model with its pooler for BERT and ViT. lib.decide.families has the sums. A model type that is
not among them is built by transformers on the meta device, where tensors have shapes and no numbers; code that comes
with a model is never run. What counts is what the published files hold: a head that the file declares as its own is
counted, also where transformers would tie it.

What is not known is None, and no figure is built on it.
"""

import difflib
import functools
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.decide import fields
from lib.decide.families import FAMILIES, LARGEST, MOST_LAYERS, Fields, Unknown, add_head, number, short
from lib.decide.stored import stored_bits
from lib.errors import CourseError
from lib.sources.places import DATA

SHIPPED = DATA / "models.json"
LARGEST_FILE = 2**20  # bytes; the longest config.json we know has 70 KB


@dataclass(frozen=True)
class Cache:
    """What goes on being kept of a text, in numbers. layers: for each that keeps every token, how many numbers a token,
    and how far back (None: to the start). state: of all that keep the same however long the text is. source: numbers a
    token of what an encoder has read; heard: how long that always is, or None for as long as the context."""

    layers: tuple[tuple[int, int | None], ...]
    state: int = 0
    source: int = 0
    heard: int | None = None


@dataclass(frozen=True)
class Pair:
    """What an encoder-decoder multiplies besides `matrices`. layers: of its encoder. reads: weights that a token (or a
    stretch of sound) passes as it is read, also on its way to the decoder's keys and values. looks, own, cross: numbers
    multiplied, all layers together, for one look among what is read, among what is written, and from this to that.
    places: how many are always read, of sound; None for as many as the text has."""

    layers: int
    reads: int
    looks: int
    own: int
    cross: int
    places: int | None = None


@dataclass(frozen=True)
class Model:
    """What sizing needs to know of a model. parts: parameters by part; they add up to `parameters`.

    active: parameters that one token meets (fewer than all, with experts), None where that is not known. matrices:
    weights that multiply one token, the output head among them, tied or not; in an encoder-decoder one that is written,
    and pair has the rest. windows: for each layer how far back it
    looks, None for everything; empty for all of them. looked: for each layer, numbers that a look at one place
    multiplies (keys and values of all heads), 2 H·Dh where it is empty. d_ff: the MLP's width, or with experts that of
    all a token meets. kind: decoder, encoder, encoder-decoder or vision. exact: "formula", or "transformers" if that
    built it. cache: what is kept while it writes; "heads" for keys and values of n_kv_head heads in every layer; None
    where it is not known. plain: whether its layers are attention and an MLP and nothing else. quantized: how the file
    says that its weights are stored, and bits: those of each part that is stored so, None where that is not known.
    assumed: sizes that the file leaves out. notes: what else a reader should know.
    """

    name: str
    family: str
    counted: str
    kind: str
    n_layer: int
    d_model: int
    n_head: int
    n_kv_head: int
    head_dim: int
    d_ff: int
    vocab_size: int
    context: int
    parts: dict[str, int]
    matrices: int | None
    idle: int | None = 0
    tied: bool = False
    gated: bool = False
    windows: tuple[int | None, ...] = ()
    exact: str = "formula"
    looked: tuple[int, ...] = ()
    cache: Cache | str | None = "heads"
    plain: bool = True
    pair: Pair | None = None
    quantized: str | None = None
    bits: dict[str, float] | None = None
    assumed: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())

    @property
    def active(self) -> int | None:
        return None if self.idle is None else self.parameters - self.idle

    @property
    def unknown(self) -> list[str]:
        """What is not known of this family."""
        said = {"active parameters": self.idle is None, "arithmetic": self.matrices is None,
                "cache": self.cache is None, "activations": not self.plain,
                f"bytes of weights stored as {self.quantized}": self.quantized is not None and self.bits is None}
        return [what for what, is_so in said.items() if is_so]


def _default_class(family: str, kind: str) -> str:
    """What is counted where the file names no architecture."""
    return {"decoder": "ForCausalLM", "encoder": "Model", "encoder-decoder": "ForConditionalGeneration",
            "vision": "Model"}[kind]  # fmt: skip


def count(config: dict, name: str = "this config", architecture: str | None = None) -> Model:
    """Size up a model from its config. architecture: the class to count, instead of the one the config names.

    Raises CourseError for a config that describes no model.
    """
    family = config.get("model_type")
    if not isinstance(family, str):
        raise CourseError(f"{name} has no model_type, so it is no model's config; give the file beside the weights")
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(each, str) for each in named)):
        raise CourseError(f"architectures is {short(named)} in this config; a list of class names is needed there")
    counted = architecture or (named[0] if named else None)
    code = _own_code(config)
    made = _by_formula(config, name, counted) or _built(config, name, counted)
    known = fields.KNOWN.get(family) or _known(config)
    odd = fields.unknown(config, known)
    notes = [f"not understood in this file, and not counted: {', '.join(odd)}"] if odd else []
    if code and architecture is None and (odd or not all(_is_own(each, family, made) for each in code)):
        raise CourseError(f"{name} comes with code of its own ({code[0]}), which is not run; --architecture CLASS "
                          f"counts it as a class of transformers")  # fmt: skip
    if code:
        notes.append(f"counted as {made.counted}; the code that comes with it ({code[0]}) is not run")
    how, bits = stored_bits(config.get("quantization_config"), made.parts, lambda spared: _spared(config, made, spared))
    return replace(made, quantized=how, bits=bits, notes=(*made.notes, *notes))


def _spared(config: dict, made: Model, spared) -> dict[str, float] | None:
    """The share of each part that lies in layers whose names are spared; None where transformers' names are others."""
    from lib.decide import metamodel

    return metamodel.shares(config, made.counted if made.exact == "transformers" else None, made.parts, spared)


def _own_code(config: dict) -> list[str]:
    """Model classes that auto_map names, from files beside this one."""
    listed = config.get("auto_map")
    return [str(value) for name, value in listed.items() if "Model" in name] if isinstance(listed, dict) else []


def _is_own(code: str, family: str, made: Model) -> bool:
    """Whether code that comes with a model has the name of a class that transformers has for this family."""
    called = code.rsplit(".", 1)[-1]
    prefix = fields.PREFIX.get(family) or re.split("For[A-Z]|Model$", made.counted)[0]
    return called in (made.counted, prefix + "Model", prefix + "ForCausalLM", prefix + "ForSequenceClassification")


def _known(config: dict) -> frozenset[str]:
    from lib.decide import metamodel

    return fields.COMMON | metamodel.fields(config)


def _by_formula(config: dict, name: str, counted: str | None) -> Model | None:
    """The family's own sum; None where there is none for it."""
    family = config["model_type"]
    rules = FAMILIES.get(family)
    if rules is None or (counted and not counted.startswith(fields.PREFIX[family])):
        return None
    f = Fields(config, rules.own)
    try:
        built = rules.build(f, rules)
        known = counted.removeprefix(fields.PREFIX[family]) if counted else _default_class(family, built["kind"])
        head = add_head(f, rules, built, known)
    except Unknown:
        return None
    if counted is None:
        counted = f"{family} {known.removeprefix('For') if known != 'Model' else 'without a head'}"
    s, parts = built["sizes"], built["parts"]
    through = sum(part.matrix for key, part in parts.items() if key != "head") - built["idle"].matrix
    pair = Pair(**built["pair"]) if built.get("pair") else None
    if pair:
        through -= pair.reads
    no_words = ("vocab_size", "max_position_embeddings") if built["kind"] == "vision" else ()
    return Model(
        name=name, family=family, counted=counted, kind=built["kind"], n_layer=s["L"], d_model=s["D"], n_head=s["H"],
        n_kv_head=s["K"], head_dim=s["Dh"], d_ff=s["F"], vocab_size=s["V"], context=s["T"],
        parts={key: part.total for key, part in parts.items() if part.total}, matrices=through + head,
        idle=built["idle"].total, tied=built["tied"], gated=built["gated"], windows=built["windows"], pair=pair,
        assumed={key: size for key, size in f.assumed.items() if size is not None and key not in no_words},
    )  # fmt: skip


def _built(config: dict, name: str, counted: str | None) -> Model:
    """Let transformers build the model without numbers, and count: slower, for the families that have no sum here."""
    family = config["model_type"]
    _sane(config)
    try:
        from lib.decide import metamodel
    except ImportError:
        raise CourseError(f"model type {family!r} needs transformers to be counted; install it") from None
    built = metamodel.build(config, counted, sorted(FAMILIES))
    if isinstance(built["cache"], dict):
        built["cache"] = Cache(**built["cache"])
    built["pair"] = Pair(**built["pair"]) if built["pair"] else None
    return Model(name=name, **built)


def _sane(config, path: str = "") -> None:
    """No absurd sizes for transformers to choke on: all whole numbers in bounds, layers above all."""
    for key, value in config.items():
        here = f"{path}{key}"
        if isinstance(value, dict):
            _sane(value, here + ".")
        elif isinstance(value, int) and not isinstance(value, bool):
            layers = "layers" in key or key in ("n_layer", "depth")
            most = MOST_LAYERS if layers else LARGEST if not key.endswith(("_id", "_ids")) else 10**12
            if value > most:
                raise CourseError(f"{here}={number(value)} in this config; it must be at most {most:,}")


# Where configs come from


@functools.cache
def shipped() -> dict[str, dict]:
    """The published configs that come with the course, by the name that Hugging Face has for them."""
    try:
        return json.loads(SHIPPED.read_text(encoding="utf-8"))["models"]
    except OSError as problem:
        raise CourseError(f"cannot read {SHIPPED} ({problem.strerror}); restore the file") from None


def load(source: str | Path | dict, architecture: str | None = None) -> Model:
    """A Model from a config.json, a folder that has one, a shipped name (`gpt2`, `meta-llama/Llama-3.1-8B`), or a dict.

    A shipped name may be given without its owner, in any case. Raises CourseError, with the nearest name.
    """
    if isinstance(source, dict):
        return count(source, architecture=architecture)
    text = str(source)
    path = Path(source)
    try:
        if path.is_dir():
            path = path / "config.json"
            if not path.is_file():
                raise CourseError(f"there is no config.json in {text}; give a model's folder or its config.json")
        there = path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero in it
        there = False
    if there:
        return count(_read(path), path.parent.name if path.name == "config.json" else path.name, architecture)
    key = _named(text)
    if key is None:
        if text.endswith(".json") or text.startswith((".", "/", "~")):
            raise CourseError(f"there is no file {short(text)}; give a config.json, a folder or a shipped name")
        raise CourseError(f"unknown model {short(text)}{_nearest(text)}; give a config.json, or a name from "
                          f"`course size --list`")
    return count(shipped()[key], key, architecture)


def _named(text: str) -> str | None:
    wanted = text.lower()
    for key in shipped():
        if wanted in (key.lower(), key.lower().split("/")[-1]):
            return key
    return None


def _nearest(text: str) -> str:
    short = {}
    for key in shipped():
        short[key.lower().split("/")[-1]] = short[key.lower()] = key
    near = difflib.get_close_matches(text.lower(), short, n=1, cutoff=0.5)
    return f"; did you mean {short[near[0]]}?" if near else ""


def _read(path: Path) -> dict:
    said = f"{path} is no config.json"
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CourseError(f"{said}: it has {path.stat().st_size:,} bytes; give the small file beside the weights")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CourseError(f"cannot read {path} ({problem.strerror})") from None
    except (ValueError, RecursionError):  # UnicodeDecodeError is one; a number of too many digits, too
        raise CourseError(f"{said}: there is no JSON in it; give the file beside the weights") from None
    if not isinstance(config, dict):
        raise CourseError(f"{said}: it holds {_kind(config)}, not an object; give the file beside the weights")
    return config


def _kind(value) -> str:
    return {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}.get(
        type(value), "nothing")  # fmt: skip
