"""The learner's own code in lib's place: a passed answer is kept, and later lessons run on it.

    use("02.attention")    in the notebook, once its check gives full marks
    use_lib()              lib's code again

An answer is kept as source, in COURSE_HOME/own. When a later lesson starts, `begin` puts what is kept to the exercise's
check once more, runs a small model on it beside lib's own, gradients included, and only then lets it stand in lib's
place. The files of the model know nothing of this: SEAMS lists each place and how an answer is fitted to it, and with
nothing kept, nothing is touched. It is the learner's code in the learner's kernel, so it runs unguarded but for this:
if it raises, lib's code takes over.
"""

import contextlib
import difflib
import functools
import io
import linecache
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lib.attention
import lib.transformer
from lib.attention import Context, recorded
from lib.errors import CourseError
from lib.exercises.exercise import PRELUDE, Exercise, exercise
from lib.exercises.result import evaluate
from lib.exercises.standing import standing_alone as text_alone
from lib.generation import KVCache
from lib.kernels.door import with_kernel
from lib.lesson.files import write_atomic
from lib.lesson.kept import NAMES, kept, place
from lib.lesson.predictions import own_folder
from lib.transformer import Config, Transformer

Cells = Iterable[str | tuple[str, str]]


def _brief(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")


class Own:
    """A learner's function that may fail: then it says so once, and from there on lib's is called instead."""

    def __init__(self, id: str, function: Callable[..., Any]):
        self.id, self.function, self.failed = id, function, ""

    def __call__(self, shape: tuple[int, ...], otherwise: Callable[[], Any], *args: Any) -> Any:
        """function(*args), a tensor of that shape; what `otherwise` gives if it fails or has failed before."""
        if not self.failed:
            try:
                got = self.function(*args)
                if not isinstance(got, Tensor) or got.shape != shape:
                    what = f"shape {tuple(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
                    raise TypeError(f"it returned {what}, not a tensor of shape {tuple(shape)}")
                return got
            except _Passed as passed:
                raise passed.error from None
            except Exception as error:
                self.failed = _brief(error)
                print(f"(Your own {self.id} failed, {self.failed}. lib's code runs from here on.)")
        return otherwise()


class _Passed(BaseException):
    """An error in lib's code that a learner's function had called: not the learner's to answer for."""

    def __init__(self, error: Exception):
        self.error = error


def _passing(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        try:
            return function(x)
        except Exception as error:
            raise _Passed(error) from error

    return call


class _Recomputed(torch.autograd.Function):
    """attend(q, k, v, mask), computed again on the way back: like a fused kernel, it keeps no (T, S) for that."""

    @staticmethod
    def forward(ctx, attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        ctx.attend = attend
        ctx.save_for_backward(q, k, v, mask)
        return attend(q, k, v, mask)  # (…, T, Dv)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        *inputs, mask = ctx.saved_tensors
        inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            out = ctx.attend(*inputs, mask)  # (…, T, Dv)
        if not out.requires_grad:
            raise RuntimeError("no gradient passes through your own attention")
        return None, *torch.autograd.grad(out, inputs, gradient), None


# Each of the following fits an answer to one place: ours is what stands there, and what is returned has its signature.


def _mask(own: Own, ours: Callable) -> Callable:
    def causal_mask(T: int, S: int | None = None, window: int | None = None, device=None) -> Tensor:
        S = T if S is None else S
        mask = own((S, S), lambda: ours(S), S)[S - T :].to(device)  # (T, S)
        return mask if window is None else mask & ours(T, S, window, device)

    return causal_mask


def _grouped_by_mask(own: Own, ours: Callable) -> Callable:
    @functools.wraps(ours)
    def grouped_attention(q: Tensor, k: Tensor, v: Tensor, context: Context, *more) -> Tensor:
        if context.causal:
            context = Context(mask=lib.attention.causal_mask(q.size(-2), device=q.device))  # (T, T)
        return ours(q, k, v, context, *more)

    return grouped_attention


def _attend(own: Own, otherwise: Callable, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The answer on q (…, T, Dh), k and v (…, S, ·). It was asked for masks (T, S); others are taken apart."""
    if mask is not None and mask.dim() > 2:
        if mask.size(0) == 1:
            return _attend(own, otherwise, q, k, v, mask[0])
        mask = mask.expand(len(q), *mask.shape[-q.dim() + 1 :])  # one for each of q's first axis
        rows = [_attend(own, otherwise, *row) for row in zip(q, k, v, mask, strict=True)]
        return torch.stack(rows)  # (…, T, Dv)
    shape = (*q.shape[:-1], v.size(-1))
    return own(shape, lambda: otherwise(q, k, v, mask), q, k, v, mask).to(q.dtype)  # (…, T, Dv)


def _attention(own: Own, ours: Callable) -> Callable:
    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return _attend(own, ours, q, k, v, mask)  # (…, T, Dv)

    return attention


def _weights(own: Own, ours: Callable) -> Callable:
    """Who gets what, asked for by values that each say only which key they are."""

    def otherwise(q: Tensor, k: Tensor, names: Tensor, mask: Tensor | None) -> Tensor:
        return ours(q, k, mask)

    def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        names = torch.eye(k.size(-2), dtype=q.dtype, device=q.device).expand(*k.shape[:-2], -1, -1)  # (…, S, S)
        return _Recomputed.apply(lambda *given: _attend(own, otherwise, *given), q, k, names, mask)  # (…, T, S)

    return attention_weights


def _grouped_by_attention(own: Own, ours: Callable) -> Callable:
    """A kernel of the learner's; where weights are needed, the plain form asks `attention_weights` above."""

    def otherwise(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return ours(q, k, v, Context(mask=mask))

    def grouped_attention(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout=0.0, watchers=()):
        if dropout or watchers:
            return NotImplemented
        mask = lib.attention.causal_mask(q.size(-2), device=q.device) if context.causal else context.mask
        if k.size(-3) < q.size(-3):
            k, v = (x.repeat_interleave(q.size(-3) // x.size(-3), dim=-3) for x in (k, v))  # (B, H, S, Dh) each
        return _Recomputed.apply(lambda *given: _attend(own, otherwise, *given), q, k, v, mask)  # (B, H, T, Dh)

    return with_kernel(grouped_attention)(ours.plain)


def _split(own: Own, ours: Callable) -> Callable:
    def split_heads(x: Tensor, n_head: int) -> Tensor:
        if x.dim() != 3:
            return ours(x, n_head)
        B, T, D = x.shape
        return own((B, n_head, T, D // n_head), lambda: ours(x, n_head), x, n_head)  # (B, H, T, Dh)

    return split_heads


def _merge(own: Own, ours: Callable) -> Callable:
    def merge_heads(x: Tensor) -> Tensor:
        if x.dim() != 4:
            return ours(x)
        B, H, T, Dh = x.shape
        return own((B, T, H * Dh), lambda: ours(x), x)  # (B, T, H·Dh)

    return merge_heads


def _block(own: Own, ours: Callable) -> Callable:
    def forward(self, x: Tensor, context: Context, cache=None) -> Tensor:
        length = getattr(cache, "length", None)

        def attend(x: Tensor) -> Tensor:
            return self.dropout(self.attention(x, context, cache))

        def think(x: Tensor) -> Tensor:
            return self.dropout(self.mlp(x))

        def otherwise() -> Tensor:
            if length is not None:
                cache.length = length  # forget what a failed try has put there
            return ours(self, x, context, cache)

        parts = map(_passing, (self.norm1, attend, self.norm2, think))
        return own(tuple(x.shape), otherwise, x, *parts)  # (B, T, D)

    return forward


@dataclass(frozen=True)
class Seam:
    """Where an answer can stand: (owner, attribute, how it is fitted) of each place."""

    places: tuple[tuple[Any, str, Callable[[Own, Callable], Callable]], ...]


SEAMS = {
    "02.causal_mask": Seam((
        (lib.attention, "causal_mask", _mask),
        (lib.attention, "grouped_attention", _grouped_by_mask),
    )),
    "02.attention": Seam((
        (lib.attention, "attention", _attention),
        (lib.attention, "attention_weights", _weights),
        (lib.attention, "grouped_attention", _grouped_by_attention),
    )),
    "03.split_heads": Seam(((lib.attention, "split_heads", _split),)),
    "03.merge_heads": Seam(((lib.attention, "merge_heads", _merge),)),
    "04.pre_norm_block": Seam(((lib.transformer.Block, "forward", _block),)),
}  # fmt: skip


# In the notebook


def use(id: str) -> None:
    """Let later lessons run on your answer to an exercise, once its check gives full marks. Never raises."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        print(f"`use` is for a notebook; at a command line write: course use {id} NOTEBOOK")
        return
    try:
        keep(id, shell.user_ns["In"])
        print(f"{id}: lessons after {id[:2]} run on your code from now on. Back to lib's: use_lib()")
    except CourseError as problem:
        print(problem)


def use_lib(*ids: str) -> None:
    """Go back to lib's code, for these exercises or for all: here, and in lessons to come. Never raises."""
    try:
        gone = drop(ids)
    except CourseError as problem:
        print(problem)
        return
    print(f"lib's code runs again in place of your own {', '.join(gone)}." if gone else "None of your own was in use.")


# What is kept


def keep(id: str, cells: Cells) -> Path:
    """Switch an answer on, found among a notebook's cells as the grader finds it; returns the file it is kept in.

    cells: the source of each, or (source, grade_id).

    Raises CourseError if there is no place for it in lib, no answer, or the answer does not pass.
    """
    found = seam(id)
    source = standing_alone(cells, found)
    problem = tried(found, source)[1]
    if problem:
        raise CourseError(f"{id} is not switched on: {problem}")
    told = f"# Your answer to {id}, which later lessons run on. `course use --off {id}` ends that.\n"
    try:
        write_atomic(place(id), told + source)
    except OSError as error:
        raise CourseError(
            f"{id} is not switched on: {own_folder()}: {error.strerror}; set COURSE_HOME to your own folder"
        ) from None
    return place(id)


def drop(ids: Iterable[str] = ()) -> list[str]:
    """Switch answers off (all if none is named), here and in lessons to come; returns which were on."""
    ids = list(ids)
    for id in ids:
        seam(id)
    gone = [id for id in kept() if id in ids or not ids]
    for id in gone:
        try:
            place(id).unlink()
        except OSError as error:
            raise CourseError(f"{place(id)} cannot be removed: {error.strerror}; delete it by hand") from None
    still = [own for own in standing() if own.id in kept()]
    _restore()
    for own in still:
        _install(own)
    return gone


def seam(id: str) -> Exercise:
    """The exercise whose answer can stand in lib's place; CourseError for any other id."""
    if id not in SEAMS:
        near = difflib.get_close_matches(id, SEAMS, n=1)
        guess = f". Did you mean {near[0]!r}?" if near else ""
        raise CourseError(f"no answer to {id!r} can run in lib's place; these can: {', '.join(SEAMS)}{guess}")
    return exercise(id)


def standing_alone(cells: Cells, exercise: Exercise) -> str:
    """The answer that stood when its check ran, as a program by itself. Raises CourseError if there is none."""
    source = text_alone([(cell, "") if isinstance(cell, str) else cell for cell in cells], exercise)
    if not source:
        raise CourseError(f"no answer to {exercise.id} found; write it, run its cell and its check, then try again")
    return source


# What runs


# A stack: whose it is, owner, attribute, what stood there, what stands there now.
_replaced: list[tuple[Own, Any, str, Any, Any]] = []


def standing() -> list[Own]:
    """The learner's functions that stand in lib's place in this process."""
    return list(dict.fromkeys(own for own, *_ in _replaced))


def begin(lesson: str) -> None:
    """Let what is kept of earlier lessons stand in lib's place, and print whose code runs, if it is not lib's."""
    _restore()
    ids = [id for id in kept() if id[:2] < lesson]
    if not ids:
        return
    libs = _small_model()
    for id in ids:
        if problem := _try_in_place(id, libs):
            print(f"Your own {id} is left out: {problem} lib's code runs there.")
    if running := standing():
        names = ", ".join(f"{NAMES[own.id]} ({own.id})" for own in running)
        print(f"Running on your own code: {names}. Back to lib's: from lib.lesson import use_lib; use_lib()")


def _try_in_place(id: str, libs: list[Tensor]) -> str:
    """Install a kept answer; "" or why that was not to be. libs: what the small model gives on lib's code."""
    try:
        source = place(id).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return f"its file {place(id)} cannot be read ({type(error).__name__})."
    function, problem = tried(exercise(id), source)
    if problem:
        return f"{problem} (It is kept in {place(id)}.)"
    own = Own(id, function)
    height = _install(own)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            both = zip(libs, _small_model(), strict=True)
            same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in both)
            problem = f"it failed in a small model, {own.failed}." if own.failed else ""
        except Exception as error:
            same, problem = False, f"it failed in a small model, {_brief(error)}."
    if not same and not problem:
        problem = "in a small model it gives other results or gradients than lib's (does it use .detach() or .item()?)."
    if problem:
        _restore(height)
    return problem


def tried(exercise: Exercise, source: str) -> tuple[Callable | None, str]:
    """The function that an answer's source defines, run by itself, and "" or what is wrong with it."""
    file = f"<your {exercise.id}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # so that errors quote the line
    module = types.ModuleType(f"own_{exercise.name}")
    sys.modules[module.__name__] = module  # torch.compile looks a function's module up
    namespace = vars(module)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(PRELUDE, namespace)
            exec(compile(source, file, "exec"), namespace)
        except (Exception, SystemExit) as error:
            return None, f"it does not run by itself, {_brief(error)}."
        if exercise.name not in namespace:
            return None, f"it does not define {exercise.name}."
        function = namespace[exercise.name]
        result = evaluate(exercise, function)
    if result.points < result.out_of:
        worst = result.first_failure
        return None, f"its check gives {result.points} of {result.out_of}, {worst.name}: {worst.message}"
    return function, ""


def _small_model() -> list[Tensor]:
    """What a small model gives in all the ways that lessons call one: whole, in steps, with padding; and gradients."""
    config = Config.llama(vocab_size=7, block_size=8, n_layer=2, n_head=4, d_model=16, n_kv_head=2)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Transformer(config)
    for weight in model.parameters():
        weight.data *= 10  # an untrained model hardly attends
    tokens = torch.arange(10).view(2, 5) * 3 % 7  # (B, T)
    model(tokens).logsumexp(-1).sum().backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    with torch.no_grad():
        with recorded(model) as weights:  # n_layer times (B, H, T, T)
            whole = model(tokens)  # (B, T, V)
        cache = KVCache(config.n_layer)
        steps = [model(part, cache) for part in tokens.split([2, 1, 2], dim=1)]
        padded = model(tokens, padding=torch.tensor([0, 2]))[:, 2:]  # (B, T - 2, V)
    return [model(tokens).detach(), whole, *weights, *steps, padded, *gradients]


def _install(own: Own) -> int:
    """Put an answer in its places; returns the height of the stack before."""
    height = len(_replaced)
    for owner, name, fit in SEAMS[own.id].places:
        ours = getattr(owner, name)
        theirs = fit(own, ours)
        _replaced.append((own, owner, name, ours, theirs))
        _swap(owner, name, ours, theirs)
    return height


def _restore(height: int = 0) -> None:
    """Take answers out again, down to that height of the stack."""
    while len(_replaced) > height:
        _, owner, name, ours, theirs = _replaced.pop()
        _swap(owner, name, theirs, ours)


def _swap(owner: Any, name: str, old: Any, new: Any) -> None:
    """Put new in the place of old, also where one of our modules or the notebook has imported the name."""
    importers = [module for key, module in list(sys.modules.items()) if key == "__main__" or key.startswith("lib.")]
    for holder in [owner, *importers]:
        if vars(holder).get(name) is old:
            setattr(holder, name, new)
