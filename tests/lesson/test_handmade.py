"""The learner's own transformer: assembled from passed answers, right to the digit, and never in the lesson's way."""

import ast
import subprocess
import sys
import types

import pytest
import torch
from click.testing import CliRunner
from tiny import talker
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lib.answers import reference_source
from lib.course.commands.mine import mine as command
from lib.errors import CourseError
from lib.lesson.handmade import assembly, frame, parts, trial
from lib.sources.catalogue import smollm2_folder
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


ALL = len(parts.IDS)
IN_WORDS = ("01.merge", "01.apply_merges")  # parts that read text; all others compute


def references():
    return {id: reference_source(id) for id in parts.IDS}


def run(text, config, seed=0):
    """(the file's logits, lib's) on a random model."""
    torch.manual_seed(seed)
    ours = Transformer(config).eval()
    module = types.ModuleType("theirs")
    exec(compile(text, "theirs", "exec"), vars(module))
    tokens = torch.randint(config.vocab_size, (2, 9))  # (B, T)
    with torch.no_grad():
        return module.Model(*assembly.as_saved(ours))(tokens), ours(tokens)


SHAPES = [
    dict(n_layer=1, n_head=1, d_model=8),
    dict(n_layer=2, n_head=4, d_model=32, n_kv_head=2),
    dict(n_layer=3, n_head=6, d_model=48, n_kv_head=1, rope_theta=100000.0),
    dict(n_layer=2, n_head=3, d_model=24, n_kv_head=3, tie=False, norm_eps=1e-2),
    dict(n_layer=2, n_head=2, d_model=24, head_dim=16, d_ff=40),
]


@pytest.mark.parametrize("whose", ["the learner's", "the course's", "half"])
@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_the_file_computes_what_lib_does(shape, whose):
    all_ = references()
    chosen = {"the learner's": all_, "the course's": {}, "half": dict(list(all_.items())[::2])}[whose]
    theirs, ours = run(assembly.assemble(chosen), Config.llama(vocab_size=50, block_size=16, **shape))
    assert torch.allclose(theirs, ours, atol=1e-4 * max(1, ours.abs().max()), rtol=0)


def test_the_whole_file_has_no_line_of_the_course():
    text = assembly.assemble(references())
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    roots = {name.partition(".")[0] for name in modules}
    assert roots <= {"torch", "safetensors", "tokenizers", *sys.stdlib_module_names}
    assert f"{ALL} of {ALL} parts of this file are yours: all of them" in text


def test_the_file_grows_by_lessons():
    """Once the model is the learner's, the file has no line of the course, whatever is still to come."""
    model = {id: text for id, text in references().items() if id < "05"}
    text = assembly.assemble(model)
    assert f"{len(model)} of {len(model)} parts of this file are yours: all of them" in text
    assert "lib." not in text and "def train" not in text and "--temperature" not in text
    more = assembly.assemble(model | {"07.sample": reference_source("07.sample")})
    assert f"{len(model) + 1} of {len(model) + 3} parts" in more
    assert "import Cache, write_text\n" in more and "--temperature" in more
    assert "def train" not in more and more.count("def write(") == 1
    whole = assembly.assemble(model, whole=True)
    assert all(f"def {name}(" in whole for name in ("train", "save", "write")) and "# 05" not in whole
    for each in (text, more, whole):
        compile(each, "theirs", "exec")


@pytest.mark.parametrize("id", [id for id in parts.IDS if id < "05" and id not in IN_WORDS])
def test_every_part_counts(id):
    """A part that computes something else is seen in the model: no part is only decoration, but for those inlined."""
    sources = references()
    if id in ("03.split_heads", "03.merge_heads", "03.repeat_kv"):  # the reference of the layer writes them out
        sources["03.multi_head"] = CALLING
    name = id.split(".")[1]
    sources[id] += f"\n_right = {name}\n\ndef {name}(*given, **more):\n    return _wrong(_right(*given, **more))\n"
    sources[id] += "\ndef _wrong(x):\n    return ~x if x.dtype == torch.bool else x * 1.5 + 0.1\n"
    theirs, ours = run(assembly.assemble(sources), Config.llama(vocab_size=50, block_size=16, **SHAPES[1]))
    assert not torch.allclose(theirs, ours, atol=1e-3)


WRONG = {
    "05.cross_entropy": (".mean()", ".sum()"),
    "05.training_step": ("optimizer.step()", "optimizer.zero_grad()"),
    "07.sample": ("logits.softmax(-1), 1", "(logits > -math.inf).flip(-1).float(), 1"),
    "07.cache": (".tril(S - T)", ".tril()"),
    "07.write_text": ("[:, -1]", "[:, 0]"),
    "11.merged": ("W + alpha", "W - alpha"),
}


@pytest.mark.parametrize("id", WRONG)
def test_so_does_every_part_that_trains_draws_or_adapts(id):
    """Right alone, as far as its check goes, and wrong in the small model: the file's own doing is looked at."""
    sources = references()
    right, wrong = WRONG[id]
    assert right in sources[id]
    sections = {*parts.SECTIONS}
    want, _ = assembly._small({}, sections)
    assert assembly._problem(sources, want, 10.0, sections) == ""
    broken = sources | {id: sources[id].replace(right, wrong)}
    assert "in a small model it gives other results" in assembly._problem(broken, want, 10.0, sections)


CALLING = """
def multi_head(x, w, n_head, n_kv_head, attend, turn):
    q, k, v = (split_heads(x @ w[n].T, h) for n, h in (("q", n_head), ("k", n_kv_head), ("v", n_kv_head)))
    k, v = repeat_kv(turn(k), n_head // n_kv_head), repeat_kv(v, n_head // n_kv_head)
    return merge_heads(attend(turn(q), k, v)) @ w["out"].T
"""
# It is right for the few numbers of its check, and not for a wider model's.
LONGER = reference_source("04.gated_mlp").replace("    gate =", "    x = x if x.shape[-1] < 16 else 0 * x\n    gate =")


def file_of(sources):
    module = types.ModuleType("theirs")
    exec(compile(assembly.assemble(sources), "theirs", "exec"), vars(module))
    return module


TEXTS = ["The capital of France is", "", " ", "Anna's 1,234 naïve cafés, 東京 🙂\n\n\tdone ", "<|endoftext|>Once",
         "x" * 50]  # fmt: skip
GLUING = """
def apply_merges(ids, merges):
    for a, b, new in merges:
        ids = merge(ids, (a, b), new)
    return ids
"""


@pytest.mark.parametrize("whose", ["the course's", "the learner's", "the learner's, calling merge"])
def test_the_learners_merges_cut_text_as_the_tokenizer_does(whose):
    sources = {"the course's": {}, "the learner's": references(),
               "the learner's, calling merge": references() | {"01.apply_merges": GLUING}}[whose]  # fmt: skip
    tokenizer = Tokenizer.from_file(str(smollm2_folder() / "tokenizer.json"))
    for text in TEXTS:
        assert file_of(sources).encode(tokenizer, text) == tokenizer.encode(text).ids, text


@pytest.mark.parametrize("id", IN_WORDS)
def test_a_wrong_merge_cuts_text_otherwise(id):
    sources = references() | {"01.apply_merges": GLUING}
    name = id.split(".")[1]
    sources[id] += f"\n_right = {name}\n\ndef {name}(ids, *given):\n    return _right(ids, *given)[::-1]\n"
    tokenizer = Tokenizer.from_file(str(smollm2_folder() / "tokenizer.json"))
    assert file_of(sources).encode(tokenizer, TEXTS[3]) != tokenizer.encode(TEXTS[3]).ids
    assert not assembly.sound({id: sources[id] for id in IN_WORDS})[0].get(id), "its check says so, or the small model"


@pytest.mark.parametrize("kind", [
    models.WordLevel({"to": 0, "be": 1, "?": 2}, "?"),
    models.Unigram([("?", 0.0), ("to", -1.0), (" ", -2.0)], 0, False),
    models.BPE({"t": 0, "o": 1, "to": 2}, [("t", "o")], unk_token="t"),
    models.BPE({"t": 0, "o": 1, "to": 2, "b": 3, "e": 4, "##o": 5, "t##o": 6}, [], continuing_subword_prefix="##"),
])  # fmt: skip
def test_a_tokenizer_of_another_kind_cuts_by_itself(kind):
    tokenizer = Tokenizer(kind)
    for before in (None, pre_tokenizers.Whitespace()):
        if before:
            tokenizer.pre_tokenizer = before
        assert frame.encode(tokenizer, "to be") == tokenizer.encode("to be").ids


def test_what_a_tokenizer_adds_is_kept():
    tokenizer = Tokenizer(models.BPE({"t": 0, "o": 1, "to": 2, "<s>": 3}, [("t", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert frame.encode(tokenizer, "to to") == [2, 2]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    assert frame.encode(tokenizer, "to to") == tokenizer.encode("to to").ids == [3, 2, 2]


def test_what_stands_there_already_is_written_once():
    together = "".join(map(reference_source, ("03.split_heads", "03.merge_heads", "03.repeat_kv")))
    sources = references() | {"03.multi_head": together + CALLING}
    text = assembly.assemble(sources)
    assert text.count("def split_heads") == 1
    theirs, ours = run(text, Config.llama(vocab_size=50, block_size=16, **SHAPES[1]))
    assert torch.allclose(theirs, ours, atol=1e-4)


@pytest.mark.parametrize("helper", ["Model", "read", "helper", "F", "rotary", "math"])
def test_names_that_meet_change_nothing(helper):
    """Two parts with a helper of one name, or one that the file itself uses: each keeps its own."""
    sources = references()
    for n, id in enumerate(("02.causal_mask", "04.rms_norm")):
        name = id.split(".")[1]
        text = f'"""Says\n{n}\n  twice"""'
        sources[id] = (f"def {helper}():\n    return {text}\n\n{sources[id]}\n_ours = {name}\n\n"
                       f"def {name}(*given):\n    assert {helper}() == {text}, {helper}()\n    return _ours(*given)\n")
    theirs, ours = run(assembly.assemble(sources), Config.llama(vocab_size=50, block_size=16, **SHAPES[1]))
    assert torch.allclose(theirs, ours, atol=1e-4)


BROKEN = {
    "syntax": ("def rms_norm(x, weight, eps)\n    return x\n", "does not run by itself, SyntaxError"),
    "another shape": ("def rms_norm(x, weight, eps):\n    return x[..., :1]\n", "its check gives"),
    "another name": ("def norm(x, weight, eps):\n    return x\n", "does not define rms_norm"),
    "raises": ("def rms_norm(x, weight, eps):\n    raise ValueError('no\\nway')\n", "its check gives"),
    "exits": ("raise SystemExit(3)\n", "does not run by itself, SystemExit"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_part_is_left_out_with_a_line_and_the_rest_stands(kind):
    source, says = BROKEN[kind]
    for id, text in references().items():
        parts.keep(id, text)
    parts.keep("04.rms_norm", source)
    path, mine, notes = trial.refresh()
    assert set(mine) == set(parts.IDS) - {"04.rms_norm"}
    [note] = notes
    assert note.startswith("Your 04.rms_norm is left out: ") and says in note and "\n" not in note
    assert "import rms_norm" in path.read_text()
    assert parts.path("04.rms_norm").read_text().endswith(source), "nothing is lost"


def test_right_alone_and_wrong_together():
    """It passes its check, and a model is wider."""
    standing, [note] = assembly.sound({"04.rms_norm": reference_source("04.rms_norm"), "04.gated_mlp": LONGER})
    assert list(standing) == ["04.rms_norm"]
    assert note.startswith("Your 04.gated_mlp is left out: in a small model it gives other results")


def test_a_part_that_is_right_and_slow_by_a_factor_of_a_hundred():
    slow = reference_source("04.rms_norm").replace("    square", "    import time\n    time.sleep(0.3)\n    square", 1)
    standing, [note] = assembly.sound({"04.rms_norm": slow, "04.gated_mlp": reference_source("04.gated_mlp")})
    assert list(standing) == ["04.gated_mlp"]
    assert "Your 04.rms_norm is left out: in a small model it takes" in note and "times as long" in note


def test_files_that_cannot_be_read_or_are_unknown_cost_a_line(home):
    parts.keep("04.rms_norm", reference_source("04.rms_norm"))
    parts.path("02.attention").write_bytes(b"# \xff\n\xff")
    (parts.folder() / "09.of_a_newer_course.py").write_text("x = 1\n")
    sources, notes = parts.kept()
    assert list(sources) == ["04.rms_norm"]
    assert "02.attention" in notes[0] and "not UTF-8" in notes[0]
    assert "09.of_a_newer_course" in notes[1] and "stays" in notes[1]


def test_standing_counts_and_names_the_next():
    assert parts.standing() == ""
    parts.keep("01.rotary", "x")
    assert parts.standing() == f"Your transformer: 1 of {ALL} parts are yours, next: 01.merge."
    for id in parts.IDS:
        parts.keep(id, "x")
    assert parts.standing() == f"Your transformer: {ALL} of {ALL} parts are yours, all of it."
    assert parts.forget(["01.rotary"]) == ["01.rotary"] and parts.forget(["01.rotary"]) == []
    with pytest.raises(CourseError, match="is no part of the model"):
        parts.forget(["05.momentum"])


def test_the_meter_says_whose_is_what_and_never_raises(home, capsys):
    parts.keep("04.rms_norm", reference_source("04.rms_norm"))
    parts.keep("04.gated_mlp", "def gated_mlp(")
    trial.meter()
    said = capsys.readouterr().out.splitlines()
    norm = parts.IDS.index("04.rms_norm")
    assert len(said) == ALL + 2 and said[norm].startswith("yours   04.rms_norm")
    assert said[norm + 1].startswith("course  04.gated_mlp")
    assert said[ALL].startswith("Your 04.gated_mlp is left out") and said[-1].startswith(f"1 of {ALL} parts are yours.")
    parts.path("04.gated_mlp").unlink()
    parts.path("04.rms_norm").unlink()
    (home / "mine" / trial.NAME).unlink()
    (home / "mine").rmdir()
    (home / "mine").write_text("no folder")
    trial.meter()
    assert "cannot be written" in capsys.readouterr().out


def test_two_learners_on_one_machine(monkeypatch, tmp_path):
    parts.keep("01.rotary", "x")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "another"))
    assert parts.standing() == ""


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file"))
    with pytest.raises(CourseError, match=r"is not kept.*COURSE_HOME"):
        parts.keep("01.rotary", "x")


CONFIG = dict(model_type="llama", num_hidden_layers=1, num_attention_heads=2)


@pytest.mark.parametrize("change", [
    {"model_type": "gpt2"}, {"hidden_act": "gelu"}, {"attention_bias": True}, {"mlp_bias": True},
    {"rope_scaling": {"type": "linear"}}, {"rope_parameters": {"rope_type": "yarn"}},
])  # fmt: skip
def test_a_model_that_the_file_does_not_understand_is_refused(change):
    frame.Model(CONFIG, {})
    with pytest.raises(SystemExit, match="this file"):
        frame.Model(CONFIG | change, {})


def test_the_file_runs_by_itself(tmp_path):
    """A process with nothing but the file and a folder: as a learner would, and with a line for each slip."""
    (tmp_path / "model").mkdir()
    folder = talker(tmp_path / "model")
    for id, text in references().items():
        parts.keep(id, text)
    said = trial.speak("to be", folder, 5)
    assert len(said.mine) == ALL and len(said.pieces) <= 5 and said.text.startswith("to be")
    path = parts.folder() / trial.NAME
    got = subprocess.run([sys.executable, "-P", path, folder, ""], capture_output=True, text=True)
    assert got.returncode == 1 and got.stderr.strip() == "the prompt is empty; write at least one word"
    with pytest.raises(CourseError, match="your transformer stopped"):
        trial.speak("to be", tmp_path, 1)


def test_the_file_trains_draws_and_takes_lora(tmp_path):
    """All of it in a process that has no course."""
    (tmp_path / "model").mkdir()
    folder, mine, text = talker(tmp_path / "model"), tmp_path / "mine.py", tmp_path / "text.txt"
    mine.write_text(assembly.assemble(references()), encoding="utf-8")
    text.write_text("to be or not to be " * 30, encoding="utf-8")

    def ask(folder, *more):
        command = [sys.executable, "-I", mine, folder, "to be", *more]
        got = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path)
        assert got.returncode == 0, got.stderr
        return got.stdout.splitlines()

    for lora in ([], ["--lora", "2"]):
        out = tmp_path / f"trained{len(lora)}"
        said = ask(folder, "--train", text, "--steps", "6", "--rate", "0.02", "--save", out, *lora)
        losses = [float(line.rpartition(" ")[2]) for line in said[:6]]
        assert losses[-1] < losses[0], losses
        assert ask(out)[0] == said[6], "what was saved writes what was trained, a LoRA in its weights"
    heat = ("--temperature", "1.5", "--top-k", "50", "--top-p", "0.95")
    one, same, other = (ask(folder, *heat, "--seed", seed)[0] for seed in ("1", "1", "2"))
    assert one == same and one != other


def test_its_own_cache_changes_nothing_and_saves_work(monkeypatch):
    module = assembly.as_module(assembly.assemble(references()))
    torch.manual_seed(0)
    model = module.Model(*assembly.as_saved(Transformer(Config.llama(vocab_size=50, block_size=32, **SHAPES[1]))))
    handed, forward = [], module.Model.forward
    monkeypatch.setattr(module.Model, "forward", lambda self, tokens, *more: handed.append(tokens.size(1)) or forward(
        self, tokens, *more))  # fmt: skip
    with torch.no_grad():
        text = module.write(model, [3, 1, 4], 9)
        read, handed[:] = list(handed), []
        slowly = [3, 1, 4]
        for _ in range(9):
            slowly.append(int(model(torch.tensor([slowly]))[0, -1].argmax()))
    assert text == slowly
    assert read == [3] + [1] * 8 and sum(read) < sum(handed)


def test_in_a_lesson_a_broken_part_is_named_and_the_courses_stands_in(capsys):
    for id, text in references().items():
        parts.keep(id, text)
    parts.keep("05.training_step", references()["05.training_step"].replace("optimizer.step()", "pass"))
    module = trial.load()
    said = capsys.readouterr().out
    assert said.startswith("Your 05.training_step is left out: its check gives") and said.count("\n") == 1
    assert set(module.mine) == set(parts.IDS) - {"05.training_step"}
    model = module.Model(*assembly.as_saved(Transformer(Config.llama(vocab_size=11, block_size=8, **SHAPES[0]))))
    first, *_, last = module.train(model, torch.arange(60) % 11, 8, rows=4, length=8, rate=0.05)
    assert last < first


def test_the_command(tmp_path):
    def ask(*words):
        got = CliRunner().invoke(command, words)
        return got.exit_code, got.output if got.exit_code == 0 else str(got.exception)

    assert f"0 of {ALL} parts are yours" in ask()[1]
    parts.keep("04.rms_norm", reference_source("04.rms_norm"))
    status, said = ask("--out", str(tmp_path / "mine.py"))
    assert status == 0 and "yours   04.rms_norm" in said and "Written" in said
    assert "def rms_norm" in (tmp_path / "mine.py").read_text()
    assert "stands in again" in ask("--forget", "04.rms_norm")[1]
    assert "already" in ask("--forget", "04.rms_norm")[1]
    assert "is no part" in ask("--forget", "04.count_params")[1]
    assert "does not end in .py" in ask("--out", str(tmp_path / "mine"))[1]
    assert "the prompt is empty" in ask("--speak", " ")[1]
    assert ask("--tokens", "0")[0] == 2
