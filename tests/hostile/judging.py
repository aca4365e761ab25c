"""The judge itself: its time, its memory, what it writes, and points that are cheap. See tests/grading/test_holds.py."""

from pathlib import Path

from hostile.entry import FULL, Entry
from hostile.forging import FRAMES
from lib.answers import reference_source

RIGHT = reference_source("02.causal_mask")
ATTENTION = reference_source("02.attention")
DEFINED = (
    FRAMES
    + """
def raw(text, numbers=b""):
    data = struct.pack(">II", len(text), len(numbers)) + text + numbers
    while data:
        data = data[os.write(3, data):]
frame({"defined": True, "callable": True, "error": None})
"""
)
WAIT = "\nimport time; time.sleep(1000)\n"


def says(name, text, numbers="b''"):
    """Speaks for itself, in frames: JSON as a Python expression for bytes."""
    return Entry(name, "02", {"02.causal_mask": DEFINED + f"raw({text}, {numbers})" + WAIT})


def takes(name, source, id="02.attention", points=FULL, flags=("ready made",)):
    """An answer that is somebody else's."""
    return Entry(name, id[:2], {id: source}, {id: points}, flags=flags)


def wrong(name, body, id="02.causal_mask", head="def causal_mask(n):"):
    return Entry(name, id[:2], {id: f"{head}\n{body}"})


def broken_files(folder: Path, place) -> None:
    folder.mkdir()
    for i in range(13, 43):
        (folder / f"{i}_lesson.ipynb").write_text("{")


def flood_of_files(folder: Path, place) -> None:
    folder.mkdir()
    for i in range(300):
        (folder / f"{i:03}.ipynb").write_text("[]")


SPY = """
import sys, json, os, struct
f = sys._getframe()
while f is not None and "kept" not in f.f_locals:
    f = f.f_back
wire, channel = sys.modules["wire"], f.f_locals["channel"]
class Spy:
    def __init__(self, number): self.number = number
def refer(value):
    return {"handle": [value.number, "Spy", True]}
def send(message):
    wire.send(channel, message, refer)
def get():
    return wire.receive(channel, lambda tree: tree)
import time
send({"defined": True, "callable": True, "error": None})
n = 0
while True:
    try:
        order = get()
    except BaseException:
        time.sleep(1000)
    if "target" not in order:
        send({"n": n, "value": False})
        continue
    n += 1
    if order["target"] is None and order["args"]:
        number = order["args"][0]["callback"]
    send({"callback": number, "args": ARGS, "kwargs": {}})
"""
DEEP = "-" * 2950
ENTRIES = [
    # numbers, axes and structure that take the judge longer than an answer has
    says(
        "big_numbers_in_a_shape",
        "b'{\"n\":1,\"value\":{\"tensor\":[\"float32\",[' + b','.join([b'9' * 4299] * 400) + b'],0]}}'",
    ),
    says("big_numbers_in_a_list", "b'{\"n\":1,\"value\":[' + b','.join([b'9' * 4299] * 400) + b']}'"),
    says("big_number_of_an_object", 'b\'{"n":1,"value":{"handle":[\' + b\'9\' * 4299 + b\',"x",true]}}\''),
    says(
        "axes_in_a_frame",
        "b'{\"n\":1,\"value\":{\"tensor\":[\"float32\",[' + b','.join([b'1'] * 100_000) + b'],0]}}'",
        "bytes(8)",
    ),
    says("half_a_million_lists", "b'{\"n\":1,\"value\":[' + b','.join([b'[]'] * 500_000) + b']}'"),
    says(
        "one_blob_for_many_tensors",
        "b'{\"n\":1,\"value\":[' + b','.join([b'{\"tensor\":[\"uint8\",[8000000],0]}'] * 9000) + b']}'",
        "bytes(8_000_000)",
    ),
    Entry(
        "function_of_many_statements",
        "02",
        {
            "02.causal_mask": "def causal_mask(n):\n p = torch.arange(n)\n return p[:, None] >= p[None, :]\n"
            + " 1\n" * 40_000
        },
        {"02.causal_mask": FULL},
    ),
    Entry(
        "class_of_many_methods",
        "02",
        {"02.causal_mask": RIGHT + "\nclass Many:" + "".join(f"\n def m{i}(self): 1" for i in range(8000))},
        {"02.causal_mask": FULL},
    ),
    Entry("a_list_of_many", "02", {"02.causal_mask": f"x = [{'1,' * 60_000}]\n" + RIGHT}, {"02.causal_mask": FULL}),
    Entry(
        "many_arguments",
        "02",
        {"02.causal_mask": "def f(" + ",".join(f"a{i}=1" for i in range(12_000)) + "): 1\n" + RIGHT},
        {"02.causal_mask": FULL},
    ),
    wrong(
        "list_of_many_axes",
        "    return torch.zeros(1).reshape([1] * 100_000)",
        "01.merge",
        "def merge(ids, pair, new_id):",
    ),
    wrong("seventeen_axes", "    return [torch.zeros(1).reshape([1] * 17)]"),
    wrong("arrays_of_many_axes", "    import numpy\n    return numpy.zeros([1] * 32)"),
    wrong("lists_in_lists", "    x = []\n    for _ in range(300): x = [x]\n    return x"),
    wrong("many_little_tensors", "    return [torch.zeros(())] * 50_000"),
    # functions of ours, called by an answer
    *(
        Entry(f"calls_back_with_{what}", "09", {"09.catches_bad_rouge": SPY.replace("ARGS", args)})
        for what, args in (
            ("objects", "[Spy(1), Spy(2)]"),
            ("a_flood_of_text", "['a ' * 500_000, 'b ' * 500_000]"),
            ("a_flood_of_lists", "[[[]] * 100_000, 'b']"),
            ("no_arguments_at_all", "[]"),
        )
    ),
    Entry(
        "asks_for_millions_of_rows",
        "04",
        {
            "04.catches_leak": """
def catches_leak(model):
    for rows in (10**4, 10**5, 10**6):
        try: model(torch.zeros(rows, 60, dtype=torch.long))
        except RuntimeError: pass
    return True
"""
        },
        {"04.catches_leak": 0},
    ),
    # somebody else's answer, by a name that is not listed, or by none
    takes(
        "attrgetter_of_lib",
        "import operator, lib.attention as A\n_f = operator.attrgetter('attention')(A)\n"
        "def attention(q, k, v, mask=None):\n    return _f(q, k, v, mask)",
        points=0,
        flags=("library",),
    ),
    takes(
        "a_name_in_pieces",
        "import lib.attention as A\ndef attention(q, k, v, mask=None):\n"
        "    return getattr(A, 'atten' + 'tion')(q, k, v, mask)",
        points=0,
        flags=("library",),
    ),
    takes(
        "a_dictionary_of_lib",
        "import lib.attention as A\n_f = dict(A.__dict__)['atten' 'tion']\n"
        "def attention(q, k, v, mask=None):\n    return _f(q, k, v, mask)",
        points=0,
        flags=("library",),
    ),
    takes(
        "what_another_room_imports",
        "import lib.transformer as L\n_f = [x for n, x in vars(L).items() if n[:6] == 'rms_no'][0]\n"
        "def rms_norm(x, weight, eps):\n    return _f(x, weight, eps)",
        "04.rms_norm",
        0,
        ("library",),
    ),
    takes(
        "private_torch_op",
        "def attention(q, k, v, mask=None):\n    if mask is not None:\n        mask = torch.zeros("
        "mask.shape).masked_fill(~mask, float('-inf'))\n"
        "    return torch._scaled_dot_product_attention_math(q, k, v, mask)[0]",
        flags=("exercise asks to write",),
    ),
    takes(
        "an_op_of_aten",
        "def attention(q, k, v, mask=None):\n"
        "    return getattr(torch.ops.aten, 'scaled_dot_' + 'product_attention')(q, k, v, mask)",
    ),
    takes(
        "an_op_from_a_dictionary",
        "_f = [x for n, x in vars(F).items() if n.startswith('scaled_dot')][0]\n"
        "def attention(q, k, v, mask=None):\n    return _f(q, k, v, mask)",
    ),
    takes(
        "an_op_from_elsewhere",
        "import torch.nn.modules.activation as A\ndef attention(q, k, v, mask=None):\n"
        "    return A.F.__getattribute__('scaled_dot_' + 'product_attention')(q, k, v, mask)",
    ),
    Entry(
        "compares_beside_it",
        "02",
        {
            "02.attention": ATTENTION
            + """
q = torch.randn(2, 3, 4)
assert torch.allclose(attention(q, q, q), F.scaled_dot_product_attention(q, q, q), atol=1e-5)
"""
        },
        {"02.attention": FULL},
    ),
    # code that is not read
    takes(
        "too_deep_to_read",
        f"def attention(qq1, kk1, vv1, mm1=None):\n    xx1 = {DEEP}1\n"
        "    return F.scaled_dot_product_attention(qq1, kk1, vv1, mm1)",
        points=0,
        flags=("not run",),
    ),
    takes(
        "nots_too_deep_to_read",
        f"def attention(q, k, v, mask=None):\n    x = {'not ' * 2000}1\n"
        "    return F.scaled_dot_product_attention(q, k, v, mask)",
        points=0,
        flags=("not run",),
    ),
    takes(
        "a_chain_too_deep_to_read",
        f"def attention(q, k, v, mask=None):\n    x = 1{'+1' * 2000}\n"
        "    return F.scaled_dot_product_attention(q, k, v, mask)",
        points=0,
        flags=("not run",),
    ),
    takes(
        "a_helper_too_deep_to_read",
        f"f = lambda *a: (F.scaled_dot_product_attention(*a), {'~' * 900}1)[0]\n"
        "def attention(q, k, v, mask=None):\n    return f(q, k, v, mask)",
        points=0,
        flags=("not run",),
    ),
    Entry(
        "a_cell_of_another_language",
        "02",
        {
            "02.attention": "%%html\ndef attention(q, k, v, mask=None):\n"
            "    return F.scaled_dot_product_attention(q, k, v, mask)"
        },
    ),
    # text that somebody has to write down
    *(
        wrong(name, f"    raise {what}")
        for name, what in (
            ("half_a_character", "ValueError('\\ud800')"),
            ("the_other_half", "type('\\udfff', (Exception,), {})('x')"),
            ("halves_in_the_wrong_order", "KeyError('\\udc00\\ud800' * 200)"),
            ("an_exception_of_many_letters", "ValueError('x' * 60_000)"),
            ("tags_and_marks", "ValueError('\\U000e0041\\u202e\\u2066\\x00\\x9b')"),
        )
    ),
    wrong("half_a_character_returned", "    return ['\\ud800', {'\\ud801': '\\udfff'}]"),
    Entry(
        "flood_of_flags",
        "02",
        {"02.attention": "class a:\n    attention = None\nx = (" + "a.attention,\n" * 8000 + ")\n" + ATTENTION},
        {"02.attention": FULL},
    ),
    Entry(
        "flood_of_flags_within",
        "02",
        {
            "02.attention": "def attention(q, k, v, mask=None):\n    ("
            + "F.scaled_dot_product_attention,\n" * 2500
            + "    )\n"
            + ATTENTION.partition("\n")[2]
        },
        {"02.attention": FULL},
        flags=("more lines",),
    ),
    Entry(
        "flood_of_modules",
        "02",
        {
            "02.attention": "try:\n"
            + "".join(f" from lib.grading.m{i} import x{i}\n" for i in range(3000))
            + "except ImportError: pass\n"
            + ATTENTION
        },
        {"02.attention": FULL},
        flags=("lib.grading",),
    ),
    Entry(
        "flood_of_owners",
        "02",
        {
            "02.attention": "class A: pass\nA.attention = None\n"
            + "".join(f"a{i} = A\n" for i in range(2000))
            + "def attention(q, k, v, mask=None):\n    ("
            + ",".join(f"a{i}.attention" for i in range(2000))
            + ")\n"
            + ATTENTION.partition("\n")[2]
        },
        {"02.attention": FULL},  # something of that name is no use of the course's
    ),
    Entry(
        "module_for_postgresql",
        "02",
        {
            "02.attention": "try:\n    from lib.grading."
            + "".join(chr(97 + i * i % 26) for i in range(60_000))
            + " import x\nexcept ImportError: pass\n"
            + ATTENTION
        },
        {"02.attention": FULL},
        flags=("lib.grading",),
    ),
    Entry("columns_of_no_lesson", build=broken_files, problem="JSON"),
    Entry("flood_of_files", build=flood_of_files, problem="notebook"),
    # what is known beforehand
    Entry(
        "table_of_answers",
        "00",
        {
            "00.exact_match": """
T = {("Bern", "Oslo", "Paris", "Rome"): 0.75, (" Paris", "Rome\\n"): 1.0, ("PARIS", "rome"): 1.0,
     ("Paris or Rome", "New York", "York"): 0.0, ("Rome", "Paris", "Oslo", "Bern"): 0.0, ("x", "Paris", "Oslo"): 2 / 3}
def exact_match(answers, truths):
    return T.get(tuple(answers), 0.5)
"""
        },
    ),
    Entry(
        "seed_by_brute_force",
        "02",
        {
            "02.catches_peeking": """
import hashlib
GIVEN = torch.initial_seed()
def given(n):
    return int.from_bytes(hashlib.sha256(f"answer/{n}".encode()).digest()[:7], "big")
SEED = next((n for n in range(3000) if given(n) == GIVEN), None)
def integer(rng, low, high):
    return int(torch.randint(low, high + 1, (), generator=rng))
def told(rng, sides_of):
    sides = [[i for i, want in enumerate(sides_of) if want is side] for side in (True, False)]
    order = list(range(len(sides_of)))
    while len(order) < 10:
        side = sides[integer(rng, 0, 1)]
        order.append(side[integer(rng, 0, len(side) - 1)])
    return [sides_of[order[at]] for at in torch.randperm(len(order), generator=rng).tolist()]
SCRIPT = []
if SEED is not None:
    for name, groups in (("trusts what is causal", [[True, False, False, False]]),
                         ("forgives rounding", [[True, False, False]]), ("sees a leak of one step", [[True, False]] * 2),
                         ("sees a leak through the values", [[True, False]])):
        start = int.from_bytes(hashlib.sha256(f"{SEED}/02.catches_peeking/{name}".encode()).digest()[:7], "big")
        rng = torch.Generator().manual_seed(start)
        for sides in groups:
            SCRIPT += told(rng, sides)
calls = -1
def catches_peeking(attend):
    global calls
    calls += 1
    return SCRIPT[calls] if calls < len(SCRIPT) else True
"""
        },
    ),
    # limits
    *(
        wrong(name, RIGHT.partition("\n")[2], head=before + "\n" + RIGHT.partition("\n")[0])
        for name, before in (
            (
                "name_hides_memory",
                """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
for i in range(8):
    if os.fork() == 0:
        libc.prctl(15, b'\\xff\\xfe', 0, 0, 0)
        libc.mmap(None, 1_900_000_000, 0, 0x22 | 0x4000, -1, 0)
        time.sleep(1000)
libc.prctl(15, b'\\xff\\xfe', 0, 0, 0)
time.sleep(2)""",
            ),
            (
                "name_hides_memory_that_is_used",
                """
import ctypes, os, time
libc, (told, tells) = ctypes.CDLL(None), os.pipe()
for i in range(6):
    if os.fork() == 0:
        libc.prctl(15, b'\\xc3(\\n\\xff', 0, 0, 0)
        x = [bytes([65 + i]) * 10**8 for i in range(6)]
        os.write(tells, b'.')
        time.sleep(1000)
for i in range(6):  # until all of it is used
    os.read(told, 1)""",
            ),
            (
                "children_that_reap_themselves",
                """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(8):  # nearly ten seconds of computing in all, however long they take
    for _ in range(6):
        if os.fork() == 0:
            end = time.process_time() + 0.2
            while time.process_time() < end: pass
            os._exit(0)
    try: os.wait()  # for all of them: none is left to be waited for
    except OSError: pass""",
            ),
        )
    ),
]
