"""Lesson 09, project life cycle: the exercises."""

import collections
import math
import re

import torch

from lib.decide.scenarios import from_plain, problems, scenario
from lib.errors import CourseError
from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import close, integer, number, require, verdicts
from lib.exercises.verdict import Wrong


def _two(got):
    """An interval's two ends, whatever they came in."""
    if isinstance(got, torch.Tensor) and got.numel() == 2:
        got = got.flatten().tolist()
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong("An interval is two numbers, (low, high).")
    return number(got[0]), number(got[1])


def _is(got, want, atol=1e-6):
    return all(math.isclose(a, b, abs_tol=atol) for a, b in zip(got, want, strict=True))


# --- wilson_interval ----------------------------------------------------------------------------------------


def _by_wilson(k, n, z):
    """Both shares p for which |k/n − p| = z·√(p(1 − p)/n): the roots of a quadratic."""
    a, b, c = 1 + z * z / n, -(2 * k / n + z * z / n), (k / n) ** 2
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _wilson_known(answer, rng):
    got = _two(answer(5, 20, 2.0))
    low, high = _by_wilson(5, 20, 2.0)
    half = (high - low) / 2
    require(not _is(got, (100 * low, 100 * high), 1e-3), "The ends are in per cent; a share lies between 0 and 1.")
    require(not _is(got, (high, low)), "The ends are the wrong way round: (low, high).")
    require(not _is(got, (0.25 - 2 * math.sqrt(0.25 * 0.75 / 20), 0.25 + 2 * math.sqrt(0.25 * 0.75 / 20))),
            "That is share ± z · √(share · (1 − share) / n), the interval that fails near 0 and 1. Wilson's has three "
            "terms more.")
    require(not _is(got, (0.35 - 1.2 * half, 0.35 + 1.2 * half)), "The division by 1 + z²/n is missing.")
    require(not _is(got, (0.25 - half, 0.25 + half)), "The interval's middle is not the share itself: Wilson's is "
                                                      "pulled a little towards one half.")
    other = 2 * math.sqrt(0.25 * 0.75 / 20 + 4 / (4 * 20)) / 1.2
    require(not _is(got, ((low + high) / 2 - other, (low + high) / 2 + other)), "Under the root it is z² / (4n²), not "
                                                                               "z² / (4n).")
    require(_is(got, (low, high), 1e-4), "5 right of 20 with z = 2: the interval goes from 0.110 to 0.473.",
            f"got {got[0]:.4f} to {got[1]:.4f}")


def _wilson_published(answer, rng):
    for k, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)):
        require(_is(_two(answer(k, n, 1.959964)), (low, high), 6e-5),
                "The published intervals (Newcombe 1998, table I) do not come out. Does z stand where it should, and "
                "not a fixed number?")


def _wilson_ends(answer, rng):
    n = integer(rng, 10, 60)
    low, high = _two(answer(0, n, 1.96))
    require(abs(low) < 1e-9 and abs(high - _by_wilson(0, n, 1.96)[1]) < 1e-6,
            "With 0 right of n, the interval starts at 0 and is not empty: nothing seen is not nothing there.")
    k = integer(rng, 1, n - 1)
    low, high = _two(answer(k, n, 1.96))
    mirror = _two(answer(n - k, n, 1.96))
    require(_is(mirror, (1 - high, 1 - low)), "k right and n − k wrong, or the other way round: the two intervals must "
                                              "be mirror images.")


WILSON_INTERVAL = Exercise(
    id="09.wilson_interval",
    title="How sure is a share?",
    points=5,
    difficulty=1,
    minutes=10,
    prompt="""
A test of `n` examples, `right` of them right. Write `wilson_interval(right, n, z=1.96)`: return `(low, high)`, Wilson's
interval for the true share, with $p$ = right / n:

$$\\frac{1}{1 + z^2/n} \\left( p + \\frac{z^2}{2n} \\pm z \\sqrt{\\frac{p (1 - p)}{n} + \\frac{z^2}{4 n^2}} \\right)$$

What is it *doing*? It asks which true shares would make what you saw unsurprising, and keeps all of those. For z = 1.96
it holds the truth in about 95 of 100 tests.
""",
    stub='''
def wilson_interval(right, n, z=1.96):
    """right of n -> (low, high), shares from 0 to 1."""
    raise NotImplementedError
''',
    properties=[
        Property("5 right of 20, by hand", 2, _wilson_known, proof=False),
        Property("as published", 1, _wilson_published, proof=False),
        Property("none right, and mirror images", 2, _wilson_ends),
    ],
    ready=("lib.decide.evaluation.wilson",),
    hints=(
        "Compute three things: p = right / n, the middle, and the half width. The ends are middle − half and middle + "
        "half.",
        "The division by 1 + z²/n is for the middle and the half width alike. Under the root stand two terms.",
        "shrink = 1 + z**2 / n; middle = (p + z**2 / (2 * n)) / shrink; half = z * math.sqrt(p * (1 - p) / n + z**2 / "
        "(4 * n**2)) / shrink.",
    ),
)

# --- paired_interval ----------------------------------------------------------------------------------------


def _drawn(rng, R, N):
    return torch.randint(N, (R, N), generator=rng)  # (R, N)


def _paired_pairs(answer, rng):
    first = torch.rand(30, generator=rng, dtype=torch.float64)  # (N,)
    draws = _drawn(rng, 41, 30)
    got = _two(answer(first, first + 0.125, draws))
    require(not _is(got, (-0.125, -0.125)), "The sign: how much is the *second* better? That is second − first.")
    require(not _is(got, (0.125 * 30, 0.125 * 30), 1e-4), "The mean over the examples, not the sum.")
    require(_is(got, (0.125, 0.125), 1e-4),
            "The second is better by 0.125 on every single example, and still your interval has a width. The pairs are "
            "torn apart: both candidates have to be looked at on the *same* drawn examples.")


def _paired_draws(answer, rng):
    N, R = integer(rng, 8, 12), 41  # so that 2.5 % and 97.5 % of the way fall on the sorted results 1 and 39
    first, second = (torch.rand(N, generator=rng, dtype=torch.float64) for _ in range(2))  # (N,)
    draws = _drawn(rng, R, N)
    means = sorted((second - first)[row].mean().item() for row in draws)
    got = _two(answer(first, second, draws))
    require(not _is(got, (means[0], means[-1])), "Those are the smallest and the largest result. Cut 2.5 % off at "
                                                 "either side.")
    require(not _is(got, (means[2], means[38])), "Those are 5 % and 95 %; an interval of 95 % leaves 2.5 % at either "
                                                 "side.")
    middle, spread = sum(means) / R, torch.tensor(means, dtype=torch.float64).std().item()
    require(abs(got[1] - got[0] - 2 * 1.96 * spread) > 1e-6 and abs(got[0] - (middle - 1.96 * spread)) > 1e-6,
            "That is mean ± 1.96 standard deviations. Take percentiles: they need no bell curve.")
    require(_is(got, (means[1], means[39]), 1e-6),
            "The ends are not the 2.5 % and 97.5 % percentiles of the drawn means. Each row of `draws` is one new "
            "sample: N numbers of examples, some twice, some not at all.")


def _paired_yes_no(answer, rng):
    N, R = 40, 81
    first = (torch.arange(N) % 2).double()  # (N,)
    second = first.clone()
    second[[0, 2, 5]] = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    draws = _drawn(torch.Generator().manual_seed(0), R, N)  # always these: means of 0 and 1 often coincide
    means = torch.tensor([(second - first)[row].mean().item() for row in draws], dtype=torch.float64).sort().values
    close(torch.tensor(_two(answer(first, second, draws)), dtype=torch.float64), means[[2, 78]],
          "With right and wrong as 1 and 0, 81 draws of 40, the ends are wrong.")


PAIRED_INTERVAL = Exercise(
    id="09.paired_interval",
    title="Two candidates, the same examples",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
Two candidates have answered the *same* N examples. `first` and `second` are (N,): the score of each candidate on each
example. How much better is the second, and how sure is that?

Write `paired_interval(first, second, draws)`. `draws` is (R, N): each row says which N examples to look at this time,
drawn with replacement. For each row take the mean of second − first over the drawn examples. Return `(low, high)`, the
2.5 % and 97.5 % percentiles of the R results (`torch.quantile` gives them).
""",
    stub='''
def paired_interval(first, second, draws):
    """first (N,), second (N,), draws (R, N) whole numbers -> (low, high)."""
    raise NotImplementedError
''',
    properties=[
        Property("the pairs stay together", 2, _paired_pairs, proof=False),
        Property("percentiles of the draws", 3, _paired_draws),
        Property("right and wrong", 1, _paired_yes_no, proof=False),
    ],
    ready=("lib.decide.evaluation.paired_bootstrap", "lib.decide.evaluation.bootstrap"),
    hints=(
        "Pair first, draw afterwards: one difference for each example, and then samples of differences.",
        "(second - first)[draws] is (R, N): all samples at once.",
        "means = (second - first)[draws].mean(dim=1); return the quantiles 0.025 and 0.975 of means.",
    ),
)

# --- seen_share ---------------------------------------------------------------------------------------------


def _share_of(answer, text, training, n, want, says):
    close(answer(text, training, n), want, says)


def _seen_by_hand(answer, rng):
    training = ["one two three four five", "six seven eight"]
    _share_of(answer, "two three four", training, 3, 1.0, "All of a copied text is seen: 1.0.")
    _share_of(answer, "four three two", training, 3, 0.0, "The same words in another order are not the same run of "
                                                          "words.")
    _share_of(answer, "zero two three four", training, 3, 0.5, "Of the two runs of three words, the second occurs in "
                                                               "training: 0.5. Is the last run counted, and the share "
                                                               "taken over all runs?")
    _share_of(answer, "one two zero five", training, 2, 1 / 3, "n is the length of a run; here it is 2, and one of "
                                                               "three runs is seen.")


def _seen_borders(answer, rng):
    _share_of(answer, "art is long", ["the party is longer"], 2, 0.0, "\"art is\" is not in \"the party is longer\": "
                                                                      "compare words, not letters.")
    _share_of(answer, "five six", ["four five", "six seven"], 2, 0.0, "A run must not cross from one training text "
                                                                      "into the next.")
    _share_of(answer, "Two THREE", ["one two three"], 2, 1.0, "Capital letters make no difference.")


def _seen_short(answer, rng):
    _share_of(answer, "two", ["one two three"], 3, 0.0, "A text of fewer than n words has no run at all: 0.0.")
    _share_of(answer, "a b a b a b", ["a b c"], 2, 0.6, "Each place counts, also when the run is the same as before: "
                                                        "three of five.")


def _seen_any(answer, rng):
    for n in (2, 3, 2, 3):
        texts = [[f"w{w}" for w in torch.randint(4, (integer(rng, 8, 14),), generator=rng).tolist()] for _ in range(3)]
        texts[1].insert(0, "begins")
        texts[2].insert(0, "begins")  # so that no run from one into the other is among those looked for
        runs = [{tuple(text[i : i + n]) for i in range(len(text) - n + 1)} for text in texts]
        places = [tuple(texts[0][i : i + n]) for i in range(len(texts[0]) - n + 1)]
        want = sum(place in runs[1] | runs[2] for place in places) / len(places)
        text, *training = map(" ".join, texts)
        _share_of(answer, text, training, n, want, "On random words the share of runs that were seen differs.")


SEEN_SHARE = Exercise(
    id="09.seen_share",
    title="Has it seen the test?",
    points=5,
    difficulty=2,
    minutes=15,
    prompt="""
A test is worth nothing if the model was trained on it. Write `seen_share(text, training, n)`: the share, 0.0 to 1.0, of
the runs of `n` words in `text` that also occur, as a run, in one of the texts of the list `training`.

Words are what stands between blanks (`split()`), capitals make no difference. A text with fewer than `n` words has no
run: 0.0.
""",
    stub='''
def seen_share(text, training, n):
    """A text, a list of texts, the length of a run in words -> a share from 0.0 to 1.0."""
    raise NotImplementedError
''',
    properties=[
        Property("by hand", 1, _seen_by_hand, proof=False),
        Property("words, and texts, have borders", 2, _seen_borders, proof=False),
        Property("short texts, and repeats", 1, _seen_short, proof=False),
        Property("any words", 1, _seen_any),
    ],
    ready=("lib.decide.evaluation.overlap", "lib.decide.evaluation.contaminated"),
    hints=(
        "Write a small function that gives all runs of n words of one text, and use it for both sides.",
        "A tuple of words can be put into a set: tuple(words[i : i + n]) for i in range(len(words) - n + 1).",
        "seen = the set of all training runs, text by text; then count the runs of the test text that are in it, and "
        "divide by how many there are, if there are any.",
    ),
)

# --- decisions ----------------------------------------------------------------------------------------------

ASKED = ("ward", "shop", "helpdesk", "factory", "bank", "archive")


def _consistent(*names):
    def test(got, rng):
        require(isinstance(got, dict), "`decisions` is a dictionary: a scenario's name, and what you choose for it.")
        for name in names:
            require(name in got, f"There is no decision for the scenario {name!r}.")
            try:
                found = problems(from_plain(got[name]), scenario(name))
            except CourseError as error:
                raise Wrong(f"{name}: {error}") from None
            require(not found, f"{name}: {found[0].says}." if found else "")

    return test


DECISIONS = Exercise(
    id="09.decisions",
    title="Six decisions that agree with themselves",
    points=6,
    difficulty=2,
    minutes=25,
    prompt="""
Decide for six of the scenarios: `ward`, `shop`, `helpdesk`, `factory`, `bank` and `archive`. `decisions` is a
dictionary; each entry looks like this:

`"museum": {"model": "llama-8b", "how": "prompt", "where": "hosted", "test": 500, "bits": 16, "batch": 1}`

`model` is one of the shelf, `how` is `prompt`, `fine-tune` or `from scratch`, `where` is `house` or `hosted`, `test`
is how many labelled examples you keep for the test. `bits` (16, 8 or 4) and `batch` (requests answered at once) may be
left out: 16 and 1.

There are many right answers. Nobody grades your taste; what is graded is whether each decision agrees with itself:
privacy, memory, latency, capacity, cost, breadth, data, and a test that can tell the candidates apart.
`problems(Choice(...), scenario("museum"))` does the sums for you.
""",
    stub="decisions = ...",
    properties=[Property(name, 1, _consistent(name)) for name in ASKED],
    hints=(
        "Begin with what is forbidden: private data rule out `hosted`, open topics rule out `from scratch`. Then "
        "let problems tell you which sum does not come out.",
        "The smallest test that will do is examples_needed(share, share + gap, disagree) of the scenario. A larger "
        "batch gives more capacity, and costs latency and memory.",
        "consistent(scenario(\"ward\")) lists every choice that agrees with itself. Read a few, and choose one that "
        "you could defend.",
    ),
)

# --- catches_bad_rouge: the learner writes the test ---------------------------------------------------------


def _words(text):
    return re.findall("[a-z0-9]+", text.lower())


def _f1(common, said, wanted):
    return 2 * common / (said + wanted) if said + wanted else 0.0


def _right(said, wanted):
    a, b = collections.Counter(_words(said)), collections.Counter(_words(wanted))
    return _f1(sum((a & b).values()), a.total(), b.total())


def _right_by_lists(said, wanted):
    a, left = _words(said), _words(wanted)
    size, common = len(a) + len(left), 0
    for word in a:
        if word in left:
            left.remove(word)
            common += 1
    return 2 * common / size if size else 0.0


def _right_wobbling(said, wanted):
    return _right(said, wanted) * (1 + 1e-9 * len(said))


def _no_counts(said, wanted):
    a, b = set(_words(said)), set(_words(wanted))
    return _f1(len(a & b), len(a), len(b))


def _unclipped(said, wanted):
    a, b = _words(said), _words(wanted)
    precision, recall = sum(w in b for w in a) / max(len(a), 1), sum(w in a for w in b) / max(len(b), 1)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _common(said, wanted):
    return sum((collections.Counter(_words(said)) & collections.Counter(_words(wanted))).values())


def _precision(said, wanted):
    return _common(said, wanted) / max(len(_words(said)), 1)


def _recall(said, wanted):
    return _common(said, wanted) / max(len(_words(wanted)), 1)


def _plain_mean(said, wanted):
    return (_precision(said, wanted) + _recall(said, wanted)) / 2


def _in_order(said, wanted):
    a, b = _words(said), _words(wanted)
    row = [0] * (len(b) + 1)  # the longest run in common, with gaps, of what was read so far
    for word in a:
        above, row = row, [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
    return _f1(row[-1], len(a), len(b))


def _capitals(said, wanted):
    a, b = (collections.Counter(re.findall("[A-Za-z0-9]+", text)) for text in (said, wanted))
    return _f1(sum((a & b).values()), a.total(), b.total())


def _points(said, wanted):
    a, b = (collections.Counter(text.lower().split()) for text in (said, wanted))
    return _f1(sum((a & b).values()), a.total(), b.total())


def _letters(said, wanted):
    a, b = _words(said), _words(wanted)
    hits = sum(any(word in other or other in word for other in b) for word in a)
    return min(_f1(min(hits, len(b)), len(a), len(b)), 1.0) if set(a) - set(b) else _right(said, wanted)


RIGHT = [
    (_right, False, "It says True to a right ROUGE-1."),
    (_right_by_lists, False, "It says True to a right ROUGE-1 that is written in another way. Judge what comes back."),
    (_right_wobbling, False, "It says True to a right ROUGE-1 that is off in the ninth decimal. Allow for rounding."),
]


def _bad(*cases):
    def test(answer, rng):
        verdicts(lambda score: answer(lambda said, wanted: score(said, wanted)), rng,
                 [*RIGHT, *((function, True, says) for function, says in cases)])  # fmt: skip

    return test


CATCHES_BAD_ROUGE = Exercise(
    id="09.catches_bad_rouge",
    title="Write the test: a ROUGE that flatters",
    points=6,
    difficulty=3,
    minutes=20,
    prompt="""
`score(said, wanted)` takes two texts and returns ROUGE-1 as F1, from 0 to 1. A right one cuts both into words (lower
case, letters and digits only), counts how many words they share, **each as often as it occurs in both**, and returns
twice that number over the words of both together. Order does not matter.

Write `catches_bad_rouge(score)`: **True if it is broken**, False if it is right. You can only call it. Every broken one
gives right answers for easy texts. What must a text be like to show that words are counted wrongly, or only one side of
the F1, or letters in place of words?
""",
    stub='''
def catches_bad_rouge(score):
    """True if score(said, wanted) is not ROUGE-1's F1."""
    raise NotImplementedError
''',
    properties=[
        Property("sees counts", 2, _bad(
            (_no_counts, "It misses a ROUGE that ignores counts: \"no no no no\" against \"no\" must not be perfect."),
            (_unclipped, "It misses a ROUGE in which one word of the reference is matched by many. Say a word more "
                         "often than it was wanted."))),
        Property("sees both sides", 2, _bad(
            (_precision, "It misses a ROUGE that is only precision: what was said is all wanted, and half of what was "
                         "wanted is missing."),
            (_recall, "It misses a ROUGE that is only recall: all that was wanted is there, and as much again that was "
                      "not."),
            (_plain_mean, "It misses a ROUGE that takes the plain mean of precision and recall. Compute one case by "
                          "hand."))),
        Property("sees words", 2, _bad(
            (_capitals, "It misses a ROUGE in which capital letters make a difference."),
            (_points, "It misses a ROUGE in which a full stop belongs to the word."),
            (_letters, "It misses a ROUGE in which a word matches part of a word: \"cat\" and \"cats\"."),
            (_in_order, "It misses a ROUGE in which the order matters (that is ROUGE-L)."))),
    ],
    hints=(
        "Make a list of (said, wanted, what a right ROUGE-1 gives), one line for each way to be wrong, and compare.",
        "\"no no no no\" against \"no\" gives 2 · 1 / 5. \"a b\" against \"a b c d\" gives 2 · 2 / 6.",
        "Add: the reverse of that, \"b a\" against \"a b\", \"Cat.\" against \"cat\", \"cat\" against \"cats\". Return "
        "True if any is off by more than 0.001.",
    ),
)

EXERCISES = [WILSON_INTERVAL, PAIRED_INTERVAL, SEEN_SHARE, DECISIONS, CATCHES_BAD_ROUGE]
