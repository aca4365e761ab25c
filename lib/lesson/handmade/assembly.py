"""The learner's file, put together: each part that has passed, as it was written; the course's where one is missing."""

import ast
import contextlib
import io
import linecache
import re
import textwrap
import time
import tokenize
import types
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.errors import CourseError
from lib.exercises.closure import bound
from lib.exercises.exercise import exercise
from lib.lesson.handmade import parts
from lib.lesson.own import tried
from lib.transformer import Config, Transformer

FRAME = Path(__file__).with_name("frame.py")
BEGIN, END = "# parts\n", "# end of parts\n"
FILL = "lib.lesson.handmade.fill"
TOO_SLOW = 100  # times as long as with the course's part


def assemble(sources: dict[str, str], whole: bool = False) -> str:
    """The file's text. sources: {id: source} of the learner's parts; the others are imported from the course.

    What trains, what draws and what takes LoRA is left out as long as none of its parts is the learner's; whole: never.
    """
    open_ = {part.section for part in parts.PARTS if whole or not part.section or part.id in sources}
    head, _, rest = FRAME.read_text(encoding="utf-8").partition(BEGIN)
    tail = _without({*parts.SECTIONS} - open_, rest.partition(END)[2])
    here = [part for part in parts.PARTS if part.section in open_]
    missing = [part for part in here if part.id not in sources]
    told = f"# {len(sources)} of {len(here)} parts of this file are yours"
    sections = [f"{told}; the others are imported from the course." if missing else f"{told}: all of them.", ""]
    if missing:
        sections += [f"from {FILL} import {', '.join(part.name for part in missing)}", ""]
    taken = set().union(*(bound(statement) for text in (head, tail) for statement in ast.parse(text).body))
    taken |= {part.name for part in missing}
    placed: dict[str, str] = {}  # a statement that stands there already, by its tree
    for part in parts.PARTS:
        if part.id in sources:
            sections += ["", f"# {part.id}: {part.what}", "", _section(part, sources[part.id], taken, placed), ""]
    return head + "\n".join(sections) + "\n" + tail


def _without(closed: set[str], text: str) -> str:
    """The frame's text without these sections, without what others take the place of, and without marks of either."""
    kept, out = [], False
    for line in text.splitlines(keepends=True):
        if marked := re.fullmatch(r"\s*# (end of )?(until )?(\d\d)(: .*)?\n", line):
            end, until, section, what = marked.groups()
            out = not end and (section in closed) is not bool(until)
            kept += [f"# Lesson {section}{what}\n"] if what and not out else []
        elif not out:
            kept.append(line.replace("  # noqa: F811", ""))
    return "".join(kept)


def _section(part: parts.Part, source: str, taken: set[str], placed: dict[str, str]) -> str:
    """A part's source, without what stands above it already; in a function of its own where names would meet."""
    lines, drop, fresh = source.splitlines(), set(), []
    for statement in ast.parse(source).body:
        if ast.dump(statement) in placed and bound(statement):
            first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
            drop |= set(range(first - 1, statement.end_lineno))
        else:
            fresh.append(statement)
    names = set().union(*map(bound, fresh))
    others = {each.name for each in parts.PARTS} - {part.name}
    if not names & (taken | others):
        placed |= dict.fromkeys(map(ast.dump, fresh), part.id)
        taken |= names
        return "\n".join(line for n, line in enumerate(lines) if n not in drop).strip("\n")
    taken.add(part.name)
    wrapper = f"_part_{part.id.replace('.', '_')}"
    return f"def {wrapper}():\n{_indented(source)}\n    return {part.name}\n\n\n{part.name} = {wrapper}()"


def _indented(source: str) -> str:
    """Source four blanks further in; lines inside a string stay as they are, for they are what the string says."""
    inside: set[int] = set()
    middle = {getattr(tokenize, name, None) for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING or token.type in middle:
            inside |= set(range(token.start[0] + 1, token.end[0] + 1))
    lines = source.rstrip("\n").splitlines()
    return "\n".join(
        line if n in inside else textwrap.indent(line, "    ", bool) for n, line in enumerate(lines, start=1)
    )


def sound(sources: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Those of the learner's parts that pass their check, agree with the course in a small model, and end in good time.

    A line for each other.
    """
    standing, notes = {}, []
    for id, source in sources.items():
        try:
            _, problem = tried(exercise(id), source)
        except CourseError:
            problem = f"this copy of the course lacks the exercises of lesson {id[:2]}."
        if problem:
            notes.append(f"Your {id} is left out: {problem} (It is kept in {parts.path(id)}.)")
        else:
            standing[id] = source
    if not standing:
        return standing, notes
    sections = {part.section for part in parts.PARTS if part.id in standing}
    _small({}, sections)  # the first time takes longer
    want, usual = _small({}, sections)
    for id, problem in _problems(standing, want, usual, sections):
        notes.append(f"Your {id} is left out: {problem}")
        del standing[id]
    return standing, notes


def _problems(
    sources: dict[str, str], want: list[Tensor], usual: float, sections: Collection[str]
) -> Iterable[tuple[str, str]]:
    """Which parts go wrong in the small model, each tried by itself unless all together do well."""
    if not _problem(sources, want, usual, sections):
        return []
    alone = [(id, _problem({id: source}, want, usual, sections)) for id, source in sources.items()]
    found = [(id, problem) for id, problem in alone if problem]
    return found or [(id, "your parts don't work together in a small model; give some back: course mine --forget.")
                     for id in sources]  # fmt: skip


def _problem(sources: dict[str, str], want: list[Tensor], usual: float, sections: Collection[str]) -> str:
    try:
        got, seconds = _small(sources, sections)
    except (Exception, SystemExit) as error:
        return f"it fails in a small model, {type(error).__name__}: {' '.join(str(error).split())[:200]}."
    pairs = zip(got, want, strict=True)
    if not all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs):
        return "in a small model it gives other results than the course's."
    if seconds > TOO_SLOW * usual:
        return f"in a small model it takes {seconds / usual:.0f} times as long as the course's."
    return ""


def _small(sources: dict[str, str], sections: Collection[str]) -> tuple[list[Tensor], float]:
    """What these sections of the file do with a small model whose weights matter, and the seconds it takes (a read: the
    quickest of three): logits, in pieces too; texts, drawn where one token only is left; losses; what a LoRA learns.
    """
    config = Config.llama(vocab_size=11, block_size=16, n_layer=2, n_head=4, d_model=16, n_kv_head=2)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        ours = Transformer(config)
    rows, merges = torch.arange(24).view(2, 12) * 3 % 5, [(3, 1, 6), (0, 3, 7), (6, 4, 8), (2, 0, 9)]
    module, results, seconds = as_module(assemble(sources, whole=True)), [], []
    with contextlib.redirect_stdout(io.StringIO()):
        tokens = torch.tensor([module.apply_merges(row, merges) for row in rows.tolist()])  # (B, T)
        theirs, adapted = module.Model(*as_saved(ours)), module.Adapted(*as_saved(ours), rank=2)
        for b in adapted.b.values():
            nn.init.constant_(b, 0.1)  # zero at first, and then a change that is taken away would learn as well
        with torch.no_grad():
            for _ in range(3):
                begun = time.perf_counter()
                logits = theirs(tokens)  # (B, T, V)
                seconds.append(time.perf_counter() - begun)
                if seconds[0] > 1:  # slow enough to say so
                    break
            results += [logits.clone()]
            begun = time.perf_counter()
            if "07" in sections:
                caches = [module.Cache() for _ in range(config.n_layer)]
                results += [theirs(tokens[:, at : at + 5], caches, at) for at in (0, 5)]
                for how in (dict(), dict(temperature=1.0, top_k=1), dict(temperature=0.5, top_p=1e-6)):
                    results.append(torch.tensor(module.write(theirs, [1, 5, 2], 4, **how)))
        for model in [theirs] * ("05" in sections) + [adapted] * ("11" in sections):
            losses = module.train(model, tokens.flatten(), 3, rows=2, length=6, rate=1e-2)
            results.append(torch.tensor(list(losses)))
        results += [adapted(tokens).detach()] if "11" in sections else []
        more = time.perf_counter() - begun
    return results, min(seconds) + more


def as_module(text: str) -> types.ModuleType:
    """The file, run in this process."""
    module = types.ModuleType("your_transformer")
    file = "<your transformer>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # so that errors quote the line
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, file, "exec"), vars(module))
    return module


def as_saved(model: Transformer) -> tuple[dict, dict[str, Tensor]]:
    """(config, weights) of a Llama-like model of ours, under the names that Hugging Face saves; the weights a copy."""
    c, weights = model.config, {name: weight.clone() for name, weight in model.state_dict().items()}
    names = {"attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj", "attention.v": "self_attn.v_proj",
             "attention.out": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj",
             "mlp.down": "mlp.down_proj", "norm1": "input_layernorm", "norm2": "post_attention_layernorm"}  # fmt: skip
    saved = {"model.embed_tokens.weight": weights["embedding.weight"], "model.norm.weight": weights["norm.weight"],
             "lm_head.weight": weights["head.weight"]}  # fmt: skip
    for i in range(c.n_layer):
        for ours, theirs in names.items():
            saved[f"model.layers.{i}.{theirs}.weight"] = weights[f"blocks.{i}.{ours}.weight"]
    return dict(model_type="llama", num_hidden_layers=c.n_layer, num_attention_heads=c.n_head, rms_norm_eps=c.norm_eps,
                num_key_value_heads=c.n_kv_head, rope_theta=c.rope_theta, tie_word_embeddings=c.tie), saved  # fmt: skip
