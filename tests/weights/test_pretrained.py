"""Our logits against Hugging Face's, there and back, and what happens to files that are not right."""

import json
import os

import pytest
import torch
from hunt import hunt
from safetensors.torch import load_file, save_file

from lib.attention import grouped_attention
from lib.errors import CourseError
from lib.generation import generate, left_pad
from lib.kernels.door import written_out
from lib.transformer import Config, Transformer, rms_norm
from lib.weights import pretrained

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

LLAMA = dict(vocab_size=97, hidden_size=32, intermediate_size=56, num_hidden_layers=2, max_position_embeddings=64)
GPT2 = dict(vocab_size=97, n_positions=64)
CASES = {
    "gpt2": ("GPT2", GPT2 | dict(n_layer=2, n_head=4, n_embd=32)),
    "gpt2-one-head": ("GPT2", GPT2 | dict(n_layer=1, n_head=1, n_embd=24)),
    "gpt2-wide-mlp": (
        "GPT2",
        GPT2 | dict(n_layer=3, n_head=2, n_embd=64, n_inner=100, activation_function="relu"),
    ),
    "gpt2-untied": ("GPT2", GPT2 | dict(n_layer=2, n_head=4, n_embd=32, tie_word_embeddings=False)),
    "llama-mha": ("Llama", LLAMA | dict(num_attention_heads=4, num_key_value_heads=4)),
    "llama-gqa": ("Llama", LLAMA | dict(num_attention_heads=8, num_key_value_heads=2)),
    "llama-mqa": (
        "Llama",
        LLAMA | dict(num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True),
    ),
    "llama-head-dim": ("Llama", LLAMA | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16)),
    "llama-biases": ("Llama", LLAMA | dict(num_attention_heads=4, attention_bias=True, mlp_bias=True)),
    "llama-theta": (
        "Llama",
        LLAMA | dict(num_attention_heads=4, rope_parameters=dict(rope_type="default", rope_theta=5e5)),
    ),
    "mistral": (
        "Mistral",
        LLAMA | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=None),
    ),
    "mistral-window": (
        "Mistral",
        LLAMA | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=7),
    ),
    "qwen2": ("Qwen2", LLAMA | dict(num_attention_heads=4, num_key_value_heads=2)),
    "qwen2-tied": (
        "Qwen2",
        LLAMA | dict(num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True),
    ),
    "qwen2-window": (
        "Qwen2",
        LLAMA
        | dict(num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=5)
        | dict(layer_types=["sliding_attention"] * 2),
    ),
}


def hugging_face(case: str):
    family, fields = CASES[case]
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**fields)
    model = getattr(
        transformers,
        f"{family}{'LMHead' if family == 'GPT2' else 'ForCausal'}{'Model' if family == 'GPT2' else 'LM'}",
    )
    theirs = model(config).eval()
    for parameter in theirs.parameters():  # biases and norms start at 0 and 1, where mistakes hide
        parameter.data += 0.3 * torch.randn_like(parameter)
    return theirs


@pytest.fixture
def tokens():
    return torch.randint(97, (3, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_hugging_face_there_and_back(case, tokens, tmp_path):
    theirs = hugging_face(case)
    ours = pretrained.from_hf(theirs)
    with torch.no_grad():
        want = theirs(tokens).logits
        assert (ours(tokens) - want).abs().max() <= 1e-4
        with written_out(grouped_attention, rms_norm):
            assert (ours(tokens) - want).abs().max() <= 1e-4
        pretrained.save(ours, tmp_path)
        back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(back(tokens).logits, want)
        assert torch.equal(pretrained.load(tmp_path)(tokens), ours(tokens))
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def test_the_hub_s_own_gpt2_files_leave_the_first_word_out(tokens, tmp_path):
    ours = pretrained.from_hf(hugging_face("gpt2"))
    pretrained.save(ours, tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({name.removeprefix("transformer."): p for name, p in load_file(weights).items()}, weights)
    assert torch.equal(pretrained.load(tmp_path)(tokens), ours(tokens))


def test_a_wrong_scale_would_be_seen(tokens, monkeypatch):
    theirs = hugging_face("llama-gqa")
    ours = pretrained.from_hf(theirs)
    for block in ours.blocks:
        block.attention.q.weight.data *= 1.01
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() > 1e-4


PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a",
    "def fibonacci(n):",
    "The three primary colours are",
    "Dear customer, thank you for",
)


@pytest.fixture(scope="module")
def smollm2():
    """Ours, its tokenizer, and theirs; fails rather than skips when `course data` has not run."""
    from lib.sources.catalogue import smollm2_folder

    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32).eval()
    return *pretrained.load_smollm2(), theirs


def test_smollm2_logits(smollm2):
    ours, tokenizer, theirs = smollm2
    tokens = torch.tensor([tokenizer.encode(" ".join(PROMPTS))])
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() <= 1e-4


@pytest.fixture(scope="module")
def theirs_on(smollm2):
    """What transformers writes after each prompt: 64 tokens, all in one batch."""
    _, tokenizer, theirs = smollm2
    tokens, padding = left_pad([tokenizer.encode(prompt) for prompt in PROMPTS])
    there = torch.arange(tokens.size(1)) >= padding[:, None]  # (B, T)
    written = theirs.generate(
        tokens, attention_mask=there.long(), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return tokens, padding, written


def test_smollm2_greedy_texts(smollm2, theirs_on):
    ours, _, _ = smollm2
    tokens, padding, theirs = theirs_on
    mine = generate(ours, tokens, 64, padding=padding)
    for row, prompt in enumerate(PROMPTS):
        assert mine[row].tolist() == theirs[row].tolist(), prompt
    assert mine.shape == (len(PROMPTS), tokens.size(1) + 64)


@pytest.mark.parametrize("prompt", hunt(PROMPTS[:1], PROMPTS))
def test_smollm2_greedy_text_of_one_prompt_alone(smollm2, theirs_on, prompt):
    ours, tokenizer, _ = smollm2
    _, padding, theirs = theirs_on
    row = PROMPTS.index(prompt)
    mine = generate(ours, torch.tensor([tokenizer.encode(prompt)]), 64)
    assert mine[0].tolist() == theirs[row, padding[row] :].tolist()


def test_chat_layout_is_the_models_own_template(smollm2):
    from lib.sources.catalogue import smollm2_folder

    _, tokenizer, _ = smollm2
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2_folder())
    talk = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]
    for messages in (talk[:1], [{"role": "system", "content": "Be brief."}, *talk, talk[0]]):
        text = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert tokenizer.chat(messages) == tokenizer.encode(text)


def small(**fields):
    return Transformer(Config.llama(**(dict(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=8) | fields)))


@pytest.mark.parametrize(
    "fields",
    [
        dict(norm="layer"),
        dict(mlp="plain"),
        dict(mlp_bias=True, sliding_window=4),
        dict(causal=False),
        dict(activation="relu2"),
    ],
)
def test_a_model_of_no_known_family_is_not_saved(fields, tmp_path):
    with pytest.raises(CourseError):
        pretrained.save(small(**fields), tmp_path / "x")
    assert not (tmp_path / "x" / "config.json").exists()


def test_gpt2_s_heads_are_as_wide_as_the_model(tmp_path):
    sizes = dict(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=8)
    with pytest.raises(CourseError, match="head_dim"):
        pretrained.save(Transformer(Config.gpt2(**sizes, head_dim=8)), tmp_path)


def test_bad_files_say_what_to_do(tmp_path):
    with pytest.raises(CourseError, match=r"config\.json"):
        pretrained.load(tmp_path / "nothing")
    pretrained.save(small(), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CourseError, match="damaged"):
        pretrained.load(tmp_path)
    weights.unlink()
    with pytest.raises(CourseError, match=r"no model\.safetensors"):
        pretrained.load(tmp_path)
    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, says in (
        (dict(model_type="bert"), "gpt2, llama, mistral, qwen2"),
        (dict(hidden_size=None), "hidden_size"),
        (dict(hidden_size="8"), "whole number"),
        (dict(num_attention_heads=3), "multiple|divide"),
        (dict(intermediate_size=9), "shape"),
        (dict(num_hidden_layers=2), "lack"),
        (dict(hidden_act="swishy"), "activation"),
        (dict(hidden_act=["silu"]), "activation"),
        (dict(rope_parameters=dict(rope_type="yarn", factor=2.0)), "yarn"),
        (dict(rope_parameters=None, rope_scaling="linear"), "rotary scaling"),
        (dict(rope_parameters=None, rope_theta="1e4"), "rope_theta"),
        (dict(rope_parameters=dict(rope_theta=-1.0)), "rope_theta"),
        (dict(rms_norm_eps="1e-5"), "rms_norm_eps"),
        (dict(head_dim="4"), "head_dim"),
        (dict(model_type="mistral", sliding_window=-4), "sliding_window"),
        (dict(model_type="mistral", sliding_window="4"), "sliding_window"),
        (dict(model_type="qwen2", use_sliding_window=True, sliding_window=4, layer_types=7), "layer_types"),
        (dict(model_type="qwen2", use_sliding_window=True, sliding_window=4, layer_types=None, max_window_layers=-1),
         "max_window_layers"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CourseError, match=says):
            pretrained.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    for index in ("{}", '{"weight_map": []}', '{"weight_map": {"lm_head.weight": 3}}'):
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(CourseError, match=r"index\.json names no files"):
            pretrained.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CourseError, match="JSON"):
        pretrained.load(tmp_path)


def test_windows_of_files_that_leave_things_out():
    """As transformers reads them."""
    heads = LLAMA | dict(num_attention_heads=4, num_key_value_heads=2, hidden_act="silu")
    for whole, window in ((0, 7), (1, "mixed"), (2, None), (None, None)):
        older = heads | dict(model_type="qwen2", use_sliding_window=True, sliding_window=7)
        older |= {} if whole is None else dict(max_window_layers=whole)
        theirs = transformers.Qwen2Config(**older).layer_types
        if window == "mixed":
            assert len(set(theirs)) == 2
            with pytest.raises(CourseError, match="mixed"):
                pretrained.config_from_hf(older)
        else:
            assert theirs == ["sliding_attention" if window else "full_attention"] * 2
            assert pretrained.config_from_hf(older).sliding_window == window
    for given in ({}, dict(sliding_window=None), dict(sliding_window=9)):
        theirs = transformers.MistralConfig(**heads | given).sliding_window
        assert pretrained.config_from_hf(heads | given | dict(model_type="mistral")).sliding_window == theirs


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CourseError, match="cannot save"):
        pretrained.save(small(), tmp_path / "file" / "model")
