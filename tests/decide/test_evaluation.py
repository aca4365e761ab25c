"""Scores equal to the field's own packages, intervals equal to published ones and as often right as they say."""

import math
import random
import re
import string
import unicodedata
from statistics import NormalDist

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.decide import evaluation
from lib.decide.evaluation import (
    bootstrap,
    contaminated,
    exact_match,
    examples_needed,
    mcnemar,
    mean_exact_match,
    mean_rouge,
    mean_token_f1,
    model_judge,
    normalise,
    overlap,
    paired_bootstrap,
    rouge,
    sign_test,
    surprise,
    token_f1,
    try_judge,
    wilson,
    words,
    wrong_choice,
)
from lib.errors import CourseError
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")


# Scores


@pytest.mark.parametrize(
    ("said", "wanted", "right"),
    [
        ("The order, W123!", "order w123", True),
        ("a  cat\n", "cat", True),
        ("theme", "me", False),  # articles are words, not letters
        ("cats", "cat", False),
        ("no", ["yes", "No."], True),
        ("", "the", True),
        ("", "cat", False),
    ],
)
def test_exact_match(said, wanted, right):
    assert exact_match(said, wanted) is right
    assert mean_exact_match([said, "x"], [wanted, "x"]) == (1.0 if right else 0.5)


def test_normalise():
    assert normalise("  An Owl,  the\tCat & a-b  ") == "owl cat ab"
    assert normalise(normalise("A The an!")) == ""


def test_token_f1_by_hand():
    assert token_f1("the black cat", "a black dog") == pytest.approx(0.5)
    assert token_f1("no no no", "no") == pytest.approx(0.5), "a word counts as often as in both"
    assert token_f1("", "!") == 1.0 and token_f1("cat", "") == 0.0
    assert token_f1("black cat", ["dog", "cat black"]) == 1.0
    assert mean_token_f1(["cat", "dog"], ["cat", "cat"]) == 0.5


def test_rouge_by_hand():
    """Lin 2004, section 3: police killed the gunman / police kill the gunman / the gunman kill police."""
    wanted = "police killed the gunman"
    assert rouge("police kill the gunman", wanted)["rougeL"].f1 == pytest.approx(3 / 4)
    assert rouge("the gunman kill police", wanted)["rougeL"].f1 == pytest.approx(2 / 4)
    assert rouge("the gunman kill police", wanted)["rouge2"].recall == pytest.approx(1 / 3)
    assert rouge("police police police", wanted)["rouge1"] == pytest.approx((1 / 3, 1 / 4, 2 / 7))
    assert rouge("police kills the gunmen", wanted, stem=True)["rouge1"].f1 > rouge("police kills the gunmen", wanted)[
        "rouge1"].f1  # fmt: skip
    assert rouge("", wanted)["rouge1"].f1 == 0.0 and rouge("!", "?")["rougeL"].f1 == 0.0


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_is_the_packages(stem):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
    draw = random.Random(0)
    words = "the order ordered orders was were returned, Returning to-day #W123 shop's café 12 12.5".split()
    pairs = [tuple(" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(2)) for _ in range(300)]
    for said, wanted in pairs:
        theirs = scorer.score(target=wanted, prediction=said)
        for kind, score in rouge(said, wanted, stem).items():
            assert score == pytest.approx((theirs[kind].precision, theirs[kind].recall, theirs[kind].fmeasure))
    means = mean_rouge(*zip(*pairs, strict=True), stem=stem)
    assert means["rouge2"] == pytest.approx(np.mean([scorer.score(w, s)["rouge2"].fmeasure for s, w in pairs]))


class Letters:
    """One token a byte."""

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return Transformer(Config.llama(vocab_size=256, block_size=16, n_layer=1, n_head=2, d_model=16)).eval()


def test_surprise_of_a_model_that_knows_nothing(reader):
    torch.nn.init.zeros_(reader.head.weight)
    found = surprise(reader, Letters(), "any text that is longer than a window", start=0)
    assert found.bits_per_byte == pytest.approx(8) and found.perplexity == pytest.approx(256)
    assert found.tokens == found.bytes == 37
    assert surprise(reader, Letters(), "any text")[1:] == (7, 7), "the first token is not scored"


def test_surprise_by_hand(reader):
    text = "abcdefgh"
    ids = torch.tensor([Letters().encode(text)])
    want = F.cross_entropy(reader(ids)[0, :-1], ids[0, 1:], reduction="sum").item()
    reader.train()
    assert surprise(reader, Letters(), text).nats == pytest.approx(want, rel=1e-5)
    assert reader.training, "left as it was"


def test_a_window_of_ones_own_and_a_mark_before_the_text(reader):
    text = "abcdefgh"
    ids = [0, *Letters().encode(text)]
    nats = 0.0
    for t in range(1, len(ids)):  # windows of 4 that overlap by half: the first scores 3 tokens, each other one 2
        begin = 0 if t < 4 else t - 2 - t % 2
        nats -= reader(torch.tensor([ids[begin:t]]))[0, -1].log_softmax(-1)[ids[t]].item()
    found = surprise(reader, Letters(), text, start=0, window=4)
    assert found.nats == pytest.approx(nats, rel=1e-4) and (found.tokens, found.bytes) == (8, 8)
    assert surprise(reader, Letters(), "ab").tokens == 1 and surprise(reader, Letters(), "ab", window=2).tokens == 1
    assert surprise(reader, Letters(), "a", start=0).tokens == 1


@pytest.mark.parametrize("length", [2, 15, 16, 17, 23, 24, 25, 60])
def test_surprise_scores_each_token_once(reader, length):
    text = "".join(chr(97 + i % 26) for i in range(length))
    ids, nats = Letters().encode(text), 0.0
    done = 1
    while done < length:  # the same windows, one token at a time
        begin = 0 if done == 1 else done - 8
        for t in range(done, min(begin + 16, length)):
            nats -= reader(torch.tensor([ids[begin:t]]))[0, -1].log_softmax(-1)[ids[t]].item()
        done = min(begin + 16, length)
    found = surprise(reader, Letters(), text)
    assert found.tokens == length - 1 and found.nats == pytest.approx(nats, rel=1e-4)


def test_surprise_after_a_text_that_is_read_and_not_scored(reader):
    def asked(text, **options):
        return surprise(reader, Letters(), text, start=0, **options)

    whole, front, rest = asked("one two three"), asked("one "), asked("two three", before="one ")
    assert rest.nats == pytest.approx(whole.nats - front.nats, rel=1e-4)
    assert (rest.tokens, rest.bytes) == (9, 9)
    assert surprise(reader, Letters(), "two three", before="one ").tokens == 9, "without a mark too"
    long = asked("two three" * 5, before="one ")  # more than one window
    assert (long.tokens, long.bytes) == (45, 45)
    with pytest.raises(CourseError, match="fills the window of 16"):
        asked("two", before="one " * 4)


# Certainty


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(right, n, low, high):
    """Newcombe 1998, table I, method 3."""
    found = wilson(right, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high) and found.estimate == right / n
    other = wilson(n - right, n)
    assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert wilson(right, n, 0.99).high > found.high


@pytest.mark.parametrize(("share", "n"), [(0.5, 50), (0.9, 50), (0.97, 100), (0.2, 200)])
def test_wilson_holds_the_truth_as_often_as_it_says(share, n):
    """Not simulated: the chance of each count, added up where the interval holds the share."""
    chances = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    held = sum(p for k, p in enumerate(chances) if wilson(k, n).low <= share <= wilson(k, n).high)
    assert 0.92 <= held <= 0.98


def test_bootstrap_holds_the_truth_about_as_often_as_it_says():
    draw, held, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        found = bootstrap(draw.beta(2, 1, size=60), resamples=300, seed=trial)
        held += found.low <= 2 / 3 <= found.high
    assert 0.90 <= held / trials <= 0.98


def test_bootstrap_is_as_wide_as_the_textbook_says():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    found = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.high - found.estimate == pytest.approx(found.estimate - found.low, rel=0.1)
    assert bootstrap(values) == found != bootstrap(values, seed=1)
    assert bootstrap([1, 1, 1])[:] == (1, 1, 1)


def test_paired_bootstrap_keeps_the_pairs():
    draw = np.random.default_rng(0)
    hard = draw.uniform(size=200)  # what makes an example hard makes it hard for both
    found = paired_bootstrap(hard, hard + 0.01 + 0.001 * draw.normal(size=200))
    assert 0.009 < found.low < found.estimate < found.high < 0.011


def test_mcnemar_and_sign_test_as_published():
    assert sign_test(2, 8) == pytest.approx(112 / 1024)
    assert sign_test(59, 121) == pytest.approx(4.434e-6, rel=1e-3), "statsmodels' example of mcnemar, exact"
    assert sign_test(0, 0) == sign_test(5, 5) == 1.0 and sign_test(0, 6) == 2 / 64
    first = [True] * 2 + [False] * 8 + [True] * 50 + [False] * 9
    second = [False] * 2 + [True] * 8 + [True] * 50 + [False] * 9
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(112 / 1024)
    assert sign_test(3000, 3200) == pytest.approx(2 * NormalDist().cdf(-199 / math.sqrt(6200)), rel=1e-2)


def test_examples_needed_as_published():
    """R's power.prop.test: its own examples, and the tables' 388 for a half against 60 %."""
    assert examples_needed(0.5, 0.75, power=0.9) == 77  # n = 76.7
    assert examples_needed(0.5, 0.6) == examples_needed(0.6, 0.5) == 388  # n = 387.3
    assert examples_needed(0.1, 0.6) == 14  # n = 13.04
    assert examples_needed(0.8, 0.83) > 2500
    assert examples_needed(0.8, 0.83, disagree=0.1) < 1000 < examples_needed(0.8, 0.83, disagree=0.3)
    assert examples_needed(0.0, 1.0, disagree=1.0) == 4


def test_examples_needed_keeps_its_promise():
    """Candidates that differ by 10 points and disagree on 20 %: found in about 80 of 100 tests of that size."""
    n, draw = examples_needed(0.7, 0.8, disagree=0.2), np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        gained, lost, _ = draw.multinomial(n, [0.15, 0.05, 0.8])
        found += 2 * NormalDist().cdf(-abs(gained - lost) / math.sqrt(gained + lost)) < 0.05
    assert 0.76 < found / 1000 < 0.85


def test_wrong_choice_agrees_with_the_sum():
    n, p, q = 50, 0.8, 0.83
    chances = [[math.comb(n, k) * s**k * (1 - s) ** (n - k) for k in range(n + 1)] for s in (p, q)]
    want = sum(a * sum(chances[1][:i]) + 0.5 * a * chances[1][i] for i, a in enumerate(chances[0]))
    assert wrong_choice(p, q, n) == pytest.approx(want, abs=0.03) == wrong_choice(q, p, n)
    assert wrong_choice(p, q, n) == wrong_choice(p, q, n, seed=0) != wrong_choice(p, q, n, seed=1)
    assert wrong_choice(p, p, n) == pytest.approx(0.5, abs=0.03) and wrong_choice(0.0, 1.0, 1) == 0


# Traps


def test_overlap_by_hand():
    training = ["One two three four five, SIX!", "seven eight"]
    assert overlap(["two three four", "three two four", "zero one two three"], training, n=3) == [1.0, 0.0, 0.5]
    assert overlap(["seven eight"], training, n=3) == [1.0], "shorter than n: the whole text"
    assert overlap(["five six seven"], training, n=3) == [0.0], "runs do not cross from one text into the next"
    assert overlap(["!"], ["!"], n=3) == [0.0]
    assert contaminated(["two three four", "three two four", "zero one two three"], training, n=3) == [0, 2]
    assert contaminated(["x y z"], training, n=3, share=0.0) == []
    eight, nine = "a b c d e f g h", "a b c d e f g h z"
    assert overlap([nine], [eight]) == [0.5] and overlap([eight], [nine]) == [1.0], "runs of eight words"
    assert contaminated([nine, "q " + nine], [eight]) == [0], "from half of the runs on"


# One sentence and another with half of its words, in scripts and kinds of text that ASCII's letters cannot hold.
SCRIPTS = {
    "Russian": ("Заказ отправлен сегодня утром курьером", "Заказ отправлен вчера вечером"),
    "Ukrainian": ("Їхній ґанок виходить на площу", "Їхній ґанок стоїть за рогом"),
    "Greek": ("Η παραγγελία στάλθηκε σήμερα", "Η παραγγελία ακυρώθηκε χθες"),
    "Chinese": ("订单今天早上已经发出", "订单昨天被取消"),
    "Japanese": ("注文はカスタマーに届きました", "注文はキャンセルされた"),
    "Korean": ("주문이 오늘 아침 발송되었습니다", "주문이 오늘 취소되었습니다"),
    "Arabic": ("تم شحن الطلب صباح اليوم", "تم إلغاء الطلب أمس"),
    "Hebrew": ("ההזמנה נשלחה הבוקר", "ההזמנה בוטלה אתמול"),
    "Persian": ("سفارش شما امروز ارسال می‌شود", "سفارش شما دیروز لغو شد"),
    "Hindi": ("आपका आदेश आज सुबह भेजा गया", "आपका आदेश कल रद्द हुआ"),
    "Thai": ("คำสั่งซื้อถูกส่งแล้ว", "คำสั่งซื้อยกเลิก"),
    "Khmer": ("ការបញ្ជាទិញត្រូវបានផ្ញើ", "ការដឹកជញ្ជូនយឺត"),
    "Burmese": ("အော်ဒါ ပို့ပြီးပါပြီ", "အော်ဒါ ဖျက်လိုက်ပြီ"),
    "Tamil": ("உங்கள் ஆர்டர் இன்று அனுப்பப்பட்டது", "உங்கள் ஆர்டர் ரத்து"),
    "Georgian": ("შეკვეთა დღეს გაიგზავნა", "შეკვეთა გუშინ გაუქმდა"),
    "Armenian": ("Պատվերն այսօր ուղարկվել է", "Պատվերն երեկ չեղարկվել է"),
    "Amharic": ("ትዕዛዙ ዛሬ ጠዋት ተልኳል", "ትዕዛዙ ትናንት ተሰርዟል"),
    "Vietnamese": ("Đơn hàng đã được gửi sáng nay", "Đơn hàng bị hủy hôm qua"),
    "German": ("Für übermäßige Größe gilt ähnliches", "Für übermäßige Eile gilt das nie"),
    "beyond 16 bits": ("𠀋𠂢𠂤𠆢𠈓", "𠀋𠂢𠌫𠎁"),
    "emoji": ("👍🏽🎉🙂🚀", "👍🏽🎉🙁"),
    "full width": ("ＡＢＣ　１２３　ＸＹＺ", "ＡＢＣ　４５６"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scores_and_traps_read_any_script(script):
    text, other = SCRIPTS[script]
    for shape in "NFC", "NFD":  # é as one sign, or as two
        same = unicodedata.normalize(shape, text)
        assert rouge(same, text, stem=True)["rougeL"] == (1, 1, 1) and token_f1(same, text) == 1
        assert overlap([same], [f"{text}. {other}"], n=2) == [1.0] and contaminated([same], [text]) == [0]
        assert 0 < rouge(same, other)["rouge1"].f1 < 1 and 0 <= token_f1(same, other) < 1
        assert overlap([same], [other], n=99) == [0.0] and contaminated([same], [other]) == []
    assert exact_match(f"{text}。", text) and rouge(text, "entirely other")["rouge1"].f1 == 0


def test_without_spaces_each_letter_is_a_word():
    assert words("订单 OK, 3个") == ["订", "单", "ok", "3", "个"]
    assert words("カメラー") == ["カ", "メ", "ラ", "ー"] and words("สวัสดี") == ["ส", "วั", "ส", "ดี"]
    assert words("e\u0301te\u0301 «été»") == ["été", "été"] and words("नमस्ते, it’s") == ["नमस्ते", "it", "s"]
    assert token_f1("我爱北京", "我爱上海。") == pytest.approx(0.5)


def test_what_is_ascii_scores_as_it_always_did():
    draw = random.Random(1)
    for _ in range(500):
        text = "".join(draw.choices(string.printable, k=draw.randint(0, 40)))
        assert words(text) == re.findall("[a-z0-9]+", text.lower())
        plain = "".join(c for c in text.lower() if c not in string.punctuation)
        assert normalise(text) == " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())
        assert evaluation._pieces(text) == normalise(text).split()


def test_judges_with_known_habits():
    pairs = [("q", "long and good", "bad"), ("q", "good", "long and bad"), ("q", "good", "evil")]
    first = try_judge(lambda question, one, other: 0.9, pairs)
    assert first == (1.0, 0.0, 0.5, 0.5, 0.5)
    second = try_judge(lambda question, one, other: 0.1, pairs)
    assert second == (0.0, 0.0, 0.5, 0.5, 0.5)
    assert try_judge(lambda question, one, other: 0.5, pairs) == (0.5, 0.5, 0.5, 0.5, 0.5), "without any bias"
    fair = try_judge(lambda question, one, other: float("good" in one), pairs)
    assert fair == (0.5, 1.0, 1.0, 1.0, 0.5)
    wordy = try_judge(lambda question, one, other: float(len(one) > len(other)), pairs[:2])
    assert wordy == (0.5, 1.0, 0.5, 0.5, 1.0)
    torn = try_judge(lambda question, one, other: 1.0 if "good" in one else 0.5, pairs)
    assert torn == (0.75, 0.5, 0.75, 1.0, 0.5)
    placed = try_judge(lambda question, one, other: 0.8 + 0.1 * ("good" in one), pairs)
    assert placed == (1.0, 0.0, 0.5, 1.0, 0.5), "by the mean of both orders a bias for the place cancels"
    assert try_judge(lambda *_: 1.0, pairs[2:]).longer is None


def test_options_are_scored_as_if_each_text_stood_alone(reader):
    class Bytes(Letters):
        def encode(self, text):
            return [0] * ("<|endoftext|>" in text) + list(text.replace("<|endoftext|>", "").encode())

    texts, options = ["ab", "abcdef", "c", "xyz"], ["p", "q", "r"]
    for before in ("", "hey "):
        found = evaluation.option_scores(reader, Bytes(), texts, options, before, batch=3)
        for text, row in zip(texts, found, strict=True):
            ids = torch.tensor([[0, *(before + text).encode()]])
            want = reader(ids)[0, -1].log_softmax(-1)[[ord(option) for option in options]]
            torch.testing.assert_close(row, want)
    with pytest.raises(CourseError, match="first tokens"):
        evaluation.option_scores(reader, Bytes(), texts, ["pq", "pr"])
    for empty in (dict(texts=["ab", ""], options=options), dict(texts=texts, options=["p", ""])):
        with pytest.raises(CourseError, match="without a single token"):
            evaluation.option_scores(reader, Bytes(), **empty)


def test_model_judge_gives_a_chance(reader):
    class Chat(Letters):
        def chat(self, messages):
            assert "Answer A: one" in messages[0]["content"] and "Answer B: two" in messages[0]["content"]
            return [1, 2]

    class Short(Letters):
        chat = Chat.chat

        def encode(self, text):
            return [sum(text.encode()) % 256]

    assert 0 < model_judge(reader, Short())("q", "one", "two") < 1


# Bad input


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: exact_match(3, "3"), "not int"),
        (lambda: exact_match("3", []), "nothing is wanted"),
        (lambda: token_f1("3", 3), "nothing is wanted"),
        (lambda: rouge(None, "x"), "not NoneType"),
        (lambda: rouge("x", [None]), "not NoneType"),
        (lambda: mean_rouge([], []), "no examples"),
        (lambda: mean_rouge(["a"], ["a", "b"]), "1 against 2"),
        (lambda: mean_rouge("ab", "ab"), "lists are compared"),
        (lambda: mean_rouge("a", ["b"]), "lists are compared"),
        (lambda: mean_rouge(["a"], "b"), "lists are compared"),
        (lambda: wilson(1, 2, True), "a share from 0 to 1, not True"),
        (lambda: wilson(1, 2, "95 %"), "a share from 0 to 1, not '95 %'"),
        (lambda: wilson(True, 2), "a whole number, at least 0, not True"),
        (lambda: mean_exact_match([], []), "no examples"),
        (lambda: mean_token_f1(["a"], []), "1 against 0"),
        (lambda: wilson(5, 4), "more than all"),
        (lambda: wilson(-1, 4), "at least 0"),
        (lambda: wilson(0, 0), "at least 1"),
        (lambda: wilson(0.5, 1), "whole number"),
        (lambda: wilson(1, 2, 95), "a share from 0 to 1, not 95"),
        (lambda: wilson(1, 2, 1.0), "between 0 and 1"),
        (lambda: bootstrap([]), "at least one number"),
        (lambda: bootstrap([math.nan]), "finite"),
        (lambda: bootstrap(["a"]), "must be numbers"),
        (lambda: bootstrap([[1.0], [2.0]]), "a list"),
        (lambda: bootstrap([1.0], resamples=0), "at least 100"),
        (lambda: bootstrap([1.0], confidence=0.0), "between 0 and 1"),
        (lambda: paired_bootstrap([1, 2], [1]), "2 against 1"),
        (lambda: paired_bootstrap([], []), "no examples"),
        (lambda: mcnemar([1], [1, 0]), "1 against 2"),
        (lambda: mcnemar([0.5], [1]), "right or wrong"),
        (lambda: sign_test(-1, 1), "at least 0"),
        (lambda: examples_needed(0.5, 0.5), "equal candidates"),
        (lambda: examples_needed(0.5, 1.5), "second is a share"),
        (lambda: examples_needed(0.5, 0.6, power=1.0), "power lies between"),
        (lambda: examples_needed(0.5, 0.7, disagree=0.1), "disagree on 0.20 to 0.80"),
        (lambda: examples_needed(0.9, 0.95, disagree=0.5), "disagree on 0.05 to 0.15"),
        (lambda: examples_needed(0.9, 0.95, disagree=0.16), "disagree on 0.05 to 0.15"),
        (lambda: wrong_choice(0.5, 0.6, 0), "at least 1"),
        (lambda: wrong_choice(0.5, 6, 10), "second is a share"),
        (lambda: overlap([], ["a"]), "tests is a list"),
        (lambda: overlap("abc", ["a"]), "tests is a list"),
        (lambda: overlap(["a"], []), "training is a list"),
        (lambda: overlap(["a"], ["a"], n=0), "at least 1"),
        (lambda: contaminated(["a"], ["a"], share=2), "share is a share"),
        (lambda: try_judge(lambda *_: 0.5, []), "pass at least one"),
        (lambda: try_judge(lambda *_: 7, [("q", "a", "b")]), "a verdict is a share"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(CourseError) as caught:
        call()
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "window"), [("", None), ("a", None), ("ab", 1), ("ab", 17), (None, None)])
def test_surprise_refuses(reader, text, window):
    with pytest.raises(CourseError):
        surprise(reader, Letters(), text, window=window)


def test_an_interval_reads_well():
    assert str(evaluation.Interval(0.1, 0.25, 0.5)) == "0.25 (0.10 to 0.50)"
    assert evaluation.Interval(0.1, 0.25, 0.5).whiskers(100) == pytest.approx((15, 25))
    assert evaluation.Interval(0.1, 0.25, 0.5).whiskers() == pytest.approx((0.15, 0.25))
