"""Judging what a model writes: scores for one answer, how sure a score is, and what can make it a lie.

Three parts. Scores: exact match, word F1, ROUGE, bits per byte. Certainty: intervals for one candidate, tests for two
on the same examples, and how many examples a difference needs. Traps: test examples that were trained on, and a judge
that looks at places and lengths.
"""

import collections
import copy
import functools
import math
import re
import string
import unicodedata
from collections.abc import Callable, Collection, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import regex
import torch
import torch.nn.functional as F

from lib.errors import CourseError
from lib.generation import KVCache
from lib.transformer import Transformer

# Scores -----------------------------------------------------------------------------------------------------

ROUGE = ("rouge1", "rouge2", "rougeL")
# Scripts that put no space between words: each letter, with the signs it carries, counts as a word there.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
LETTER = rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
WORD = regex.compile(rf"{LETTER}|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+", regex.V1)
PIECE = regex.compile(rf"{LETTER}|(?:(?!{LETTER}).)+", regex.V1)


class Score(NamedTuple):
    """Shares from 0 to 1: of what was said, how much was wanted; of what was wanted, how much was said; their mean."""

    precision: float
    recall: float
    f1: float


def normalise(text: str) -> str:
    """Lower case, without punctuation, without a, an and the, one space between words.

    The rule of SQuAD's own script (Rajpurkar et al. 2016, section 6.1). Of Latin punctuation it takes only ASCII's
    away, and so "C++" becomes "c", "-3" becomes "3": look at what it does to your answers before you believe it.
    """
    _text(text)
    text = "".join(c for c in unicodedata.normalize("NFC", text.lower()) if not _is_point(c))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(said: str, wanted: str | Sequence[str]) -> bool:
    """Whether an answer is a wanted one, both normalised. Several wanted answers: any of them counts."""
    return normalise(said) in {normalise(one) for one in _several(wanted)}


def token_f1(said: str, wanted: str | Sequence[str]) -> float:
    """Words in common, each as often as it occurs in both, as F1 (Rajpurkar et al. 2016); the best of several wanted.

    Two answers without any word agree: 1.0. If only one has none: 0.0. In Chinese, Thai and other scripts that put no
    space between words, each letter is one.
    """
    return max(_word_f1(_pieces(said), _pieces(one)) for one in _several(wanted))


def rouge(said: str, wanted: str | Sequence[str], stem: bool = False) -> dict[str, Score]:
    """ROUGE-1, -2 and -L of one text against the one that was wanted (Lin 2004): {"rouge1": Score, …}.

    The numbers are those of the package rouge-score, which knows ASCII's letters and digits only; beyond them, words
    are as in `words`. Of several wanted texts the best F1 counts, for each kind by itself. stem takes English endings
    off first: "orders" and "order" are then the same word.
    """
    _text(said)
    scores = _scorer(stem).score_multi(_several(wanted), said)
    return {kind: Score(*map(float, scores[kind])) for kind in ROUGE}


def mean_rouge(said: Sequence[str], wanted: Sequence[str | Sequence[str]], stem: bool = False) -> dict[str, float]:
    """The mean F1 over texts, for each kind: {"rouge1": …, "rouge2": …, "rougeL": …}."""
    _same_length(said, wanted)
    scores = [rouge(one, other, stem) for one, other in zip(said, wanted, strict=True)]
    return {kind: sum(score[kind].f1 for score in scores) / len(scores) for kind in ROUGE}


def mean_exact_match(said: Sequence[str], wanted: Sequence[str | Sequence[str]]) -> float:
    """The share of answers that are a wanted one."""
    _same_length(said, wanted)
    return sum(map(exact_match, said, wanted)) / len(said)


def mean_token_f1(said: Sequence[str], wanted: Sequence[str | Sequence[str]]) -> float:
    """The mean word F1 over answers."""
    _same_length(said, wanted)
    return sum(map(token_f1, said, wanted)) / len(said)


class TextScore(NamedTuple):
    """How surprised a model was by a text. nats: the sum of −ln p over `tokens` tokens, which stand for `bytes` bytes.

    Perplexity is per token, so models with different tokenizers can't be compared by it. Bits per byte can: both
    divide by the length of the same file.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


@torch.no_grad()
def surprise(
    model: Transformer, tokenizer, text: str, start: int | None = None, window: int | None = None, before: str = ""
) -> TextScore:
    """How surprised a model is by a text: each token scored once, by what stands before it.

    start: a token put before the text, so that the first one is scored as well; without it the first token, which
    nothing stands before, is not scored, nor its bytes counted. before: a text that is read first and not scored. A
    text longer than `window` (block_size unless given) is read in windows that overlap by half. Raises CourseError
    for a text of too few tokens, or a `before` that leaves it no room.
    """
    ids = tokenizer.encode(_text(text))
    given = ([] if start is None else [start]) + tokenizer.encode(_text(before))
    size = len(text.encode())
    if not given and ids:
        size -= len(tokenizer.decode(ids[:1]).encode())
        given, ids = ids[:1], ids[1:]
    ids = [*given, *ids]
    window = window or model.config.block_size
    if len(ids) == len(given) or size < 1:
        raise CourseError("the text is too short to be scored; pass at least two tokens")
    if not 2 <= window <= model.config.block_size:
        raise CourseError(f"window is 2 to the model's block_size, {model.config.block_size}, not {window}")
    if len(given) >= window:
        raise CourseError(f"what is read before the text fills the window of {window} tokens; shorten it")
    device, training = model.embedding.weight.device, model.training
    model.eval()
    nats, done = 0.0, len(given)  # what is given is never scored
    try:
        while done < len(ids):
            begin = 0 if done == len(given) else max(0, done - window // 2)
            piece = torch.tensor(ids[begin : begin + window], device=device)  # (T,)
            losses = F.cross_entropy(model(piece[None, :-1])[0].float(), piece[1:], reduction="none")  # (T − 1,)
            nats += losses[done - begin - 1 :].cpu().double().sum().item()  # not every device has float64
            done = begin + len(piece)
    finally:
        model.train(training)
    return TextScore(nats, len(ids) - len(given), size)


@torch.no_grad()
def option_scores(
    model: Transformer, tokenizer, texts: Sequence[str], options: Sequence[str], before: str = "", batch: int = 8
) -> torch.Tensor:
    """How likely each option is to follow each text: log-probabilities (N, options), nothing is written.

    An option is known by its first token, so these must differ. before: what every text is preceded by, such as
    examples; it is read once. Each text begins with the token that stood before every text in training.
    """
    begins = [tokenizer.encode(_text(option))[:1] for option in options]
    rows = [tokenizer.encode(text) for text in _texts(texts, "texts")]
    if not all(begins) or not all(rows):
        raise CourseError("a text or an option without a single token can't be scored; leave it out")
    first = [id for [id] in begins]
    if len(set(first)) < len(first) or len(first) < 2:
        raise CourseError("two options or more are told apart by their first tokens; choose other words for them")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # similar lengths together: little filler
    device, scores = model.embedding.weight.device, torch.zeros(len(rows), len(first))
    begun = KVCache(model.config.n_layer, model.config.block_size)
    model.last_hidden_state(torch.tensor([tokenizer.encode(f"<|endoftext|>{before}")], device=device), begun)
    for part in (order[i : i + batch] for i in range(0, len(order), batch)):
        T, cache = max(len(rows[i]) for i in part), copy.deepcopy(begun)
        cache.repeat(len(part))
        tokens = torch.tensor([rows[i] + [0] * (T - len(rows[i])) for i in part], device=device)  # (B, T)
        x = model.last_hidden_state(tokens, cache)  # (B, T, D)
        last = torch.stack([x[b, len(rows[i]) - 1] for b, i in enumerate(part)])  # (B, D): fillers stand to the right
        scores[part] = model.head(last).float().log_softmax(-1)[:, first].cpu()  # (B, options)
    return scores


# Certainty --------------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """An estimate and the interval about it."""

    low: float
    estimate: float
    high: float

    def __str__(self):
        return f"{self.estimate:.2f} ({self.low:.2f} to {self.high:.2f})"

    def whiskers(self, scale: float = 1.0) -> tuple[float, float]:
        """How far it reaches below and above the estimate, for a figure."""
        return scale * (self.estimate - self.low), scale * (self.high - self.estimate)


def wilson(right: int, n: int, confidence: float = 0.95) -> Interval:
    """A share and its interval: right of n (Wilson 1927; formula and its virtues in Newcombe 1998, method 3).

    Unlike share ± z·√(share·(1 − share)/n) it never leaves 0 to 1, and at 0 of n it is not empty.
    """
    n, right = _count(n, "n", 1), _count(right, "right", 0)
    if right > n:
        raise CourseError(f"{right} right of {n} is more than all; count again")
    z, share = _z(confidence), right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(0.0 if right == 0 else middle - half, share, 1.0 if right == n else middle + half)


def bootstrap(values: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of scores and its interval: percentiles of the means of samples drawn anew (Efron and Tibshirani 1993).

    For scores that are not yes or no, such as ROUGE. With fewer than about 20 values it is too narrow.
    """
    values = _numbers(values, "values")  # (N,)
    _z(confidence)
    draw, n = np.random.default_rng(seed), len(values)
    means = np.array([values[draw.integers(n, size=n)].mean() for _ in range(_count(resamples, "resamples", 100))])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(values.mean()), float(high))


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How much the second candidate is better than the first on the same examples, and the interval (Koehn 2004).

    Examples are drawn, not scores: what was hard for one is mostly hard for the other, and that must not be lost.
    """
    _same_length(first, second)
    differences = _numbers(second, "second") - _numbers(first, "first")  # (N,)
    return bootstrap(differences, confidence, resamples, seed)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The chance of a difference at least this large if two candidates were equally good: exact, two-sided.

    Only the examples that one got right and the other wrong tell anything; each is then a fair coin (McNemar 1947;
    the exact form is the sign test).
    """
    _same_length(first, second)
    _yes_or_no(first), _yes_or_no(second)
    for_first = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    for_second = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    return sign_test(for_first, for_second)


def sign_test(wins: int, losses: int) -> float:
    """The chance that `wins + losses` tosses of a fair coin come out at least as lopsided; ties are left out."""
    wins, losses = _count(wins, "wins", 0), _count(losses, "losses", 0)
    n, least = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, 2 * tail / 2**n)  # whole numbers up to here, so exact


def examples_needed(
    first: float, second: float, disagree: float | None = None, power: float = 0.8, confidence: float = 0.95
) -> int:
    """How many examples, so that a true difference between two shares is found with chance `power`.

    Each candidate on examples of its own: the number for each (Fleiss 1981, equation 3.14, without correction).
    Both on the same examples: pass `disagree`, the share of examples that only one of them gets right (Connor 1987).
    """
    first, second = _share(first, "first"), _share(second, "second")
    gap = abs(first - second)
    if gap == 0:
        raise CourseError("two equal candidates can't be told apart by any number of examples; pass two shares")
    za, zb = _z(confidence), NormalDist().inv_cdf(_inside(power, "power"))
    if disagree is None:
        middle = (first + second) / 2
        root = za * math.sqrt(2 * middle * (1 - middle))
        root += zb * math.sqrt(first * (1 - first) + second * (1 - second))
    else:
        most = min(first + second, 2 - first - second)
        if not gap <= _share(disagree, "disagree") <= most + 1e-9:
            raise CourseError(f"candidates at {first:g} and {second:g} disagree on {gap:.2f} to {most:.2f} of the "
                              f"examples, not on {disagree:g}")  # fmt: skip
        root = za * math.sqrt(disagree) + zb * math.sqrt(max(0.0, disagree - gap * gap))
    return math.ceil((root / gap) ** 2 - 1e-9)


def wrong_choice(first: float, second: float, n: int, trials: int = 4000, seed: int = 0) -> float:
    """How often a test of n examples does not put the better candidate ahead; a tie counts half.

    A simulation: each candidate has the same true share on every example, and they err independently.
    """
    better, worse = max(_share(first, "first"), _share(second, "second")), min(first, second)
    draw, n = np.random.default_rng(seed), _count(n, "n", 1)
    lead = draw.binomial(n, better, _count(trials, "trials", 1)) - draw.binomial(n, worse, trials)  # (trials,)
    return float(((lead < 0) + 0.5 * (lead == 0)).mean())


# Traps ------------------------------------------------------------------------------------------------------


def overlap(tests: Sequence[str], training: Sequence[str], n: int = 8) -> list[float]:
    """For each test text, the share of its runs of n words that occur in a training text: 0 clean, 1 copied.

    Words as ROUGE cuts them (`words`). A text shorter than n words counts as one run.
    Brown et al. 2020 (appendix C) took 8 to 13 words.
    """
    n = _count(n, "n", 1)
    runs = [_runs(text, n) for text in _texts(tests, "tests")]
    sizes = {len(run) for found in runs for run in found}
    seen = {run for text in _texts(training, "training") for size in sizes for run in _runs(text, size)}
    return [sum(run in seen for run in found) / len(found) if found else 0.0 for found in runs]


def contaminated(tests: Sequence[str], training: Sequence[str], n: int = 8, share: float = 0.5) -> list[int]:
    """The numbers of the test texts of which at least `share` of the runs of n words occur in training."""
    _share(share, "share")
    return [i for i, found in enumerate(overlap(tests, training, n)) if found >= share and found > 0]


class Verdicts(NamedTuple):
    """What a judge said of pairs, each shown in both orders; shares from 0 to 1, a tie counted half.

    first: the one shown first was preferred (0.5 without bias). consistent: the same answer won in both orders.
    right: the better answer was preferred, over both orders. balanced: the better one was preferred by the mean of
    the chances in both orders, which cancels the places. longer: the longer one was, by the same mean (pairs of one
    length left out; None if all are).
    """

    first: float
    consistent: float
    right: float
    balanced: float
    longer: float | None


def try_judge(judge: Callable[[str, str, str], float], pairs: Sequence[tuple[str, str, str]]) -> Verdicts:
    """Measure a judge's habits on pairs (question, better answer, worse answer), each shown in both orders.

    judge(question, one, other) gives the chance, 0 to 1, that it prefers `one`, the answer shown first.
    """
    if not pairs or not all(len(pair) == 3 for pair in pairs):
        raise CourseError("a judge is tried on (question, better answer, worse answer); pass at least one")
    forth = [_share(judge(question, better, worse), "a verdict") for question, better, worse in pairs]
    back = [_share(judge(question, worse, better), "a verdict") for question, better, worse in pairs]
    won = [(_ahead(a, 0.5), _ahead(0.5, b)) for a, b in zip(forth, back, strict=True)]  # the better one's, each order
    even = [_ahead(a, b) for a, b in zip(forth, back, strict=True)]  # whether it won by the mean of both orders
    uneven = [(len(pair[1]) > len(pair[2]), win) for pair, win in zip(pairs, even, strict=True)
              if len(pair[1]) != len(pair[2])]  # fmt: skip
    return Verdicts(
        first=sum(a + 1 - b for a, b in won) / (2 * len(won)),
        consistent=sum(a * b + (1 - a) * (1 - b) for a, b in won) / len(won),
        right=sum(a + b for a, b in won) / (2 * len(won)),
        balanced=sum(even) / len(even),
        longer=sum(win if longer else 1 - win for longer, win in uneven) / len(uneven) if uneven else None,
    )


def model_judge(model: Transformer, tokenizer) -> Callable[[str, str, str], float]:
    """A chat model as judge (Zheng et al. 2023): asked "A or B?", the chance it gives to A, of the two letters."""
    letters = [tokenizer.encode(f" {letter}")[0] for letter in "AB"]

    @torch.no_grad()
    def judge(question: str, one: str, other: str) -> float:
        asked = (f"Question: {question}\n\nAnswer A: {one}\n\nAnswer B: {other}\n\n"
                 "Which answer is better? Reply with one letter, A or B.")  # fmt: skip
        ids = [*tokenizer.chat([{"role": "user", "content": asked}]), *tokenizer.encode("Answer")]
        x = model.last_hidden_state(torch.tensor([ids], device=model.embedding.weight.device))[0, -1]  # (D,)
        logits = model.head(x)  # (V,), asked at the last place only
        return logits[letters].float().softmax(-1)[0].item()

    return judge


# What the rest stands on ------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """A text's words in any script: lower case; letters, with their signs, and digits only.

    Where a script puts no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each letter is a word. A
    text of nothing but symbols, such as emoji, is taken symbol by symbol.
    """
    text = text.lower()
    if text.isascii():
        return re.findall("[a-z0-9]+", text)
    text = unicodedata.normalize("NFKC", text)  # é is one sign or two, ｆｕｌｌ width is width
    return WORD.findall(text) or regex.findall(r"\p{S}", text)


@functools.cache
def _scorer(stem: bool):
    from rouge_score.rouge_scorer import RougeScorer  # 0.6 s, for those who ask
    from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

    theirs = DefaultTokenizer(bool(stem))

    class Words(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            if text.isascii():
                return theirs.tokenize(text)
            parts = (theirs.tokenize(word) if word.isascii() else [word] for word in words(text))
            return [word for part in parts for word in part]

    return RougeScorer(list(ROUGE), tokenizer=Words())


def _ahead(one: float, other: float) -> float:
    """1 if the one is larger, 0 if the other is, a half for a tie."""
    return 0.5 * ((one > other) + (one >= other))


def _word_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not said or not wanted:
        return float(not said and not wanted)
    common = sum((collections.Counter(said) & collections.Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def _runs(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of n words of a text; a shorter text is one run."""
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))] if found else []


def _is_point(c: str) -> bool:
    """Whether a character is ASCII's punctuation, or another script's."""
    beyond = c > "\u00ff" and not "\u2000" <= c <= "\u206f"  # those are Latin's dashes and quotes
    return c in string.punctuation or (beyond and unicodedata.category(c).startswith("P"))


def _pieces(text: str) -> list[str]:
    """A text's words as SQuAD cuts them, those of scripts without spaces cut into letters."""
    return [piece for word in normalise(text).split() for piece in ([word] if word.isascii() else PIECE.findall(word))]


def _text(text: str) -> str:
    if not isinstance(text, str):
        raise CourseError(f"a text is scored, not {type(text).__name__}; pass a string")
    return text


def _several(wanted: str | Sequence[str]) -> list[str]:
    several = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(several, Collection) or not several:
        raise CourseError("nothing is wanted; pass a text, or a list of texts of which any will do")
    return [_text(one) for one in several]


def _texts(texts: Sequence[str], name: str) -> list[str]:
    if isinstance(texts, str) or not texts:
        raise CourseError(f"{name} is a list of at least one text")
    return [_text(text) for text in texts]


def _same_length(first: Sequence, second: Sequence) -> None:
    if isinstance(first, str) or isinstance(second, str):
        raise CourseError("lists are compared, not single texts; put each text into a list")
    if len(first) != len(second):
        raise CourseError(f"{len(first)} against {len(second)}: both lists must be about the same examples, in order")
    if len(first) == 0:
        raise CourseError("there are no examples; pass at least one")


def _numbers(values: Sequence[float], name: str) -> np.ndarray:
    try:
        values = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise CourseError(f"{name} must be numbers, one for each example") from None
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise CourseError(f"{name} must be a list of at least one number, all finite")
    return values


def _yes_or_no(values: Sequence[bool]) -> None:
    if not all(value in (0, 1) for value in values):
        raise CourseError("each example is right or wrong, True or False; for other scores use paired_bootstrap")


def _count(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise CourseError(f"{name} is a whole number, at least {least}, not {value!r}")
    return int(value)


def _share(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
        raise CourseError(f"{name} is a share from 0 to 1, not {value!r}")
    return float(value)


def _inside(value: float, name: str) -> float:
    if not 0 < _share(value, name) < 1:
        raise CourseError(f"{name} lies between 0 and 1, not at {value!r}; 0.95 is 95 per cent")
    return value


def _z(confidence: float) -> float:
    """How many standard deviations hold that share of a normal distribution: 0.95 → 1.96."""
    return NormalDist().inv_cdf((1 + _inside(confidence, "confidence")) / 2)
