"""`course train`: it keeps all there is to keep, goes on where it stopped, and says in one line what is wrong."""

import json
import math
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib import corpus, training
from lib.course.cli import main
from lib.course.training_run.live import Run
from lib.course.training_run.recipe import PRESETS, model_config, train_config
from lib.course.training_run.run_folder import load
from lib.trainer import memory

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = "--preset smoke --steps 8 --eval-every 3 --eval-batches 1 --batch-size 4 --d-model 16".split()


@pytest.fixture
def book(tmp_path):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 6))) for _ in range(40)]
    path = tmp_path / "book.txt"
    path.write_text("".join(rng.choice(words) + rng.choice("  \n") for _ in range(800)), encoding="utf-8")
    return path


def ended(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(["train", *map(str, arguments)])
    return end.value.code


def record(folder) -> dict:
    return json.loads((folder / "record.json").read_text())


def same_weights(a, b) -> bool:
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what a run leaves behind -------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_a_run_keeps_its_model_record_and_picture(tmp_path, book, capsys, tokens):
    out = tmp_path / "run"
    assert ended(*SMALL, "--text", book, "--out", out, "--tokens", tokens, "--vocab-size", 280) == 0
    told = capsys.readouterr()
    kept = record(out)
    assert kept["state"] == "finished" and kept["val_steps"] == [0, 3, 6, 8] and len(kept["train_loss"]) == 8
    assert kept["train_loss"][-1] < kept["train_loss"][0]
    assert f"held-out loss {kept['held_out_loss']:.3f} after 8 steps" in told.out
    assert "step 6 of 8: training" in told.err and [s["step"] for s in kept["samples"]] == [0, 3, 6, 8]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")

    model, tokenizer = load(out)
    text = book.read_text()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    _, held_out = corpus.split(torch.tensor(tokenizer.encode(text)))
    again = training.evaluate(model, held_out, 4, model.config.block_size, 1)
    assert again == pytest.approx(kept["held_out_loss"], abs=1e-5)
    assert model.config.to_dict() | {"dropout": 0.0} == kept["model"]


def test_the_tokenizer_learns_from_the_training_part_alone(tmp_path, book):
    text = book.read_text()
    cut = len(corpus.split(text)[0])
    book.write_text(text[:cut] + "zq" * ((len(text) - cut) // 2))
    assert ended(*SMALL, "--text", book, "--out", tmp_path / "run", "--tokens", "bpe", "--vocab-size", 280) == 0
    _, tokenizer = load(tmp_path / "run")
    assert not any(b"zq" in tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size))


def test_shakespeare_is_the_default(tmp_path):
    assert ended(*SMALL, "--steps", 1, "--out", tmp_path) == 0
    assert record(tmp_path)["model"]["vocab_size"] == 76


# --- going astray -------------------------------------------------------------------------------------------


def strict(folder) -> dict:
    """record.json, which is JSON."""
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "record.json").read_text(), parse_constant=refuse)


def test_a_run_that_diverges_says_where_and_is_no_success(tmp_path, book, capsys):
    out = tmp_path / "run"
    astray = [*SMALL, "--text", book, "--optimizer", "adamw", "--lr", "1e30", "--warmup", 0, "--steps", 60]
    assert ended(*astray, "--out", out) == 2
    told = capsys.readouterr()
    line = told.err.splitlines()[-1]
    assert re.search(r"^course: the run diverged: .* at step \d+, learning rate \S+; take a smaller rate", line), line
    assert "there was no checkpoint yet" in line and "Traceback" not in told.err and not told.out
    kept = strict(out)
    assert kept["state"] == "diverged" and not (out / "model.safetensors").exists()
    assert ended(*astray, "--resume", "--out", out) == 2, "it would go the same way again"


def test_the_last_good_checkpoint_stays(tmp_path, book, capsys, monkeypatch):
    out, real, calls = tmp_path / "run", training.next_token_loss, iter(range(1000))
    monkeypatch.setattr(training, "next_token_loss", lambda *of: real(*of) * (1 if next(calls) < 8 else math.nan))
    assert ended(*SMALL, "--text", book, "--checkpoint-every", 2, "--out", out) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    found = re.search(r"at step (\d), learning rate .*the last good checkpoint is (.*)$", line)
    assert found and found[2] == str(out / "checkpoint.safetensors"), line
    with safe_open(found[2], framework="pt") as file:
        kept = json.loads(file.metadata()["about"])["history"]["train_loss"]
        assert 2 <= len(kept) < int(found[1]) and all(map(math.isfinite, kept))
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())
    assert len(kept) < len(strict(out)["train_loss"]) <= int(found[1])
    monkeypatch.undo()
    assert ended("--resume", "--out", out) == 0 and strict(out)["state"] == "finished"


def test_a_run_that_ends_worse_than_it_began_is_told(tmp_path, book, capsys):
    worse = [*SMALL, "--optimizer", "adamw", "--lr", 3, "--warmup", 0]
    assert ended(*worse, "--text", book, "--out", tmp_path / "run") == 0
    assert "the held-out loss is higher than before the first step" in capsys.readouterr().err
    assert strict(tmp_path / "run")["state"] == "finished"


def test_a_reader_who_leaves_does_not_end_the_run(tmp_path, book):
    line = [sys.executable, "-m", "lib.course", "train", *map(str, [*SMALL, "--text", book, "--out", tmp_path / "run"])]
    for where in ("2>&1 | true", "2>&1 >/dev/null | true", ">&- 2>&-"):
        ran = subprocess.run(["bash", "-c", f"set -o pipefail; rm -rf {tmp_path}/run; {shlex.join(line)} {where}"])
        assert strict(tmp_path / "run")["state"] == "finished" and ran.returncode == 0, where


# --- stopping and going on ----------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path, book):
    """A run that nobody disturbed."""
    out = tmp_path / "whole"
    assert ended(*SMALL, "--text", book, "--dropout", 0.1, "--out", out) == 0
    return out


def test_a_stopped_run_goes_on_with_its_options_to_the_same_weights(tmp_path, book, whole, monkeypatch, capsys):
    out = tmp_path / "run"
    real = Run.watch

    def ctrl_c(self, done, loss):
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, done, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "watch", ctrl_c)
        assert ended(*SMALL, "--text", book, "--dropout", 0.1, "--out", out) == 130
    assert "stopped after step 5 of 8, all saved" in capsys.readouterr().err
    kept = record(out)
    assert kept["state"] == "interrupted" and len(kept["train_loss"]) == 5
    load(out)  # what was learnt so far can be used
    assert ended("--resume", "--out", out) == 0
    assert same_weights(out, whole)
    kept, undisturbed = record(out), record(whole)
    assert kept["train_loss"] == undisturbed["train_loss"] and kept["val_loss"] == undisturbed["val_loss"]
    assert kept["samples"] == undisturbed["samples"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler outlived the run"
    assert ended("--resume", "--out", out) == 0  # a finished run only loads
    assert same_weights(out, whole)


def test_killed_from_outside_loses_only_what_came_after_the_checkpoint(tmp_path, book, whole):
    out = tmp_path / "run"
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent("""
        import sys, time
        from lib.course.cli import main
        from lib.course.training_run.live import Run
        watch = Run.watch
        def slow(self, done, loss):
            if done == 5:
                print("five", flush=True)
                time.sleep(60)
            return watch(self, done, loss)
        Run.watch = slow
        main(["train", *sys.argv[1:]])
    """))
    options = [*SMALL, "--text", book, "--dropout", 0.1, "--checkpoint-every", 2, "--out", out]
    run = subprocess.Popen([sys.executable, script, *map(str, options)], stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"five\n"
    run.kill()
    run.wait()
    run.stdout.close()
    with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
        assert len(json.loads(file.metadata()["about"])["history"]["train_loss"]) == 4
    assert ended("--resume", "--out", out) == 0
    assert same_weights(out, whole)


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    seen = []
    run = Run(tmp_path, {}, None, None, None, None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: seen.append((number, handler)))
    with run.signals():
        handler = dict(seen)[signal.SIGTERM]
        handler(signal.SIGTERM, None)
        assert run.stopped_by == signal.SIGTERM
        monkeypatch.setattr(os, "kill", lambda pid, number: seen.append(("killed", number)))
        handler(signal.SIGTERM, None)
        assert seen[-2:] == [(signal.SIGTERM, signal.SIG_DFL), ("killed", signal.SIGTERM)]


# --- bad input ----------------------------------------------------------------------------------------------


def refusal(capsys, *arguments) -> str:
    capsys.readouterr()
    assert ended(*arguments) == 2
    told = capsys.readouterr()
    assert not told.out and len(told.err.splitlines()) == 1, told.err
    return told.err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "is not UTF-8: byte 0x89 at offset 0"),
        (b"text \xff\xfe", "is not UTF-8: byte 0xff at offset 5"),
        (b"too short\n", "the text has 10 tokens; its held-out tenth must fill a block of 32 and one more"),
        (None, "cannot read"),
    ],
)
def test_a_text_that_cannot_be_used(tmp_path, capsys, data, says):
    path = tmp_path / "text"
    if data is not None:
        path.write_bytes(data)
    assert says in refusal(capsys, *SMALL, "--text", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_shortest_text_that_can_be_used(tmp_path, book, capsys):
    text = book.read_text()
    book.write_text(text[:330])
    assert ended(*SMALL, "--text", book, "--out", tmp_path / "run") == 0
    book.write_text(text[:329])
    assert "at least 330 are needed" in refusal(capsys, *SMALL, "--text", book, "--out", tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preset", "cup"], "unknown preset 'cup'"),
        (["--n-head", "3"], "--d-model 16 does not divide into --n-head 3 heads of even width; take a multiple of 6"),
        (["--steps", "0"], "'--steps': 0 is not in the range"),
        (["--tokens", "words"], "'words' is not one of 'char', 'bpe'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--resume"], "there is no run in"),
    ],
)
def test_options_that_cannot_be(tmp_path, book, capsys, arguments, says):
    assert says in refusal(capsys, *SMALL, "--text", book, "--out", tmp_path / "run", *arguments)


def test_a_folder_in_use_or_damaged_or_of_another_run(tmp_path, book, whole, capsys):
    assert "holds a run already; go on with it by --resume" in refusal(capsys, "--out", whole)
    assert "made with n_layer=2, this run has n_layer=3" in refusal(
        capsys, "--resume", "--out", whole, "--n-layer", 3
    )
    text = book.read_text()
    book.write_text(text[::-1])
    assert "was made from another text" in refusal(capsys, "--resume", "--out", whole)
    book.write_text(text)

    checkpoint, kept = whole / "checkpoint.safetensors", whole / "record.json"
    data, old = checkpoint.read_bytes(), kept.read_text()
    with safe_open(checkpoint, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    save_file(load_file(checkpoint), checkpoint, {"about": json.dumps(about | {"version": 9})})
    assert "has checkpoint version 9, this code reads 1" in refusal(capsys, "--resume", "--out", whole)
    checkpoint.write_bytes(data[: len(data) // 2])
    assert "is not a whole checkpoint" in refusal(capsys, "--resume", "--out", whole)
    kept.write_text(old.replace('"version": 1', '"version": 2', 1))
    assert "record.json has version 2, this code reads 1" in refusal(capsys, "--resume", "--out", whole)
    kept.write_text(old[: len(old) // 2])
    assert "record.json is damaged" in refusal(capsys, "--resume", "--out", whole)
    kept.unlink()
    assert "record.json is missing" in refusal(capsys, "--resume", "--out", whole)


# --- memory -------------------------------------------------------------------------------------------------

def test_too_little_memory_is_said_before_the_run(tmp_path, book, capsys, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    says = refusal(capsys, *SMALL, "--text", book, "--out", tmp_path / "run")
    assert "not even one row fits: choose a smaller --d-model" in says


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("x can't allocate memory")], ids=str
)
def test_memory_that_runs_out_on_the_way(tmp_path, book, capsys, monkeypatch, error):
    def run(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", run)
        says = refusal(capsys, *SMALL, "--text", book, "--out", tmp_path / "run")
    assert "a batch of 4 rows needs about" in says and "--batch-size 2 --accumulate 2 is worth a try" in says
    again = ["--batch-size", 2, "--accumulate", 2]  # into the same folder: nothing was learnt in it
    assert ended(*SMALL, "--text", book, "--out", tmp_path / "run", *again) == 0


def test_any_other_error_stays_what_it_is(tmp_path, book, monkeypatch):
    error = RuntimeError("a bug of ours")

    def run(*arguments):
        raise error

    monkeypatch.setattr(training, "train", run)
    with pytest.raises(RuntimeError) as caught:
        main(["train", *SMALL, "--text", str(book), "--out", str(tmp_path / "run")])
    assert caught.value is error


def test_a_folder_that_cannot_be_written(tmp_path, book, capsys):
    (tmp_path / "file").write_text("")
    assert "choose another" in refusal(capsys, *SMALL, "--text", book, "--out", tmp_path / "file" / "run")


def test_the_presets_fit_any_machine():
    for preset in ("smoke", "cpu"):
        fields = PRESETS[preset]
        assert memory.memory(model_config(fields, 100), train_config(fields)) < 2**29
