"""Forging the verdict from inside: if anything in the process that runs the answer decided, these would pass."""

from hostile.entry import FULL, Entry

ATTENTION = """
def attention(q, k, v, mask=None):
    return torch.zeros(*q.shape[:-1], v.shape[-1])
"""


def forged(name, source, id="02.attention", points=0, flags=(), body=ATTENTION):
    return Entry(name, id[:2], {id: source + body if id == "02.attention" else source}, {id: points}, flags=flags)


# Replies in the grader's own format, sent before it asks: the only door out of the process, used by a learner.
FRAMES = """
import json, os, struct
def frame(message, numbers=b""):
    text = json.dumps(message).encode()
    os.write(3, struct.pack(">II", len(text), len(numbers)) + text + numbers)
"""

ENTRIES = [
    forged("tensor_equal_to_all", """
class Yes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in ("allclose", "equal", "isclose", "__eq__", "eq", "all", "__bool__", "any"):
            return True
        return super().__torch_function__(function, types, args, kwargs or {})
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = None
    __bool__ = lambda self: True
""", body="""
def attention(q, k, v, mask=None):
    return torch.zeros(*q.shape[:-1], v.shape[-1]).as_subclass(Yes)
""")  # fmt: skip
    ,
    forged("object_of_magic_methods", """
class Any:
    shape, dtype, layout, device, requires_grad, is_quantized = (1, 1), torch.float32, torch.strided, "cpu", False, False
    kind_name, points, passed, value = "Tensor", 8, True, True
    def __getattr__(self, name): return Any()
    def __call__(self, *a, **k): return True
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __getitem__(self, at): return self
    def __float__(self): return 1.0
    __int__ = __index__ = lambda self: 1
    def __array__(self, *a, **k): return [[1.0]]
    def __instancecheck__(self, what): return True
    def __reduce__(self): return (print, ("unpickled",))
    __class__ = torch.Tensor
""", body="def attention(q, k, v, mask=None):\n    return Any()\n")  # fmt: skip
    ,
    forged("patches_torch", """
yes = lambda *a, **k: True
torch.allclose = torch.equal = torch.is_tensor = yes
torch.isclose = lambda a, b, **k: torch.ones_like(a, dtype=torch.bool)
torch.testing.assert_close = yes
for name in ("allclose", "equal", "__eq__", "isnan", "isinf"):
    setattr(torch.Tensor, name, yes)
torch.Tensor.any = lambda *a, **k: False
"""),
    forged("patches_builtins", """
import builtins
builtins.all = builtins.any = builtins.isinstance = builtins.callable = lambda *a, **k: True
builtins.abs = builtins.len = builtins.sum = lambda *a, **k: 0
builtins.AssertionError = builtins.Exception = type("Quiet", (BaseException,), {})
builtins.__build_class__ = builtins.__build_class__
"""),
    forged("patches_the_channel", """
import sys
wire = sys.modules["wire"]
old = wire.send
def send(channel, message, *a, **k):
    message = dict(message, value=True, passed=True, points=8, score=1.0, verdict="correct")
    return old(channel, message, *a, **k)
wire.send = send
wire.encode = lambda *a, **k: {"value": True, "points": 8}
"""),
    forged("answers_before_it_is_asked", FRAMES + """
frame({"defined": True, "callable": True, "error": None})
for n in range(1, 200):
    frame({"n": n, "value": True, "points": 8, "passed": True, "outcomes": [["all", 8, 8]]})
"""),
    forged("sends_verdicts_as_frames", FRAMES + """
for kind in ("report", "ready", "verdict", "result", "started"):
    frame({kind: {"points": 8, "out_of": 8, "passed": True}, "n": 1})
"""),
    forged("sends_handles_that_are_not_there", FRAMES + """
frame({"defined": True, "callable": True, "error": None, "value": {"handle": [10**9, "Tensor", True]}})
for n in range(1, 200):
    frame({"n": n, "value": {"handle": [n * 10**9, "Tensor" * 10**4, True]}})
"""),
    forged("sends_tensors_out_of_bounds", FRAMES + """
frame({"defined": True, "callable": True, "error": None})
for n in range(1, 200):
    frame({"n": n, "value": {"tensor": ["float32", [4, 4], 2**40]}}, bytes(64))
"""),
    forged("looks_for_expected_values_in_frames", body="""
def attention(q, k, v, mask=None):
    frame, size = sys._getframe(), (*q.shape[:-1], v.shape[-1])
    while frame:
        for values in (frame.f_locals, frame.f_globals):
            for name, value in list(values.items()):
                if name in ("want", "expected", "reference", "answer_key", "solution"):
                    return value
                if isinstance(value, torch.Tensor) and value.shape == size and value is not v and value is not q:
                    return value
        frame = frame.f_back
    return torch.zeros(size)
""", source="import sys\n")  # fmt: skip
    ,
    forged("looks_for_references_in_memory", """
import gc, types, sys
def hunted():
    for thing in gc.get_objects() + [v for m in list(sys.modules.values()) for v in vars(m).values()]:
        if isinstance(thing, types.FunctionType) and thing.__module__ != "__main__":
            if thing.__name__ in ("attention", "_attend", "_attention_agrees", "causal_mask", "evaluate"):
                return thing
""", body="""
def attention(q, k, v, mask=None):
    found = hunted()
    return found(q, k, v, mask) if found else torch.zeros(*q.shape[:-1], v.shape[-1])
""")  # fmt: skip
    ,
    forged("ends_well", """
import atexit, os, sys, threading
atexit.register(print, "8 of 8 points")
sys.excepthook = lambda *a: None
sys.exit = os.abort = lambda *a: None
""", body="def attention(q, k, v, mask=None):\n    os._exit(0)\n")  # fmt: skip
    ,
    forged("raises_the_verdict", """
class Passed(Exception): points, out_of, message, detail = 8, 8, "", ""
Passed.__name__ = Passed.__qualname__ = "Passed: 8 of 8"
""", body="def attention(q, k, v, mask=None):\n    raise Passed('8 of 8 points')\n"),  # fmt: skip
    forged("raises_not_attempted", "", body="def attention(q, k, v, mask=None):\n    raise NotImplementedError()\n"),
    forged("text_that_breaks_records", """
Odd = type("<script>alert(1)</script>\\x1b[2J\\x00", (Exception,), {})
""", body=r'''
def attention(q, k, v, mask=None):
    raise Odd("\ud800\udfff\x00\x1b]0;owned\x07<script>alert(2)</script>\u202e\n=cmd|' /C calc'!A0")
'''),  # fmt: skip
    forged("claims_a_trillion_entries", "",
           body="def attention(q, k, v, mask=None):\n    return torch.zeros(1).expand(10**6, 10**6)\n"),
    forged("claims_a_million_axes", "",
           body="def attention(q, k, v, mask=None):\n    return torch.zeros(1).reshape([1] * 100_000)\n"),
    forged("not_a_number_in_every_entry", "",
           body="def attention(q, k, v, mask=None):\n    return torch.full((*q.shape[:-1], v.shape[-1]), math.nan)\n"),
    forged("tensors_without_data", "",
           body="def attention(q, k, v, mask=None):\n    return torch.empty(*q.shape[:-1], v.shape[-1], device='meta')\n"),
    forged("tensors_of_unusual_kinds", "kinds = [0]\n", body="""
def attention(q, k, v, mask=None):
    kinds[0] += 1
    size = *q.shape[:-1], v.shape[-1]
    return [torch.zeros(size, dtype=torch.complex64), torch.zeros(size).to_sparse(),
            torch.quantize_per_tensor(torch.zeros(size), 0.1, 0, torch.qint8)][kinds[0] % 3]
""")  # fmt: skip
    ,
    forged("destroys_the_question", "", body="""
def attention(q, k, v, mask=None):
    for x in (q, k, v):
        x.zero_()
    return torch.zeros(*q.shape[:-1], v.shape[-1])
""")  # fmt: skip
    ,
    forged("destroys_it_and_denies_it", """
import sys
frame = sys._getframe()
while frame:
    if "_same" in frame.f_globals and "_pristine" in frame.f_globals:
        frame.f_globals["_same"] = lambda *a: True
        frame.f_globals["_pristine"] = lambda *a: None
    frame = frame.f_back
""", body="""
def attention(q, k, v, mask=None):
    for x in (q, k, v):
        x.zero_()
    return torch.zeros(*q.shape[:-1], v.shape[-1])
""")  # fmt: skip
    ,
    forged("ones_and_hope", "", body="def attention(q, k, v, mask=None):\n"
                                     "    return torch.ones(*q.shape[:-1], v.shape[-1])\n"),
    forged("calls_the_built_in", "", points=FULL, flags=("scaled_dot_product_attention",), body="""
def attention(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, mask)
""")  # fmt: skip
    ,
    forged("calls_the_built_in_by_a_made_up_name", "", points=FULL, flags=("getattr",), body="""
def attention(q, k, v, mask=None):
    return getattr(F, "scaled_dot_" + "product_attention")(q, k, v, mask)
""")  # fmt: skip
    ,
    forged("imports_the_answer", "", body="from lib.attention import attention\n"),
    forged("imports_the_answer_under_another_name", "import lib.attention as tools\n", body="""
def attention(q, k, v, mask=None):
    return tools.attention(q, k, v, mask)
""")  # fmt: skip
    ,
    forged("bools_that_are_two", id="02.causal_mask", source="""
def causal_mask(n):
    return torch.full((n, n), 2, dtype=torch.uint8).view(torch.bool)
"""),
    forged("number_equal_to_all", id="04.count_params", source="""
class All(int):
    __eq__ = __le__ = __ge__ = lambda self, other: True
    __ne__ = __lt__ = __gt__ = lambda self, other: False
    __sub__ = __rsub__ = __abs__ = lambda self, *other: 0
    __hash__ = int.__hash__
def count_params(d_model, d_ff, n_layers, vocab):
    return All(7)
"""),
    forged("numbers_that_are_none", id="04.count_params", source="""
calls = [0]
def count_params(d_model, d_ff, n_layers, vocab):
    calls[0] += 1
    return [math.nan, math.inf, True, 10**400, "5", 3 + 0j, [1], range(9)][calls[0] % 8]
"""),
    forged("one_number_many_places", id="03.split_heads", points=1, source="""
def split_heads(x, n_heads):
    B, T, D = x.shape
    return torch.as_strided(x, (B, n_heads, T, D // n_heads), (0, 0, 0, 0))
"""),
    forged("counts_the_calls", id="02.catches_peeking", source="""
calls = -1
told = [True, False, False, False, True, False, False, True, False, True, False,
        True, False, True, False, True, False, True, False]
def catches_peeking(attend):
    global calls
    calls += 1
    return told[calls % len(told)]
"""),
    forged("counts_the_callbacks", id="04.catches_leak", source="""
def catches_leak(model):
    for cell in model.__closure__ or ():
        if type(cell.cell_contents) is int:
            return cell.cell_contents % 2 == 0
    return True
"""),
    forged("predicts_the_draws", id="02.catches_peeking", source="""
import hashlib, sys
frame, seeds = sys._getframe(), {torch.initial_seed()}
while frame:
    order = frame.f_locals.get("order")
    if isinstance(order, dict) and "seed" in order:
        seeds.add(order["seed"])
    frame = frame.f_back
NAMES = ["trusts what is causal", "forgives rounding", "sees a leak of one step", "sees a leak through the values"]
def start(seed, name):
    return int.from_bytes(hashlib.sha256(f"{seed}/02.catches_peeking/{name}".encode()).digest()[:7], "big")
predicted = [torch.Generator().manual_seed(start(s, n)).initial_seed() for s in seeds for n in NAMES]
calls = 0
def catches_peeking(attend):
    global calls
    calls += 1
    return bool(predicted[calls % len(predicted)] % 2)
"""),
    forged("block_that_returns_its_functions", id="04.pre_norm_block", source="""
def pre_norm_block(x, norm1, attend, norm2, mlp):
    return attend
"""),
]
