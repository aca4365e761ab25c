"""What the authors of properties reach for: ask the answer, look at what came back, say what is wrong.

`call` is the only door to the learner's code. It hands over copies of the inputs, turns whatever goes wrong
into `Wrong`, and gives back plain values. A test's `answer` is already behind that door: `answer(q, k, v)` is
enough. Nothing here looks into the function itself, so it may as well run in another process.
"""

import linecache
import math
import re
import traceback

import torch

from lib.exercises.verdict import AnswerError, NotAttempted, Wrong

HERE = __file__.rpartition("properties")[0]
HUGE = 10**8  # entries; a view can claim any number of them without holding memory


class Guarded:
    """The answer as a test sees it: calling it is `call(answer, ...)`."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, *args, **kwargs):
        return call(self.answer, *args, **kwargs)


def call(answer, *args, in_place=False, **kwargs):
    """What the answer returns for these inputs, its tensors detached and on the CPU.

    Raises NotAttempted for the stub; Wrong if the code raises, returns None or changes its inputs.
    in_place: changing the inputs is the exercise, so they are handed over as they are and None is no mistake.
    """
    if isinstance(answer, Guarded):
        answer = answer.answer
    given = (args, kwargs) if in_place else _copy((args, kwargs))
    try:
        got = answer(*given[0], **given[1])
    except Wrong:
        raise  # the answer itself is gone
    except AnswerError as error:
        if error.kind == "NotImplementedError" and not error.text:
            raise NotAttempted from error
        where = f" in line {error.line}" if error.line else ""
        raise Wrong(_raised(error.kind, error.text, where)) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, NotImplementedError) and not str(error):  # torch raises it too, with a text
            raise NotAttempted from error
        raise Wrong(_raised(type(error).__name__, str(error), _where(error))) from error
    if not in_place:
        if got is None:
            raise Wrong("Your code returned None. Did you forget `return`?")
        if not _same(given, (args, kwargs)):
            raise Wrong("Your code changed its input in place. The caller still needs that tensor: build a "
                        "new one instead of writing into it (methods that end in _, and x[...] = ..., write "
                        "in place).")
    try:
        return _plain(got)
    except Wrong:
        raise
    except Exception as error:
        raise Wrong("What your code returned cannot be read: a tensor without data, or of an unusual "
                    "kind.") from error


def call_method(obj, name, *args, **kwargs):
    """`obj.name(*args)` through the same door, for an answer that is a class."""
    try:
        method = getattr(obj, name)
    except Exception as error:
        raise Wrong(f"Your class has no method `{name}` that can be called.") from error
    return call(method, *args, **kwargs)


def require(holds, says, detail=""):
    """Raise Wrong(says) unless it holds."""
    if not holds:
        raise Wrong(says, detail)


def tensor(got):
    """`got`, which must be a tensor."""
    if not isinstance(got, torch.Tensor):
        raise Wrong(f"Your code returned {_kind(got)}; a torch tensor is expected.")
    if got.layout is not torch.strided or got.is_quantized:
        raise Wrong("Your code returned a sparse or quantised tensor; an ordinary one is expected.")
    return got


def shape(got, want, what="the result"):
    """`got`, which must be a tensor of shape `want`."""
    if tuple(tensor(got).shape) != tuple(want):
        raise Wrong(f"The shape of {what} is {_size(got.shape)}; it should be {_size(want)}.")
    return got


def dtype(got, want, what="the result"):
    """`got`, which must be a tensor of that type: bool exactly; any width of float or of integer will do."""
    if _family(tensor(got).dtype) != _family(want):
        raise Wrong(f"The dtype of {what} is {_name(got.dtype)}; it should be {_name(want)}.")
    return got


def finite(got, what="the result"):
    """`got`, which must hold no NaN and no infinity."""
    if tensor(got).isnan().any():
        raise Wrong(f"There is NaN in {what}. That usually means 0/0, inf - inf, the log of a negative "
                    "number, or a softmax over a row in which everything is -inf.")
    if got.isinf().any():
        raise Wrong(f"There is an infinity in {what}. That usually means an overflow in exp, or a division "
                    "by zero.")
    return got


def number(got):
    """`got` as a Python number: an int, a float, or a tensor or array that holds exactly one."""
    if not isinstance(got, bool | str | bytes | list | tuple | dict | set):
        try:
            value = got.item() if hasattr(got, "item") else got
            if isinstance(value, int | float) and not isinstance(value, bool):
                float(value)  # too large a whole number has none
                return value
        except Exception:
            pass
    raise Wrong(f"Your code returned {_kind(got)}; one number is expected.")


def truth(got):
    """`got` as a bool: True, False, or a tensor or array that holds exactly one of them."""
    try:
        value = got.item() if hasattr(got, "item") else got
    except Exception:
        value = None
    if not isinstance(value, bool):
        raise Wrong(f"Your code returned {_kind(got)}; True or False is expected.")
    return value


def verdicts(ask, rng, cases):
    """Raise Wrong unless a learner's test tells every case right, each time it is asked.

    cases: (what is judged, True or False, what the other verdict means), the likeliest mistake first. They are asked
    in an order of our own, ten times or more, so that a test which counts its calls gets nowhere.
    """
    sides = [[i for i, (_, want, _) in enumerate(cases) if want is side] for side in (True, False)]
    order = list(range(len(cases)))
    while len(order) < 10:
        side = sides[integer(rng, 0, 1)]
        order.append(side[integer(rng, 0, len(side) - 1)])
    told = [[] for _ in cases]
    for at in torch.randperm(len(order), generator=rng).tolist():
        told[order[at]].append(truth(ask(cases[order[at]][0])))
    for (_, want, says), said in zip(cases, told, strict=True):
        require(all(verdict is want for verdict in said), says)


def differs(got, want, atol=1e-5, rtol=1e-5):
    """Where two tensors of one shape differ by more than rounding; infinities and NaN equal themselves."""
    if got.is_complex():
        return torch.ones(got.shape, dtype=torch.bool)
    want = want.to(torch.float64)
    return ~torch.isclose(got.to(torch.float64), want, atol=atol, rtol=rtol, equal_nan=True)


def close(got, want, says, atol=1e-5, rtol=1e-5):
    """Raise Wrong unless `got` has the shape, the kind and, within the tolerance, the values of `want`.

    want: a tensor, or a Python number (then any single number will do). says: what differing values mean.
    """
    if isinstance(want, int | float):
        got = number(got)
        if math.isnan(got) or not math.isclose(got, want, abs_tol=atol, rel_tol=rtol):
            raise Wrong(says, f"expected {want:.6g}, got {got:.6g}")
        return
    shape(got, want.shape)
    dtype(got, want.dtype)
    if (not want.isnan().any() and got.isnan().any()) or (not want.isinf().any() and got.isinf().any()):
        finite(got)
    if got.dtype == want.dtype and torch.equal(got, want):
        return
    off = differs(got, want, atol, rtol)
    if off.any():
        at = off.nonzero()[0].tolist()
        place = "[" + ", ".join(map(str, at)) + "]" if at else "its only entry"
        raise Wrong(says, f"{int(off.sum())} of {off.numel()} entries differ; the first, at {place}: "
                          f"expected {want[tuple(at)].item():.4g}, got {got[tuple(at)].item():.4g}")


def normal(rng, *size):
    """Standard normal float32 numbers of that shape."""
    return torch.randn(*size, generator=rng)


def integer(rng, low, high):
    """One whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=rng))


def _raised(kind, text, where):
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text.strip().split("\n")[0])
    text = text if len(text) <= 160 else text[:157] + "..."
    return f"Your code raised {kind}{where}" + (f": {text}" if text else ".")


def _where(error):
    """The line of the learner's own source in which the error arose, or was passed on to library code."""
    frames = list(traceback.walk_tb(error.__traceback__))[1:]  # the first is `call`
    while frames and frames[0][0].f_code.co_filename.startswith(HERE):  # a bench
        del frames[0]
    if not frames:
        return ""
    file = frames[0][0].f_code.co_filename
    line = [number for frame, number in frames if frame.f_code.co_filename == file][-1]
    text = linecache.getline(file, line).strip()
    return f" in line {line}" + (f" (`{text}`)" if text else "")


def _copy(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, tuple | list):
        return type(value)(_copy(v) for v in value)
    if isinstance(value, dict):
        return {key: _copy(v) for key, v in value.items()}
    return value


def _same(a, b):
    if isinstance(a, torch.Tensor):
        alike = a.shape == b.shape and a.dtype == b.dtype
        return alike and (torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return True


def _plain(value):
    if isinstance(value, torch.Tensor) and value.numel() > HUGE:  # here, before any property goes through its entries
        raise Wrong(f"Your code returned a tensor of shape {_size(value.shape)}: far larger than any right answer.")
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().as_subclass(torch.Tensor)
    if type(value) in (tuple, list):
        return type(value)(_plain(v) for v in value)
    if type(value) is dict:
        return {key: _plain(v) for key, v in value.items()}
    return value


def _kind(value):
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {_size(value.shape)}"
    name = getattr(value, "kind_name", type(value).__name__)  # an object that stayed in a sandbox tells its type
    known = {"ndarray": "a numpy array", "list": "a list", "tuple": "a tuple", "dict": "a dictionary",
             "str": "a string", "int": "a whole number", "float": "a number", "bool": "True or False"}
    return known.get(name, f"something of type {name}")


def _size(size):
    if len(size) > 16:
        return f"of {len(size)} axes"
    return "(" + ", ".join(str(int(n)) for n in size) + ("," if len(size) == 1 else "") + ")"


def _name(kind):
    return str(kind).removeprefix("torch.")


def _family(kind):
    if kind is torch.bool:
        return "bool"
    return "float" if kind.is_floating_point else "complex" if kind.is_complex else "integer"
