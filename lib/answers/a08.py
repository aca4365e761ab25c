"""Lesson 08, vision transformer: references and mutants."""

import torch
import torch.nn.functional as F

from lib.answers import Answer, Mutant


def assemble(parts, size, picture):
    C, Y, X = picture
    grid = parts.reshape(-1, Y // size, X // size, C, size, size)  # (B, rows, columns, C, P, P)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, C, Y, X)  # (B, C, Y, X)


def with_class_token(x, token, positions):
    first = token.expand(len(x), 1, -1)  # (B, 1, D)
    return torch.cat([first, x], dim=1) + positions  # (B, T + 1, D)


def resize_positions(table, old, new):
    grid = table[1:].reshape(*old, -1)  # (rows, columns, D)
    image = grid.permute(2, 0, 1)[None]  # (1, D, rows, columns)
    fine = F.interpolate(image, size=new, mode="bilinear", align_corners=False)  # (1, D, new rows, new columns)
    return torch.cat([table[:1], fine[0].flatten(1).T])  # (1 + T, D)


def catches_blind(encode):
    B, T = 2, 7
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, 8, generator=generator)  # (B, T, D)
    out = encode(x)  # (B, T, D)
    for t in range(T):
        other = x.clone()
        other[0, t] = torch.randn(8, generator=generator)
        change = (encode(other) - out).abs().amax(-1)  # (B, T)
        if change[0].min() < 1e-4 or change[1].max() > 1e-4:
            return True
    return torch.allclose(encode(x.flip(1)), out.flip(1), atol=1e-4)


ANSWERS = {
    "08.assemble": Answer(assemble, (
        Mutant("reshape alone", "grid.permute(0, 3, 1, 4, 2, 5)", "grid", "A reshape alone never moves a number"),
        Mutant("patches on their side", "permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 1, 5, 2, 4)",
               "Each patch lies on its side"),
        Mutant("down the columns", "permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 2, 4, 1, 5)", "down the columns"),
        Mutant("all on its side", "permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 2, 5, 1, 4)", "whole picture lies on"),
        Mutant("rows and columns counted wrongly", "Y // size, X // size,", "X // size, Y // size,",
               "wider than tall"),
        Mutant("channels last", "C, size, size)  # (B, rows, columns, C, P, P)",
               "size, size, C).movedim(-1, 3)", "With three channels"),
        Mutant("pictures mix", "parts.reshape(-1, Y // size, X // size, C, size, size)",
               "parts.reshape(Y // size, X // size, -1, C, size, size).movedim(2, 0)",
               "pieces of one turn up in another"),
        Mutant("one picture", "reshape(-1, C, Y, X)", "reshape(-1, C, Y, X)[0]", "shape of the result"),
        Mutant("upside down", "permute(0, 3, 1, 4, 2, 5)", "flip(1).permute(0, 3, 1, 4, 2, 5)", "does not come back"),
    )),
    "08.with_class_token": Answer(with_class_token, (
        Mutant("at the end", "[first, x]", "[x, first]", "stands at the end"),
        Mutant("the mean", "token.expand(len(x), 1, -1)", "x.mean(dim=1, keepdim=True)", "the mean of the patches"),
        Mutant("added to the patches", "[first, x]", "[first, x + first]", "is added to the patches"),
        Mutant("no positions", " + positions", "", "No positions are added"),
        Mutant("token without a position", "[first, x], dim=1) + positions", "[first, x + positions[1:]], dim=1)",
               "The class token has no position"),
        Mutant("off by one", "+ positions", "+ positions.roll(1, 0)", "off by one"),
        Mutant("twice", "+ positions", "+ 2 * positions", "added twice"),
        Mutant("first picture only", "token.expand(len(x), 1, -1)",
               "torch.cat([token.view(1, 1, -1), torch.zeros(len(x) - 1, 1, len(token))])", "Only some pictures"),
        Mutant("in the first patch's place", "[first, x], dim=1) + positions",
               "[first, x[:, 1:]], dim=1) + positions[1:]", "shape of the result"),
    )),
    "08.resize_positions": Answer(resize_positions, (
        Mutant("nearest", 'mode="bilinear", align_corners=False', 'mode="nearest"', "copied to its nearest"),
        Mutant("corners", "align_corners=False", "align_corners=True", "align_corners=False"),
        Mutant("class row at the end", "[table[:1], fine[0].flatten(1).T]", "[fine[0].flatten(1).T, table[:1]]",
               "went to the end"),
        Mutant("class row lost", "[table[:1], fine", "[torch.zeros_like(table[:1]), fine", "must stay row 0 as it is"),
        Mutant("class row counted", "table[1:]", "table[:-1]", "leaks into the patches"),
        Mutant("no permute", "grid.permute(2, 0, 1)[None]", "grid.reshape(1, -1, *old)", "never moves an axis"),
        Mutant("old grid tilted", "reshape(*old, -1)", "reshape(old[1], old[0], -1)", "nothing may change"),
        Mutant("new grid read by columns", "fine[0].flatten(1)", "fine[0].mT.flatten(1)", "nothing may change"),
        Mutant("in a line", "F.interpolate(image, size=new, mode=\"bilinear\", align_corners=False)",
               "F.interpolate(image.flatten(2), size=new[0] * new[1], mode=\"linear\", align_corners=False)",
               "as if the patches stood in a line"),
        Mutant("class row not given back", "torch.cat([table[:1], fine[0].flatten(1).T])", "fine[0].flatten(1).T",
               "shape of the result"),
    )),
    "08.catches_blind": Answer(catches_blind, (
        Mutant("always True", "return torch.allclose(encode(x.flip(1)), out.flip(1), atol=1e-4)", "return True",
               "It says True to an encoder that sees"),
        Mutant("never True", "    B, T = 2, 7", "    return False\n    B, T = 2, 7", "without positions"),
        Mutant("order forgotten", "return torch.allclose(encode(x.flip(1)), out.flip(1), atol=1e-4)", "return False",
               "without positions: shuffle the patches"),
        Mutant("only the order", "change[0].min() < 1e-4 or change[1].max() > 1e-4", "False",
               "the causal mask that was left on"),
        Mutant("order the wrong way", "out.flip(1), atol", "out, atol", "without positions: shuffle the patches"),
        Mutant("changes only the last", "for t in range(T):", "for t in [T - 1]:", "a mask the other way round"),
        Mutant("changes only the first", "for t in range(T):", "for t in [0]:", "the causal mask that was left on"),
        Mutant("changes the ends", "for t in range(T):", "for t in [0, T - 1]:", "the patch in the middle"),
        Mutant("some output", "change[0].min()", "change[0].max()", "the causal mask that was left on"),
        Mutant("too few patches", "B, T = 2, 7", "B, T = 2, 3", "only its neighbours"),
        Mutant("batch forgotten", " or change[1].max() > 1e-4", "", "pictures of a batch change one another"),
        Mutant("looks at the last picture only", "change[1].max() > 1e-4", "change[1].max() > 1e9",
               "pictures of a batch change one another"),
        Mutant("exact", "change[1].max() > 1e-4", "change[1].max() > 0", "wobble in the last bits"),
        Mutant("adds one", "torch.randn(8, generator=generator)", "x[0, t] + 1", "begins with a LayerNorm"),
        Mutant("returns a tensor", "            return True", "            return change", "True or False is expected"),
    )),
}
