"""SmolLM2 from its packed form (GGUF, 4.5 bits a weight) to an ordinary Hugging Face folder in float32.

Done once, by `course data`, in a process of its own: `python -m lib.weights.convert FILE.gguf FOLDER`. It takes about
15 seconds and 1.5 GB of memory, needs no network and prints nothing. Reading the result takes under a second.
"""

import os
import sys
from pathlib import Path

FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def convert(gguf: str | Path, folder: str | Path) -> None:
    """Write FILES into `folder`, which exists: weights in float32, settings, tokenizer and chat template.

    The weights are the 4-bit ones written out in full: what rounding lost stays lost.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    gguf, folder = Path(gguf), Path(folder)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}

    config = AutoConfig.from_pretrained(**source)
    config.rms_norm_eps = 1e-5  # the file keeps it in float32: 9.999999747e-06
    with torch.device("meta"):  # names and shapes are all that reading needs; no memory, no random numbers
        empty = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(empty).__name__]
    config.dtype = torch.float32
    weights = load_gguf_checkpoint(gguf, return_tensors=True, model_to_load=empty)["tensors"]
    missing = set(empty.state_dict()) - set(weights) - {"lm_head.weight"}  # the head is the embedding, tied
    if missing:
        raise ValueError(f"{gguf.name} lacks {', '.join(sorted(missing)[:3])}")
    save_file(
        {name: weight.float().contiguous() for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "model.safetensors").chmod(0o644)  # written for its owner alone; a cache may be shared
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)

    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The file only names SmolLM's rule ("smollm": each digit a token of its own) and transformers does not
    # apply it; without it "  12" comes out differently from how the model learnt it.
    rules = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    rules.pre_tokenizer = pre_tokenizers.Sequence([digits, rules.pre_tokenizer])
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    os.environ |= {  # before transformers is imported: silent, and without a network
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    convert(sys.argv[1], sys.argv[2])
