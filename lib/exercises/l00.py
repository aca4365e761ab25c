"""Lesson 00, start here: the exercises."""

import torch

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import integer, number, require

# --- greedy -------------------------------------------------------------------------------------------------


def _greedy(answer, probabilities):
    """The answer's pick for these probabilities, and the classic confusions told apart."""
    got = number(answer(probabilities))
    best = int(probabilities.argmax())
    if got != best:
        require(got != float(probabilities.max()),
                "That is the largest probability itself; the *place* where it stands is wanted, the token's number.")
        require(got != int(probabilities.argmin()),
                "That is the least likely token. Greedy takes the most likely one.")
        require(got != best + 1, "Off by one: tokens are numbered from 0.")
        require(got != int(probabilities.argsort(descending=True)[1]),
                "That is the second most likely token. Greedy takes the first.")
    require(got == best, "That is not the most likely token. Greedy picks the largest probability, every time.")
    require(isinstance(got, int), "The token's number should be a whole number, an int.")


def _greedy_by_hand(answer, rng):
    _greedy(answer, torch.tensor([0.1, 0.45, 0.15, 0.2, 0.04, 0.06]))


def _greedy_any(answer, rng):
    for _ in range(20):
        probabilities = torch.rand(integer(rng, 5, 50), generator=rng)
        _greedy(answer, probabilities / probabilities.sum())


def _greedy_repeats(answer, rng):
    probabilities = torch.full((20,), 0.045)
    probabilities[integer(rng, 1, 18)] = 0.145
    for _ in range(20):
        _greedy(answer, probabilities)


GREEDY = Exercise(
    id="00.greedy",
    title="Pick the next token",
    points=3,
    difficulty=1,
    minutes=3,
    prompt="""
Write `greedy(probabilities)`. It gets a tensor of shape (V,), one probability for each token of the vocabulary.
It returns the number of the most likely token, as an `int`. Tokens are numbered from 0: for probabilities 0.1, 0.6, 0.3
that is 1.
""",
    stub='''
def greedy(probabilities):
    """Probabilities (V,) -> the number of the most likely token, an int."""
    raise NotImplementedError
''',
    properties=[
        Property("six tokens, by hand", 1, _greedy_by_hand, proof=False),
        Property("any vocabulary", 1, _greedy_any),
        Property("the same choice every time", 1, _greedy_repeats, proof=False),
    ],
    ready=("lib.generation.choose",),
    hints=(
        "You need the place of the largest entry, not the entry.",
        "Tensors have a method for that: argmax.",
        "int(probabilities.argmax()) is all of it; int() turns the tensor with one number into that number.",
    ),
)

# --- exact_match --------------------------------------------------------------------------------------------


def _match(answer, given, truths, want, says):
    got = number(answer(list(given), list(truths)))
    require(got != 100 * want or want == 0, "That is per cent. A share lies between 0 and 1.")
    require(not (want and got == want * len(truths) and len(truths) > 1),
            "That is how many are right. A share is wanted: divide by how many there are.")
    require(abs(got - want) < 1e-9, says, f"expected {want:.4g}, got {got:.4g}")


def _match_by_hand(answer, rng):
    _match(answer, ["Bern", "Oslo", "Paris", "Rome"], ["Athens", "Oslo", "Paris", "Rome"], 0.75,
           "Three of four answers are right, so the score is 0.75.")
    (a, b, c, d), [other] = _words(rng, 4), _words(rng, 1)
    _match(answer, [a, b, c, d], [other, b, c, d], 0.75, "Three of four answers are right, so the score is 0.75.")


def _match_spelling(answer, rng):
    _match(answer, [" Paris", "Rome\n"], ["Paris", "Rome"], 1.0,
           "Blanks and line ends around an answer should not count: \" Paris\" is \"Paris\".")
    _match(answer, ["PARIS", "rome"], ["Paris", "Rome"], 1.0,
           "Capital letters should not count: \"rome\" is \"Rome\".")
    a, b = _words(rng, 2)
    _match(answer, [f" {a}", f"{b}\n"], [a, b], 1.0, "Blanks and line ends around an answer should not count.")
    _match(answer, [a.upper(), b.lower()], [a, b], 1.0, "Capital letters should not count.")


def _match_whole(answer, rng):
    _match(answer, ["Paris or Rome", "New York", "York"], ["Paris", "York", "New York"], 0.0,
           "Only a whole match counts: \"Paris or Rome\" is not \"Paris\", nor is part of an answer the answer.")
    a, b, c = _words(rng, 3)
    _match(answer, [f"{a} or {b}", f"New {c}", c], [a, c, f"New {c}"], 0.0, "Only a whole match counts.")


def _match_in_place(answer, rng):
    _match(answer, ["Rome", "Paris", "Oslo", "Bern"], ["Paris", "Rome", "Bern", "Oslo"], 0.0,
           "Each answer belongs to one question: the first answer to the first truth, and so on.")
    _match(answer, ["x", "Paris", "Oslo"], ["y", "Paris", "Oslo"], 2 / 3,
           "Every pair counts, not only the first.")
    for _ in range(3):
        truths = _words(rng, integer(rng, 5, 9))
        given = _words(rng, len(truths))
        right = torch.randperm(len(truths), generator=rng)[: integer(rng, 1, len(truths) - 1)].tolist()
        for at in right:
            given[at] = f" {truths[at].upper()}"
        _match(answer, given, truths, len(right) / len(truths), "On random words the share of right answers differs.")


def _words(rng, n):
    """So many words of six letters, all different."""
    letters = torch.randint(ord("a"), ord("z") + 1, (n, 5), generator=rng).tolist()
    return [chr(ord("A") + at) + "".join(map(chr, word)) for at, word in enumerate(letters)]


EXACT_MATCH = Exercise(
    id="00.exact_match",
    title="Score answers",
    points=4,
    difficulty=1,
    minutes=5,
    prompt="""
Write `exact_match(answers, truths)`: the share of answers that equal their truth, from 0 to 1. Both are lists of
strings of the same length. Blanks around an answer and capital letters do not matter; all else does.
""",
    stub='''
def exact_match(answers, truths):
    """Two lists of strings -> the share (0 to 1) of answers that equal their truth."""
    raise NotImplementedError
''',
    properties=[
        Property("four answers, by hand", 1, _match_by_hand, proof=False),
        Property("blanks and capitals do not count", 1, _match_spelling, proof=False),
        Property("each answer against its own truth", 1, _match_in_place),
        Property("only whole answers count", 1, _match_whole, proof=False),
    ],
    ready=(
        "lib.decide.evaluation.exact_match", "lib.decide.evaluation.mean_exact_match",
        "lib.decide.evaluation.normalise",
    ),
    hints=(
        "Go through the pairs, count the equal ones, divide by how many pairs there are.",
        "zip(answers, truths) gives the pairs. text.strip().casefold() takes off blanks and capitals.",
        "right = [a.strip().casefold() == t.strip().casefold() for a, t in zip(answers, truths)], and then "
        "sum(right) / len(right).",
    ),
)

# --- memory_gb ----------------------------------------------------------------------------------------------


def _memory(answer, n, width, want):
    got = number(answer(n, width) if width is not None else answer(n))
    if abs(got - want) > 1e-6 * want:
        near = lambda factor: abs(got - want * factor) <= 1e-6 * abs(want * factor)  # noqa: E731
        require(not near(1e9 / 2**30), "That is in GiB, units of 2^30 bytes. A GB is 10^9 bytes.")
        require(not near(8), "That counts bits. A byte is one unit here; do not multiply by 8.")
        require(not near(1e9), "That is in bytes. Divide by 10^9 for GB.")
        require(not near(1e3), "That is in MB. Divide by 10^9, not 10^6, for GB.")
        require(not (width is None and near(0.5)), "Left out, bytes_per_parameter is 4: a float32 number.")
        require(got != int(want), "The fraction is cut off: use / and not //.")
    require(abs(got - want) <= 1e-6 * want, "Memory is the number of parameters times the bytes of each, over 10^9.",
            f"expected {want:.4g}, got {got:.4g}")


def _memory_by_hand(answer, rng):
    _memory(answer, 7_000_000_000, 2, 14.0)


def _memory_default(answer, rng):
    _memory(answer, 135_000_000, None, 0.54)


def _memory_any(answer, rng):
    for _ in range(5):
        n, width = integer(rng, 10**6, 10**12), integer(rng, 1, 8)
        _memory(answer, n, width, n * width / 1e9)


MEMORY = Exercise(
    id="00.memory_gb",
    title="Will it fit?",
    points=3,
    difficulty=1,
    minutes=3,
    prompt="""
Write `memory_gb(n_parameters, bytes_per_parameter=4)`: how many gigabytes the weights of a model take. A GB is
$10^9$ bytes. A model of 7 billion parameters at 2 bytes each takes 14 GB.
""",
    stub='''
def memory_gb(n_parameters, bytes_per_parameter=4):
    """Gigabytes (10^9 bytes) that the weights take."""
    raise NotImplementedError
''',
    properties=[
        Property("seven billion at two bytes", 1, _memory_by_hand, proof=False),
        Property("four bytes unless told", 1, _memory_default, proof=False),
        Property("any size", 1, _memory_any),
    ],
    ready=("lib.decide.sizing.weight_bytes",),
    hints=(
        "Every parameter is one number, and every number takes the same room.",
        "Multiply the two arguments; that is bytes. Then change the unit.",
        "n_parameters * bytes_per_parameter / 1e9.",
    ),
)

# --- one_step: a choice --------------------------------------------------------------------------------------

CHOICES = {
    "a": "The model does not write whole sentences. It is run once for every token, and reads its own last one.",
    "b": "One token is picked, but not by the model: it is picked from what the model gives.",
    "d": "No text is looked up anywhere: the model has only its weights.",
}


def _one_step(answer, rng):
    require(isinstance(answer, str), "Answer with a letter in quotes, such as \"a\".")
    letter = answer.strip().lower()
    require(letter in ("a", "b", "c", "d"), "Answer with one letter: a, b, c or d.")
    require(letter == "c", CHOICES.get(letter, ""))


ONE_STEP = Exercise(
    id="00.one_step",
    title="What comes out?",
    points=1,
    difficulty=1,
    minutes=1,
    prompt="""
The model reads "The capital of France is", once. What comes out of that one step?

- **a**: the rest of the sentence;
- **b**: one token, " Paris";
- **c**: one probability for every token of the vocabulary;
- **d**: the text in its training data that fits best.

Set `one_step` to the letter, in quotes.
""",
    stub="one_step = ...",
    properties=[Property("the right letter", 1, _one_step)],
    hints=(
        "Look again at the picture of the next token: what does it show before anything is chosen?",
        "Greedy and sampled text come from the same step; only the choice differs.",
        "The choice is made from a list as long as the vocabulary.",
    ),
)

EXERCISES = [ONE_STEP, GREEDY, EXACT_MATCH, MEMORY]
