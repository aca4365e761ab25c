"""Situations in which somebody needs a model, and whether a choice for one agrees with itself.

Nothing here says which choice is best. `problems` only does the sums: does the memory fit, is the answer there in
time, does the day's work fit into the day, does the money last, may the data leave the house, are there the examples,
and can the test tell the candidates apart. Sizes and prices are in data/scenarios.toml, where they may be changed.

The arithmetic is a bound, not a forecast: real devices reach a half or two thirds of it.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lib.decide.evaluation import examples_needed
from lib.errors import CourseError
from lib.sources.places import DATA

FILE = DATA / "scenarios.toml"
HOW = ("prompt", "fine-tune", "from scratch")
WHERE = ("house", "hosted")
BITS = (16, 8, 4)
DAY, MONTH = 86_400, 30  # seconds, days
BUSY = 2.4  # the busiest hour brings a tenth of the day's requests, not a 24th
TOKENS_PER_PARAMETER = 20  # to train from scratch (Hoffmann et al. 2022, table 3)


@dataclass(frozen=True)
class Model:
    """params, and what a token leaves in the KV cache: 2 · n_layer · n_kv_head · head_dim numbers."""

    name: str
    params: int
    n_layer: int
    n_kv_head: int
    head_dim: int
    pretrained: bool


@dataclass(frozen=True)
class Device:
    """memory in bytes, bandwidth in bytes a second, flops a second, money an hour."""

    name: str
    memory: float
    bandwidth: float
    flops: float
    hourly: float


@dataclass(frozen=True)
class Scenario:
    """What is given. device: what stands in the house. seconds: until the whole answer is there. budget: a month.

    labelled: examples with a right answer. own_tokens: text of one's own. topics: "narrow" if all questions are about
    what the examples are about, else "open". share, gap, disagree: about how many are got right, the difference that
    would matter, and on how many of the examples two candidates disagree (from a pilot).
    """

    name: str
    title: str
    story: str
    private: bool
    device: str
    requests: int
    tokens_in: int
    tokens_out: int
    seconds: float
    budget: float
    labelled: int
    own_tokens: float
    topics: str
    share: float
    gap: float
    disagree: float


@dataclass(frozen=True)
class Choice:
    """What is decided. batch: requests answered at once. test: labelled examples kept for the test.

    Raises CourseError for a model, a way or a number that there is not.
    """

    model: str
    how: str
    where: str
    test: int
    bits: int = 16
    batch: int = 1

    def __post_init__(self):
        for name, options in (("model", tuple(shelf().models)), ("how", HOW), ("where", WHERE), ("bits", BITS)):
            if getattr(self, name) not in options:
                raise CourseError(f"{name} is one of {', '.join(map(str, options))}, not {getattr(self, name)!r}")
        for name, least in (("test", 0), ("batch", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CourseError(f"{name} is a whole number, at least {least}, not {value!r}")


class Problem(NamedTuple):
    """What does not agree: `about` is one word, `says` a line with both figures."""

    about: str
    says: str


@dataclass(frozen=True)
class Shelf:
    """All there is to choose from; per_million: what a hosted model costs per million tokens, by its name."""

    models: Mapping[str, Model]
    devices: Mapping[str, Device]
    scenarios: Mapping[str, Scenario]
    per_million: Mapping[str, float]


@functools.cache
def shelf(file: Path = FILE) -> Shelf:
    """The models, devices, prices and scenarios of data/scenarios.toml. Raises CourseError for a damaged file."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        return Shelf(
            {name: Model(name, **fields) for name, fields in table["model"].items()},
            {name: Device(name, **fields) for name, fields in table["device"].items()},
            {name: Scenario(name, **fields) for name, fields in table["scenario"].items()},
            {name: float(price) for name, price in table["per_million"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CourseError(f"{file} is damaged ({error}); restore it with `git checkout -- data`") from None


def scenario(name: str) -> Scenario:
    """The scenario of that name. Raises CourseError with those that there are."""
    if name not in shelf().scenarios:
        raise CourseError(f"no scenario {name!r}; there are {', '.join(shelf().scenarios)}")
    return shelf().scenarios[name]


def cache_bytes(model: Model, tokens: float) -> float:
    """The KV cache of that many tokens, in 16 bits: 2 · n_layer · n_kv_head · head_dim numbers each."""
    return 2 * 2 * model.n_layer * model.n_kv_head * model.head_dim * tokens


def memory(model: Model, bits: int, tokens: float, batch: int = 1) -> float:
    """Bytes to answer with: the weights, and each request's KV cache."""
    return model.params * bits / 8 + batch * cache_bytes(model, tokens)


def answer_seconds(model: Model, device: Device, bits: int, tokens_in: int, tokens_out: int, batch: int = 1) -> float:
    """At least how long a batch of requests takes: the prompts at full arithmetic, then each token at full bandwidth.

    Reading: 2 FLOPs a parameter and token. Writing a token: all that is in memory has to be read, or the arithmetic
    done, whichever is longer.
    """
    reading = 2 * model.params * tokens_in * batch / device.flops
    step = memory(model, bits, tokens_in + tokens_out, batch) / device.bandwidth
    return reading + tokens_out * max(step, 2 * model.params * batch / device.flops)


def monthly(model: Model, given: Scenario, where: str) -> float:
    """Money a month: the house's device day and night, or the hosted model's tokens."""
    if where == "house":
        return shelf().devices[given.device].hourly * 24 * MONTH
    return given.requests * MONTH * (given.tokens_in + given.tokens_out) * shelf().per_million[model.name] / 1e6


def problems(choice: Choice, given: Scenario) -> list[Problem]:
    """What does not agree in a choice for a scenario: [] if all does."""
    model = shelf().models[choice.model]
    house = choice.where == "house"
    device = shelf().devices[given.device if house else "hosted"]
    found = []

    def note(wrong: bool, about: str, says: str) -> None:
        if wrong:
            found.append(Problem(about, says))

    note(given.private and not house, "privacy", "the data may not leave the house, and a hosted model is outside it")
    needed = memory(model, choice.bits, given.tokens_in + given.tokens_out, choice.batch)
    note(needed > device.memory, "memory",
         f"{needed / 1e9:.1f} GB are needed, and {device.name} has {device.memory / 1e9:.0f}")  # fmt: skip
    seconds = answer_seconds(model, device, choice.bits, given.tokens_in, given.tokens_out, choice.batch)
    note(seconds > given.seconds, "latency",
         f"an answer takes at least {seconds:.2g} s, and {given.seconds:g} are allowed")  # fmt: skip
    daily = choice.batch * DAY / seconds / BUSY
    note(house and daily < given.requests, "capacity",
         f"at most {daily:,.0f} requests a day are answered in time, and {given.requests:,} come")  # fmt: skip
    if not house and choice.model not in shelf().per_million:
        note(True, "cost", f"nobody hosts {choice.model}; it runs in the house")
    else:
        cost = monthly(model, given, choice.where)
        note(cost > given.budget, "cost", f"{cost:,.0f} a month are spent, and {given.budget:,.0f} are there")
    if choice.how == "from scratch":
        tokens = TOKENS_PER_PARAMETER * model.params
        note(tokens > given.own_tokens, "data",
             f"{tokens:.2g} tokens are needed to train it, and there are {given.own_tokens:.2g}")  # fmt: skip
        note(given.topics == "open", "breadth", "it is asked about more than its own text tells")
    else:
        note(not model.pretrained, "data", f"{choice.model} is nowhere to be had; it has to be trained from scratch")
    needed = examples_needed(given.share, given.share + given.gap, given.disagree)
    note(choice.test < needed, "test",
         f"{given.gap:.0%} of difference need {needed:,} test examples, and {choice.test:,} are kept")  # fmt: skip
    least = choice.test + (choice.how == "fine-tune")
    note(least > given.labelled, "examples",
         f"{least:,} labelled examples are used, and there are {given.labelled:,}")  # fmt: skip
    return found


def describe(given: Scenario) -> str:
    """A scenario as a card of a few lines."""
    device = shelf().devices[given.device]
    return "\n".join((
        f"{given.name}: {given.title}",
        f"  {given.story}",
        f"  {given.requests:,} requests a day of {given.tokens_in:,} + {given.tokens_out:,} tokens, each within "
        f"{given.seconds:g} s; budget {given.budget:,.0f} a month",
        f"  data {'must stay in the house' if given.private else 'may leave the house'}; in the house: {device.name}, "
        f"{device.memory / 1e9:.0f} GB; topics {given.topics}",
        f"  {given.labelled:,} labelled examples, {given.own_tokens:.0e} tokens of text; about {given.share:.0%} "
        f"right, {given.gap:.0%} would matter, disagreement {given.disagree:.0%}",
    ))  # fmt: skip


def consistent(given: Scenario) -> list[Choice]:
    """Every choice that agrees with itself, over all models, ways and places, with as small a test as will do."""
    test, found = examples_needed(given.share, given.share + given.gap, given.disagree), []
    for model in shelf().models:
        for how in HOW:
            for where in WHERE:
                for bits in BITS:
                    for batch in (1, 8, 64):
                        choice = Choice(model, how, where, test, bits, batch)
                        found += [choice] if not problems(choice, given) else []
    return found


def from_plain(fields: Mapping) -> Choice:
    """A Choice from a dictionary, as an exercise's answer brings it. Raises CourseError for what is no choice."""
    if not isinstance(fields, Mapping):
        raise CourseError(f"a choice is a dictionary with model, how, where and test, not {type(fields).__name__}")
    try:
        return Choice(**fields)
    except TypeError:
        known = ", ".join(Choice.__dataclass_fields__)
        raise CourseError(f"a choice has model, how, where, test, and perhaps bits and batch (all: {known})") from None

