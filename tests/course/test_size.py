"""`course size`: one object as JSON, a short table for people, one clear line for what cannot be sized."""

import json
import subprocess
import sys

import pytest

from lib.course import cli
from lib.decide.counting import count, load
from lib.errors import CourseError


@pytest.fixture
def size(capsys):
    """Runs the command; returns (exit status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["size", *map(str, arguments)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


@pytest.fixture
def config(tmp_path):
    def write(content, name="config.json"):
        path = tmp_path / name
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(
            content if isinstance(content, str) else json.dumps(content))
        return path

    return write


LLAMA = dict(model_type="llama", vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4)  # fmt: skip


def test_json_is_one_object_with_the_exact_total(size, config):
    code, out, err = size("gpt2", "--json", "--tokens", "10B", "--device", "a100")
    told = json.loads(out)
    assert code == 0 and not err and told["parameters"] == 124_439_808 == sum(told["parts"].values())
    assert told["asked"]["tokens"] == 1e10 and told["device"]["name"] == "a100"
    code, out, _ = size(config(LLAMA), "--json")
    assert json.loads(out)["parameters"] == count(LLAMA).parameters


def test_a_folder_a_short_name_and_the_table(size, config):
    path = config(LLAMA)
    assert size(path.parent)[0] == size("SMOLLM2-135m")[0] == 0
    code, out, _ = size("Llama-3.1-8B", "--devices", 8, "--zero", 3, "--checkpointing", "--quantize", "int4",
                        "--precision", "bfloat16", "--price", 2, "--batch", 2)  # fmt: skip
    assert code == 0
    for said in ("8,030,261,248", "memory to train", "memory to answer", "tokens a second", "8 × NVIDIA H100"):
        assert said in " ".join(out.split())
    assert "gpt2" in size("--list")[1] and "h100" in size("--list")[1]


def test_options_change_what_they_should(size):
    plain = json.loads(size("Llama-3.1-8B", "--json")[1])
    less = json.loads(size("Llama-3.1-8B", "--json", "--zero", 3, "--devices", 8, "--quantize", "int8")[1])
    assert less["training_memory"]["weights"] == plain["training_memory"]["weights"] / 8
    assert less["inference_memory"]["weights"] == plain["inference_memory"]["weights"] / 2
    longer = json.loads(size("Llama-3.1-8B", "--json", "--context", 8192)[1])
    assert longer["inference_memory"]["kv_cache"] == 2 * plain["inference_memory"]["kv_cache"]


def test_it_starts_without_torch():
    code = ("import sys; from lib.course.cli import course\n"
            "course.main(['size', 'gpt2', '--json'], standalone_mode=False)\n"
            "assert 'torch' not in sys.modules and 'transformers' not in sys.modules and 'numpy' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


ABSURD = [
    (dict(num_attention_heads=0), "num_attention_heads=0"), (dict(hidden_size=33), "does not divide into 4 heads"),
    (dict(num_key_value_heads=3), "do not divide over 3"), (dict(hidden_size="big"), "hidden_size is 'big'"),
    (dict(num_hidden_layers=10**30), "num_hidden_layers=1e+30"), (dict(vocab_size=-5), "vocab_size=-5"),
    (dict(intermediate_size=True), "intermediate_size is True"), (dict(hidden_size=None), "hidden_size is None"),
    (dict(hidden_size=32.5), "hidden_size is 32.5"), (dict(architectures="Llama"), "a list of class names"),
    (dict(tie_word_embeddings="yes"), "true or false"), (dict(hidden_size=[]), "hidden_size is []"),
    (dict(model_type=7), "no model_type"), (dict(head_dim=0), "head_dim=0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), ABSURD)
def test_absurd_fields_are_named(size, config, change, said):
    code, out, err = size(config(LLAMA | change))
    assert code == 2 and not out and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    ("content", "said"),
    [("[1, 2]", "it holds a list"), ("7", "it holds a number"), ("", "no JSON"), ("{", "no JSON"),
     (b"\x00\xff\xfe" * 50, "no JSON"), (" " * (2**20 + 1), "bytes"), ("{}", "no model_type"), ("null", "nothing"),
     ("[" * 100_000, "no JSON"), ('{"model_type": "llama", "hidden_size": 1' + "0" * 5000 + "}", "no JSON"),
     ('{"model_type": "llama", "hidden_size": NaN}', "hidden_size is nan"),
     ('{"model_type": "llama", "hidden_size": Infinity}', "hidden_size is inf")],
)  # fmt: skip
def test_what_is_no_config_is_told_so(size, config, content, said):
    code, out, err = size(config(content))
    assert code == 2 and not out and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere.json"], "no file 'nowhere.json'"), (["gtp2"], "did you mean"), ([], "name a model"),
     (["gpt2", "--device", "h101"], "choose h100, h200"), (["gpt2", "--tokens", "-5"], "no number of tokens"),
     (["gpt2", "--tokens", "many"], "no number of tokens"), (["gpt2", "--tokens", "0"], "no number of tokens"),
     (["gpt2", "--batch", "0"], "--batch"), (["gpt2", "--zero", "4"], "--zero"), (["x" * 5000], "unknown model"),
     (["gpt2", "--utilisation", "0"], "--utilisation"), (["gpt2", "--context", "-1"], "--context"),
     (["gpt2", "--price", "nan"], "--price")],
)  # fmt: skip
def test_a_mistake_costs_one_line(size, arguments, said):
    code, out, err = size(*arguments)
    assert code == 2 and not out and err.count("\n") == 1 and said in err, err


def test_a_folder_without_a_config(size, tmp_path):
    assert "no config.json" in size(tmp_path)[2]


def test_a_type_without_a_formula_is_built_without_numbers(size, config):
    granite = dict(model_type="granite", vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                   num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)  # fmt: skip
    llama = LLAMA | dict(num_key_value_heads=2, tie_word_embeddings=True)
    model = load(config(granite))
    assert model.exact == "transformers" and model.parameters == count(llama).parameters
    assert model.matrices == count(llama).matrices
    for change, said in ((dict(model_type="granit"), "unknown model_type 'granit'"),
                         (dict(num_hidden_layers=10**30), "num_hidden_layers=1e+30"),
                         (dict(hidden_size="big"), "cannot build"),
                         (dict(architectures=["Trainer"]), "no model class 'Trainer'")):  # fmt: skip
        with pytest.raises(CourseError, match=said.replace("+", r"\+")):
            count(granite | change)
