"""Lesson 04, the transformer: references and mutants."""

import torch
import torch.nn.functional as F

from lib.answers import Answer, Mutant


def count_params(d_model, d_ff, n_layers, vocab):
    attention = 4 * (d_model * d_model + d_model)
    mlp = d_model * d_ff + d_ff + d_ff * d_model + d_model
    norms = 2 * (2 * d_model)
    final = 2 * d_model
    return vocab * d_model + n_layers * (attention + mlp + norms) + final


def rms_norm(x, weight, eps):
    square = x.pow(2).mean(-1, keepdim=True)  # (..., 1)
    return x / torch.sqrt(square + eps) * weight  # (..., D)


def gated_mlp(x, w_gate, w_up, w_down):
    gate = F.silu(x @ w_gate.T)  # (..., F)
    return (gate * (x @ w_up.T)) @ w_down.T  # (..., D)


def transformer(tokens, table, blocks, norm, head):
    x = table[tokens]  # (B, T, D)
    for block in blocks:
        x = block(x)  # (B, T, D)
    return norm(x) @ head.T  # (B, T, V)


def pre_norm_block(x, norm1, attend, norm2, mlp):
    x = x + attend(norm1(x))  # (..., T, D)
    return x + mlp(norm2(x))  # (..., T, D)


def catches_leak(model):
    B, T = 2, 16
    tokens = torch.randint(50, (B, T), generator=torch.Generator().manual_seed(0))  # (B, T)
    before = model(tokens)  # (B, T, V)
    for t in range(T - 1):
        changed = tokens.clone()
        changed[:, t + 1:] = (tokens[:, t + 1:] + 1) % 50
        after = model(changed)  # (B, T, V)
        if not torch.allclose(before[:, : t + 1], after[:, : t + 1], rtol=0, atol=2e-5):
            return True
    other = tokens.clone()
    other[0] = (tokens[0] + 1) % 50
    return not torch.allclose(before[1], model(other)[1], rtol=0, atol=2e-5)


ANSWERS = {
    "04.rms_norm": Answer(rms_norm, (
        Mutant("sum, not mean", ".mean(-1, keepdim=True)", ".sum(-1, keepdim=True)", "not their sum"),
        Mutant("no root", "torch.sqrt(square + eps)", "(square + eps)", "square root is missing"),
        Mutant("no weight", " * weight", "", "weight is not used"),
        Mutant("weight added", " * weight", " + weight", "it multiplies"),
        Mutant("eps outside", "torch.sqrt(square + eps)", "(torch.sqrt(square) + eps)", "inside* the square root"),
        Mutant("no eps", "square + eps", "square", "becomes NaN"),
        Mutant("layer norm", "x.pow(2).mean(-1, keepdim=True)",
               "x.var(-1, keepdim=True, correction=0)\n    x = x - x.mean(-1, keepdim=True)", "That is LayerNorm"),
        Mutant("standard deviation", "x.pow(2).mean(-1, keepdim=True)", "x.var(-1, keepdim=True)",
               "measured from zero"),
        Mutant("over everything", "x.pow(2).mean(-1, keepdim=True)", "x.pow(2).mean()", "on its own"),
        Mutant("over positions", "x.pow(2).mean(-1, keepdim=True)",
               "x.pow(2).mean(tuple(range(max(1, x.dim() - 1))) , keepdim=True) if x.dim() > 2 else "
               "x.pow(2).mean(-1, keepdim=True)", "Yours is not"),
        Mutant("multiplied", "x / torch", "x * torch", "divide by it"),
        Mutant("keepdim forgotten", ", keepdim=True", "", "Your code raised"),
        Mutant("in place", "return x /", "return x.mul_(1.5) / 1.5 /", "in place"),
    )),
    "04.pre_norm_block": Answer(pre_norm_block, (
        Mutant("no residual on attention", "x = x + attend", "x = attend", "residual stream is missing"),
        Mutant("no residual on the MLP", "return x + mlp", "return mlp", "residual stream is missing"),
        Mutant("post-norm", "x = x + attend(norm1(x))", "x = norm1(x + attend(x))", "The norm sits on the branch"),
        Mutant("post-norm at the end", "return x + mlp(norm2(x))", "return norm2(x + mlp(x))",
               "The norm sits on the branch"),
        Mutant("norm written on the stream", "x = x + attend(norm1(x))", "x = norm1(x)\n    x = x + attend(x)",
               "The norm sits on the branch"),
        Mutant("no norm for attention", "attend(norm1(x))", "attend(x)", "raw stream"),
        Mutant("no norm for the MLP", "mlp(norm2(x))", "mlp(x)", "raw stream"),
        Mutant("norms swapped", "x = x + attend(norm1(x))", "norm1, norm2 = norm2, norm1\n    x = x + attend("
                                                             "norm1(x))", "norms are swapped"),
        Mutant("one norm for both", "mlp(norm2(x))", "mlp(norm1(x))", "norm2 is its own"),
        Mutant("norm after the branch", "attend(norm1(x))", "norm1(attend(x))", "raw stream"),
        Mutant("parallel", "x = x + attend(norm1(x))", "old = x\n    x = x + attend(norm1(x))\n    return x + mlp("
                                                       "norm2(old))", "before attention wrote"),
        Mutant("MLP forgotten", "return x + mlp(norm2(x))", "return x", "MLP writes never"),
        Mutant("attention forgotten", "x = x + attend(norm1(x))", "pass", "attention writes never"),
    )),
    "04.gated_mlp": Answer(gated_mlp, (
        Mutant("sigmoid", "F.silu(x @ w_gate.T)", "(x @ w_gate.T).sigmoid()", "plain sigmoid"),
        Mutant("ReLU", "F.silu", "F.relu", "ReLU"),
        Mutant("GELU", "F.silu", "F.gelu", "GELU"),
        Mutant("no bend", "F.silu(x @ w_gate.T)", "x @ w_gate.T", "Nothing bends"),
        Mutant("swapped", "gate = F.silu(x @ w_gate.T)", "gate = F.silu(x @ w_up.T)\n    w_up = w_gate",
               "swapped"),
        Mutant("bent after the product", "return (gate * (x @ w_up.T))", "return F.silu((x @ w_gate.T) * (x @ w_up.T))",
               "bends the product"),
        Mutant("added", "gate * (x", "gate + (x", "are added"),
        Mutant("no gate", "gate * (x @ w_up.T)", "F.silu(x @ w_up.T)", "gate is not used"),
        Mutant("no up", "(gate * (x @ w_up.T))", "gate", "`w_up` is not used"),
        Mutant("stream added", "return (gate", "return x + (gate", "The plus is the Block's"),
        Mutant("not transposed", "w_up.T", "w_up", "Your code raised"),
        Mutant("over everything", "F.silu(x @ w_gate.T)", "F.silu(x @ w_gate.T) / (1 + x.square().sum())", "3 ln 3"),
        Mutant("forgot return", "return (gate", "(gate", "Did you forget `return`?"),
    )),
    "04.transformer": Answer(transformer, (
        Mutant("no norm", "norm(x) @", "x @", "last norm is missing"),
        Mutant("norm first", "x = table[tokens]", "x, norm = norm(table[tokens]), lambda x: x", "norm comes first"),
        Mutant("norm after each", "x = block(x)  # (B, T, D)\n    return norm(x)", "x = norm(block(x))\n    return x",
               "after every Block"),
        Mutant("reversed", "in blocks", "in blocks[::-1]", "reverse order"),
        Mutant("one Block", "in blocks", "in blocks[:1]", "Only the first Block"),
        Mutant("last left out", "in blocks", "in blocks[:-1]", "last Block is left out"),
        Mutant("first left out", "in blocks", "in blocks[1:]", "first Block is left out"),
        Mutant("added again", "x = block(x)", "x = x + block(x)", "once more"),
        Mutant("each reads the embedding", "    for block in blocks:\n        x = block(x)  # (B, T, D)\n",
               "    x = sum(block(x) for block in blocks) if blocks else x\n", "reads the embedding"),
        Mutant("shares", "norm(x) @ head.T", "(norm(x) @ head.T).softmax(-1)", "Without Blocks"),
        Mutant("last position only", "norm(x) @ head.T", "norm(x)[:, -1] @ head.T", "The shape of the logits"),
        Mutant("head not transposed", "head.T", "head", "Your code raised"),
        Mutant("tied", "@ head.T", "@ table.T", "Without Blocks"),
        Mutant("forgot return", "return norm", "norm", "Did you forget `return`?"),
    )),
    "04.count_params": Answer(count_params, (
        Mutant("head counted too", "vocab * d_model", "2 * vocab * d_model", "counted twice"),
        Mutant("no embedding", "vocab * d_model + ", "", "token embedding is missing"),
        Mutant("three attention matrices", "4 * (d_model * d_model + d_model)",
               "3 * d_model * d_model + 4 * d_model", "One is missing"),
        Mutant("gated MLP", "mlp = d_model", "mlp = d_model * d_ff + d_model", "without a gate there are two"),
        Mutant("one MLP matrix", "d_ff * d_model + d_model", "d_model", "two matrices, up and down"),
        Mutant("no attention biases", "4 * (d_model * d_model + d_model)", "4 * d_model * d_model",
               "Four vectors of d_model are missing"),
        Mutant("no MLP biases", "d_model * d_ff + d_ff + d_ff * d_model + d_model", "2 * d_model * d_ff",
               "MLP's biases are missing"),
        Mutant("biases as long as the input", "d_model * d_ff + d_ff + d_ff * d_model + d_model",
               "2 * d_model * d_ff + 2 * d_model", "as long as the layer's *output*"),
        Mutant("no norms in the layers", "norms = 2 * (2 * d_model)", "norms = 0",
               "Four vectors of d_model are missing"),
        Mutant("one norm a layer", "norms = 2 * (2", "norms = (2", "one is missing"),
        Mutant("no final norm", "final = 2 * d_model", "final = 0", "final LayerNorm"),
        Mutant("head with a bias", "return vocab", "return vocab + vocab", "head has no bias"),
        Mutant("final norm in every layer", "norms) + final", "norms + final)", "the parts add up to 263"),
        Mutant("a fraction", "+ final", "+ final + 0.5", "whole number"),
    )),
    "04.catches_leak": Answer(catches_leak, (
        Mutant("always True", "return not torch.allclose(before[1], model(other)[1], rtol=0, atol=2e-5)",
               "return True", "It says True to a correct model"),
        Mutant("never True", "return True", "continue", "no mask at all"),
        Mutant("judges everything", "before[:, : t + 1], after[:, : t + 1]", "before, after",
               "It says True to a correct model"),
        Mutant("exact equality",
               "not torch.allclose(before[:, : t + 1], after[:, : t + 1], rtol=0, atol=2e-5)",
               "not torch.equal(before[:, : t + 1], after[:, : t + 1])", "last digits"),
        Mutant("too loose", "after[:, : t + 1], rtol=0, atol=2e-5", "after[:, : t + 1], rtol=0, atol=0.3",
               "tolerance too loose"),
        Mutant("skips the last position", "before[:, : t + 1], after[:, : t + 1]", "before[:, :t], after[:, :t]",
               "one:"),
        Mutant("short sequences only", "B, T = 2, 16", "B, T = 2, 8", "longer than 12"),
        Mutant("one row only", "return not torch.allclose(before[1], model(other)[1], rtol=0, atol=2e-5)",
               "return False", "of a batch"),
        Mutant("compares with the past", "after = model(changed)", "after = model(torch.zeros_like(changed))",
               "correct model"),
        Mutant("returns a tensor", "return True", "return before > 0", "True or False is expected"),
    )),
}
