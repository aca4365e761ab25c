"""Checkpoints: a run that is killed goes on from its last one, and ends with the very weights of one that was not.

That works because a run draws everything from (seed, step): weights, the optimizers' averages and the history are all
there is to keep. A run's `config` is a lib.training.TrainConfig.
"""

import contextlib
import dataclasses
import json
import re
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.errors import CourseError
from lib.trainer.history import History
from lib.trainer.parallel import ALONE, Team, cut, whole
from lib.trainer.part import Part
from lib.transformer import Transformer

VERSION = 1
FREE = {"eval_every", "eval_batches", "checkpoint_every", "compile"}  # these do not change where a run goes


class Checkpoints(Part):
    """Keeps checkpoint.safetensors in a folder: every checkpoint_every steps, at the end, and when a run is ended.

    text: the fingerprint of what the run reads. team: see save_checkpoint.
    """

    def __init__(self, folder: str | Path, model: Transformer, optimizers, config, text: str, team: Team = ALONE):
        self.path = Path(folder) / "checkpoint.safetensors"
        self.model, self.optimizers, self.config, self.text, self.team = model, optimizers, config, text, team

    def resume(self) -> History:
        """What the run in the folder has seen, model and optimizers put back as they were; else an empty history."""
        if not self.path.exists():
            return History()
        return load_checkpoint(self.path, self.model, self.optimizers, self.config, self.text)

    def begin(self, history: History) -> None:
        self.history = history

    def after(self, done: int, loss: Tensor, ending: bool = False) -> bool:
        every = self.config.checkpoint_every
        if ending or done == self.config.steps or (every and done % every == 0):
            self.history.settle()
            save_checkpoint(self.path, self.model, self.optimizers, self.config, self.history, self.text, self.team)
        return ending


def fingerprint(tokens: Tensor) -> str:
    """Length and checksum of a text's tokens (N,): a run that goes on must go on reading the same text."""
    tokens = tokens.cpu().to(torch.int32).contiguous()  # (N,)
    return f"{tokens.numel()} tokens, {zlib.crc32(tokens.numpy()):08x}"


def save_checkpoint(
    path: Path,
    model: Transformer,
    optimizers,
    config,
    history: History,
    text: str = "",
    team: Team = ALONE,
) -> None:
    """Everything a run needs to go on, in one safetensors file that appears whole or not at all.

    text: the fingerprint of what it reads. team: all its processes call this, since tensors that are cut are made
    whole, one at a time; the leader writes. Raises CourseError if the file cannot be written.
    """
    tensors = {f"model/{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    names = {p: name for name, p in model.named_parameters()}
    for i, optimizer in enumerate(optimizers):
        for p, state in optimizer.state.items():
            tensors |= {f"optimizer/{i}/{key}/{names[p]}": value for key, value in state.items()}
    complete = {}
    for key, value in tensors.items():
        value = whole(value)
        if team.leader:
            complete[key] = value.contiguous().cpu()
    if not team.leader:
        return
    about = dict(
        version=VERSION,
        text=text,
        model=model.config.to_dict(),
        train=dataclasses.asdict(config),
        history=dataclasses.asdict(history),
    )
    half = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(complete, half, metadata={"about": json.dumps(about, allow_nan=False)})
        half.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        why = " ".join(str(error).split())
        raise CourseError(f"cannot write {path} ({why}); free some space or choose another folder") from None


def load_checkpoint(path: Path, model: Transformer, optimizers, config, text: str = "") -> History:
    """Put model and optimizers back as they were; returns the history so far.

    Raises CourseError, and changes nothing, if the file is damaged or belongs to another model, run or text.
    """
    about, tensors, history = _read(path)
    _see_that_it_is_this_run(path, about, model, config, text)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}  # what is frozen is not kept
    slots = _slots(path, tensors, parameters, optimizers)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(cut(tensors[f"model/{name}"], like=p))
    for key, (optimizer, slot, p) in slots.items():
        value = tensors[key]
        # The fused AdamW's step count too, which is nobody's share.
        optimizer.state[p][slot] = cut(value, like=p) if value.ndim else value.to(p.device)
    return history


def _read(path: Path) -> tuple[dict, dict[str, Tensor], History]:
    """What a checkpoint says about its run, its tensors, and the history."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        version = about["version"]
        saved = {} if version != VERSION else {part: about[part] for part in ("model", "train", "text")}
        history = History(**about["history"]) if version == VERSION else History()
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise CourseError(f"{path} is not a whole checkpoint ({why}); delete it to start anew") from None
    if version != VERSION:
        raise CourseError(f"{path} has checkpoint version {version}, this code reads {VERSION}; delete it or update")
    return saved, tensors, history


def _see_that_it_is_this_run(path: Path, saved: dict, model: Transformer, config, text: str) -> None:
    ours = json.loads(json.dumps(dict(model=model.config.to_dict(), train=dataclasses.asdict(config)), allow_nan=False))
    for part, fields in ours.items():
        for name, value in fields.items():
            if name not in FREE and saved[part].get(name) != value:
                raise CourseError(
                    f"{path} was made with {name}={saved[part].get(name)}, this run has {name}={value}; "
                    f"match it, or delete the checkpoint to start anew"
                )
    if saved["text"] != text:
        what = "text or LoRA" if "LoRA" in f"{saved['text']} {text}" else "text"
        raise CourseError(
            f"{path} was made from another {what} ({saved['text']}; this one has {text}); "
            f"match it, or delete the checkpoint to start anew"
        )


def _slots(path: Path, tensors: dict[str, Tensor], parameters: dict[str, Tensor], optimizers) -> dict[str, tuple]:
    """Of each key of an optimizer's tensor: the optimizer, what it keeps there, and of which parameter.

    Raises CourseError unless every tensor has its place, and every parameter its tensor.
    """
    if lost := [name for name in parameters if f"model/{name}" not in tensors]:
        raise CourseError(f"{path} is not a whole checkpoint ({lost[0]} is missing); delete it to start anew")
    slots = {}
    for key, value in tensors.items():
        part, _, name = key.rpartition("/")
        of_optimizer, p = re.fullmatch(r"optimizer/(\d+)/(\w+)", part), parameters.get(name)
        known = part == "model" or (of_optimizer and int(of_optimizer[1]) < len(optimizers))
        if not known or p is None or (value.shape != p.shape and (part == "model" or value.ndim)):
            raise CourseError(f"{path} is of another model ({key} does not fit); delete it to start anew")
        if of_optimizer:
            slots[key] = optimizers[int(of_optimizer[1])], of_optimizer[2], p
    return slots
