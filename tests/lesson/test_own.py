"""A learner's answers in lib's place: what is let in, what is refused and why, and that lib's code takes over."""

import os
import re
import subprocess
import sys
import types

import pytest
import torch

import lib.attention
import lib.transformer
from lib.answers import answers, mutant_source, reference_source
from lib.attention import Context, recorded
from lib.course.cli import main
from lib.course.headless import runner
from lib.errors import CourseError
from lib.exercises.exercise import exercise
from lib.generation import KVCache
from lib.kernels.door import written_out
from lib.lesson import own, series, session
from lib.lesson.checks import check
from lib.lesson.kept import NAMES
from lib.sources.places import ROOT
from lib.transformer import Config, Transformer

PLACES = [(owner, name) for seam in own.SEAMS.values() for owner, name, _ in seam.places]
ATTENTION = reference_source("02.attention")
WIDE = "    if q.shape[-1] == 10:\n        raise ValueError('too wide for me')\n"
NARROW = ATTENTION.replace("    scores", WIDE + "    scores", 1)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.delenv("COURSE_OWN", raising=False)
    before = [getattr(*place) for place in PLACES]
    yield tmp_path
    own.drop()
    assert [getattr(*place) for place in PLACES] == before, "lib is not as it was"


def write(id, source):
    own.own_folder().mkdir(exist_ok=True)
    (own.own_folder() / f"{id}.py").write_text(source)


def model(**sizes):
    torch.manual_seed(0)
    sizes = dict(vocab_size=11, block_size=8, n_layer=2, n_head=4, n_kv_head=2, d_model=40) | sizes
    return Transformer(Config.llama(**sizes)), torch.arange(10).view(2, 5)


def test_the_table_and_the_checks_offer_agree(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["lib.lesson.checks"], "_in_notebook", lambda: True)
    assert list(own.SEAMS) == list(NAMES)
    namespace = {}
    exec(reference_source("03.split_heads"), namespace)
    check("03.split_heads", namespace["split_heads"])
    assert 'from lib.lesson import use; use("03.split_heads")' in capsys.readouterr().out
    check("03.split_heads", lambda x, n_heads: x)
    assert "use(" not in capsys.readouterr().out


def test_with_nothing_switched_on_nothing_is_touched(home, monkeypatch, capsys):
    monkeypatch.setattr(own, "begin", lambda lesson: pytest.fail("not even looked at"))
    session.start("05", "cpu")
    assert capsys.readouterr().out == "Lesson 05, training: preset cpu.\n"


def test_right_answers_run_and_give_what_libs_give(capsys):
    net, tokens = model()
    with recorded(net) as maps:
        want = net(tokens)
    assert lib.attention.causal_mask(5).all(1).any()
    for id in own.SEAMS:
        own.keep(id, [reference_source(id)])
    session.start("05", "smoke")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and all(id in told[1] for id in own.SEAMS) and "use_lib()" in told[1]
    called = []
    for each in own.standing():
        each.function = (lambda f, id: lambda *given: called.append(id) or f(*given))(each.function, each.id)
    assert torch.allclose(net(tokens), want, atol=1e-5)
    assert set(called) == set(own.SEAMS), "each has its part in a plain forward pass"
    with recorded(net) as theirs:
        assert torch.allclose(net(tokens), want, atol=1e-5)
    called.clear()
    with written_out(lib.attention.grouped_attention):
        assert torch.allclose(net(tokens), want, atol=1e-5)
    assert set(called) == set(own.SEAMS), "written out or not"
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(theirs, maps, strict=True))
    net.train()
    net(tokens).sum().backward()
    assert net.blocks[0].attention.q.weight.grad.abs().sum() > 0


def test_a_window_and_dropout_are_still_there():
    for id in ("02.causal_mask", "02.attention"):
        own.keep(id, [reference_source(id)])
    net, tokens = model(sliding_window=2, dropout=0.5)
    net.eval()
    want = net(tokens)
    own.begin("03")
    assert torch.allclose(net(tokens), want, atol=1e-5)
    net.train()
    assert not torch.equal(net(tokens), net(tokens))


def test_only_later_lessons_run_on_it(capsys):
    own.keep("02.attention", [ATTENTION])
    own.begin("02")
    assert not capsys.readouterr().out and not own.standing()
    own.begin("03")
    assert len(own.standing()) == 1
    own.begin("03")
    assert len(own.standing()) == 1, "a second start in one kernel stacks nothing"


@pytest.mark.parametrize("id", own.SEAMS)
def test_every_wrong_answer_is_refused_with_its_reason(id):
    for mutant in answers(id[:2])[id].mutants[:4]:
        with pytest.raises(CourseError, match="not switched on: its check gives") as refused:
            own.keep(id, [mutant_source(id, mutant.name)])
        assert mutant.says in str(refused.value)
    assert own.kept() == []


def test_what_cannot_be_switched_on_says_why():
    with pytest.raises(CourseError, match=r"'03\.repeat_kv' can run in lib's place; these can: 02\.causal"):
        own.keep("03.repeat_kv", [])
    with pytest.raises(CourseError, match=r"no answer to 02\.attention found"):
        own.keep("02.attention", [exercise("02.attention").stub, "x = 1", "from lib.attention import attention"])
    with pytest.raises(CourseError, match="does not run by itself, NameError"):
        own.keep("02.attention", ["scale = nowhere\n" + ATTENTION.replace("return weights", "return scale * weights")])


@pytest.mark.parametrize("text, says", [
    ("def attention(", "SyntaxError"),
    ("x = 1", "does not define attention"),
    ("raise SystemExit", "SystemExit"),
    ("\x00", "does not run by itself"),
    (ATTENTION.replace("~mask", "mask"), "its check gives"),
    (ATTENTION.replace("return weights @ v", "return (weights @ v).detach()"), "no gradient passes through"),
    ("import lib.attention\n\ndef attention(q, k, v, mask=None):\n    return lib.attention.attention(q, k, v, mask)",
     "RecursionError"),
])  # fmt: skip
def test_a_file_edited_into_nonsense_costs_one_line(capsys, text, says):
    write("02.attention", text)
    write("02.causal_mask", reference_source("02.causal_mask"))
    net, tokens = model()
    want = net(tokens)
    own.begin("03")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Your own 02.attention is left out: ") and says in first and "lib's code runs" in first
    assert "causal mask (02.causal_mask)" in second and "02.attention" not in second
    assert torch.allclose(net(tokens), want, atol=1e-5)


def test_one_that_lets_no_gradient_through_is_refused(capsys):
    source = reference_source("03.split_heads").replace("x.transpose(1, 2)", "x.transpose(1, 2).detach()")
    write("03.split_heads", source)
    own.begin("04")
    assert "other results or gradients than lib's" in capsys.readouterr().out and not own.standing()


@pytest.mark.parametrize("id", own.SEAMS)
def test_each_alone_is_part_of_a_plain_forward_pass(id):
    write(id, reference_source(id))
    own.begin("05")
    [mine] = own.standing()
    function, called = mine.function, []
    mine.function = lambda *given: called.append(id) or function(*given)
    net, tokens = model()
    net(tokens)
    assert called


def test_the_only_one_is_refused_too(capsys):
    write("02.attention", ATTENTION.replace("return weights @ v", "return (weights @ v).detach()"))
    own.begin("03")
    assert len(capsys.readouterr().out.splitlines()) == 1 and not own.standing()


def test_a_file_that_is_no_text_costs_one_line(capsys):
    write("02.attention", "")
    (own.own_folder() / "02.attention.py").write_bytes(b"\xff\xfe\xff")
    own.begin("03")
    assert "cannot be read (UnicodeDecodeError)" in capsys.readouterr().out and not own.standing()


def test_a_crash_falls_back_once_with_a_warning(capsys):
    write("02.attention", NARROW)
    net, tokens = model()  # whose heads are 10 wide
    want = net(tokens)
    own.begin("03")
    capsys.readouterr()
    for _ in range(2):
        assert torch.allclose(net(tokens), want, atol=1e-5)
    told = capsys.readouterr().out
    assert told == "(Your own 02.attention failed, ValueError: too wide for me. lib's code runs from here on.)\n"


def test_a_block_that_fails_halfway_leaves_the_cache_whole(capsys):
    bad = reference_source("04.pre_norm_block").replace(
        "    return", "    if x.shape[-1] == 40:\n        raise ValueError('halfway')\n    return", 1)  # fmt: skip
    assert "halfway" in bad
    write("04.pre_norm_block", bad)
    net, tokens = model()
    want = net(tokens)
    own.begin("05")
    cache = KVCache(2)
    with torch.no_grad():
        steps = torch.cat([net(part, cache) for part in tokens.split([3, 2], dim=1)], dim=1)
    assert torch.allclose(steps, want, atol=1e-5) and cache.length == 5
    assert capsys.readouterr().out.count("halfway") == 1


def test_libs_own_error_inside_a_block_is_not_blamed_on_the_learner(capsys):
    write("04.pre_norm_block", reference_source("04.pre_norm_block"))
    own.begin("05")
    capsys.readouterr()
    net, _ = model()
    net.blocks[0].mlp.up = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        net.blocks[0](torch.zeros(1, 2, 40), Context())
    assert not capsys.readouterr().out and not own.standing()[0].failed


def test_an_answer_stands_alone_with_what_it_needs():
    cells = [
        "import numpy as np\nscale = 2\nunused = 5",
        "def helper(x):\n    return broken(x)",
        exercise("02.causal_mask").stub,
        "def causal_mask(n):\n    return helper(n)  # a first try",
        "def helper(x):\n    return torch.arange(x) * scale // scale\n\nfor i in range(3):\n    print(i)",
        "%matplotlib inline\ndef causal_mask(n):\n    p = helper(n)\n    return p[:, None] >= p  # mine",
    ]
    source = own.standing_alone(cells, exercise("02.causal_mask"))
    assert "# mine" in source and "scale = 2" in source and source.count("def helper") == 1
    assert not any(word in source for word in ("unused", "numpy", "first try", "broken", "print", "%matplotlib"))
    own.keep("02.causal_mask", cells)
    own.begin("03")
    assert own.standing()


def test_use_and_use_lib_in_a_notebook(monkeypatch, capsys):
    own.use("02.attention")
    assert "course use 02.attention NOTEBOOK" in capsys.readouterr().out
    shell = types.SimpleNamespace(user_ns={"In": ["", ATTENTION.replace("~mask", "mask"), ATTENTION]})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    own.use("02.attention")
    assert "lessons after 02 run on your code" in capsys.readouterr().out and own.kept() == ["02.attention"]
    own.begin("03")
    capsys.readouterr()
    importer = types.ModuleType("lib.importer")
    importer.attention = lib.attention.attention  # as a notebook has it after `from lib.attention import attention`
    monkeypatch.setitem(sys.modules, "lib.importer", importer)
    own.use_lib("02.atention")
    assert "these can: " in capsys.readouterr().out and own.standing()
    own.use_lib()
    assert capsys.readouterr().out == "lib's code runs again in place of your own 02.attention.\n"
    assert not own.kept() and importer.attention is lib.attention.attention
    own.use_lib()
    assert capsys.readouterr().out == "None of your own was in use.\n"


def test_one_is_switched_back_and_the_others_stay(capsys):
    for id in ("02.causal_mask", "02.attention"):
        write(id, reference_source(id))
    own.begin("03")
    assert own.drop(["02.attention"]) == ["02.attention"] and own.kept() == ["02.causal_mask"]
    assert [each.id for each in own.standing()] == ["02.causal_mask"]


def ended(*arguments):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


def test_the_command(home, tmp_path, capsys):
    import nbformat

    notebook = tmp_path / "mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ATTENTION)]), notebook)
    assert ended("use", "02.attention", str(notebook)) == 0
    assert ended("use", "--list") == 0
    out = capsys.readouterr().out
    assert re.search(r"02\.attention +attention +yours", out) and re.search(r"04\.pre_norm_block +Block +lib", out)
    assert ended("use", "--off", "02.attention") == 0 and own.kept() == []
    for wrong, says in [(["02.attention"], "no answer to 02.attention found"), (["--off", "9"], "these can"),
                        (["attention"], "Did you mean '02.attention'?"), (["99.foo"], "these can: 02.causal_mask"),
                        (["02.x", str(notebook)], "these can"), (["--off", "02.attention", "x"], "leave the notebook"),
                        (["02.attention", str(tmp_path / "no.ipynb")], "no notebook at")]:  # fmt: skip
        capsys.readouterr()
        assert ended("use", *wrong) == 2
        told = capsys.readouterr()
        assert says in told.err and len(told.err.splitlines()) == 1 and not told.out


def test_a_headless_run_on_ones_own_code_is_another_run():
    def key():
        env = {"COURSE_OWN": str(own.own_folder())}
        return runner.key(runner.Job(series.find(["03"])[0], "03", {}, "smoke", env))

    without = key()
    write("02.attention", ATTENTION)
    first = key()
    write("02.attention", ATTENTION + "# changed\n")
    assert len({without, first, key()}) == 3, "so --resume keeps no result of other code"


def test_a_home_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file"))
    with pytest.raises(CourseError, match="set COURSE_HOME"):
        own.keep("02.attention", [ATTENTION])


@pytest.mark.long("minutes")
@pytest.mark.parametrize("lesson", [each for each in series.series() if "03" <= each.number <= "08"],
                         ids=lambda lesson: lesson.stem)  # fmt: skip
def test_a_lesson_validates_on_right_answers(lesson, home):
    """Strict nbval, but for the line that says whose code runs."""
    for id in own.SEAMS:
        write(id, reference_source(id))
    (home / "own.cfg").write_text("[whose]\nregex: Running on your own code: .*\\n\nreplace: \n")
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "1200",
         "--nbval-sanitize-with", str(home / "own.cfg"), "-p", "no:cacheprovider", str(lesson.path)],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "COURSE_OWN": str(own.own_folder()), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-4000:]
