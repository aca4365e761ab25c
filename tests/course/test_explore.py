"""`course explore`: a page of any model that has one; every mistake is one line, and no half page is left."""

import pytest
from tiny import MARKS, talker

from lib.course.cli import main
from lib.view import host, page

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return talker(tmp_path_factory.mktemp("talker"))


def ended(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["explore", *map(str, words)])
    return end.value.code, capsys.readouterr()


def test_a_page_is_written_whole(folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    for text in ("Hello", f"{MARKS[0]}<script>"):
        code, told = ended(capsys, folder, "--out", out, "--text", text)
        assert code == 0 and str(out) in told.out and "open it in a browser" in told.out
        assert out.read_text().rstrip().endswith("</html>")
    assert list(tmp_path.iterdir()) == [out]


def test_what_course_train_saves_has_a_page(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n" * 40)
    small = "--preset smoke --steps 2 --eval-every 2 --eval-batches 1 --batch-size 2 --d-model 16 --block-size 8"
    for kind in (["char"], ["bpe", "--vocab-size", "280"]):
        run = tmp_path / kind[0]
        with pytest.raises(SystemExit) as end:
            main(["train", "--text", str(tmp_path / "text.txt"), "--out", str(run), "--tokens", *kind, *small.split()])
        assert end.value.code == 0
        capsys.readouterr()
        assert ended(capsys, run, "--out", tmp_path / "page.html")[0] == 0


def test_a_mistake_is_one_line(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    broken = talker(tmp_path / "empty")
    (broken / "model.safetensors").write_bytes(b"not weights")
    for words, says in [
        ((tmp_path / "none",), "no model folder at"),
        ((tmp_path,), "no config.json in"),
        ((broken,), "fetch or save the model again"),
        ((folder, "--out", tmp_path / "missing" / "page.html"), "there is no folder"),
        ((folder, "--out", tmp_path), "is a directory"),
        ((folder, "--out", "/dev/null"), "is not a file"),
        ((folder, "--out", tmp_path / "x.html", "--port", 0), "take one of the two"),
        ((folder, "--text", "a" * 30_000), "30,000 characters"),
        ((folder, "--port", "70000"), "--port"),
    ]:
        code, told = ended(capsys, *words)
        assert code == 2 and not told.out and says in told.err and len(told.err.splitlines()) == 1, told
    monkeypatch.setattr(page, "LARGEST", 1000)
    code, told = ended(capsys, folder, "--out", tmp_path / "page.html")
    assert code == 2 and f"course explore {folder} --serve" in told.err
    assert not (tmp_path / "page.html").exists()


def test_a_large_model_is_served(folder, capsys, monkeypatch):
    monkeypatch.setattr(page, "LARGEST", 1000)
    said = []

    def serve(server):
        said.append(server.html)
        raise KeyboardInterrupt

    monkeypatch.setattr(host.Host, "serve_forever", serve)
    code, told = ended(capsys, folder, "--serve", "--text", "<b>Hello")
    assert code == 0 and "http://127.0.0.1:" in told.out and "ended" in told.out
    assert b"\\u003cb>Hello" in said[0]


def test_a_port_in_use_is_one_line(folder, capsys):
    with host.Host(None, "") as server:
        code, told = ended(capsys, folder, "--port", server.server_address[1])
    assert code == 2 and "choose another --port" in told.err
