"""Lesson 10, sizing: references and mutants."""

import math

from lib.answers import Answer, Mutant


def block_parameters(D, H, K, Dh, F):
    queries_and_out = 2 * D * H * Dh
    keys_and_values = 2 * D * K * Dh
    gated = 3 * D * F
    return queries_and_out + keys_and_values + gated + 2 * D


def cache_bytes(L, K, Dh, T, batch, width, window):
    kept = T if window is None else min(T, window)
    return 2 * L * K * Dh * kept * batch * width


def training_bytes(N, devices, stage):
    def share(least):
        return devices if stage >= least else 1

    return 2 * N / share(3) + 2 * N / share(2) + 12 * N / share(1)


def break_even(tokens, api_price, rent, seconds):
    one_request = tokens / 1e6 * api_price
    requests = rent * 720 / one_request
    return requests if requests * seconds <= 720 * 3600 else math.inf


def catches_heads(formula):
    for L, H, K, Dh, T, batch, width in ((3, 32, 1, 80, 10_000, 5, 4), (2, 12, 3, 48, 7, 2, 1)):
        if formula(L, H, K, Dh, T, batch, width) != 2 * L * K * Dh * T * batch * width:
            return True
    return False


ANSWERS = {
    "10.block_parameters": Answer(block_parameters, (
        Mutant("two matrices", "3 * D * F", "2 * D * F", "Yours has two"),
        Mutant("no norms", " + 2 * D\n", "\n", "The two norms are missing"),
        Mutant("one norm", "gated + 2 * D", "gated + D", "two norms in a block"),
        Mutant("shifted norms", "gated + 2 * D", "gated + 4 * D", "It has no shift"),
        Mutant("no way out", "2 * D * H * Dh", "D * H * Dh", "Attention has four matrices"),
        Mutant("query heads everywhere", "2 * D * K * Dh", "2 * D * H * Dh  # K", "counted for all H query heads"),
        Mutant("keys only", "2 * D * K * Dh", "D * H * Dh + D * K * Dh", "Only one of keys and values"),
        Mutant("heads as wide as the model", "2 * D * H * Dh", "D * D + D * H * Dh", "the count is wrong"),
    )),
    "10.cache_bytes": Answer(cache_bytes, (
        Mutant("keys only", "2 * L", "L", "Half of it is missing"),
        Mutant("numbers, not bytes", " * width", "", "Half of it is missing"),
        Mutant("one layer", "2 * L *", "2 *", "Each layer has keys and values"),
        Mutant("one token", "Dh * kept", "Dh", "the cache of one token"),
        Mutant("one text", " * batch", "", "Every text of the batch"),
        Mutant("no window", "min(T, window)", "T", "keeps no more than"),
        Mutant("always the window", "min(T, window)", "window", "only T tokens to keep"),
        Mutant("always two bytes", "batch * width", "batch * 2", "another width"),
    )),
    "10.training_bytes": Answer(training_bytes, (
        Mutant("optimizer alone", "2 * N / share(3) + 2 * N / share(2) + ", "", "the optimizer's part alone"),
        Mutant("no gradients", " + 2 * N / share(2)", "", "Weights or gradients are missing"),
        Mutant("no master copy", "12 * N", "8 * N", "copy of the weights"),
        Mutant("one number of the optimizer", "12 * N", "4 * N", "keeps three numbers"),
        Mutant("all at once", "stage >= least", "stage >= 1", "Only stage 3 does that"),
        Mutant("shared at stage 0", "stage >= least", "True", "At stage 0 nothing is shared"),
        Mutant("gradients too soon", "share(2)", "share(1)", "that comes with stage 2"),
        Mutant("weights never", "2 * N / share(3) + ", "2 * N + ", "At stage 3"),
        Mutant("off by one", "stage >= least", "stage > least", "At stage 1"),
    )),
    "10.break_even": Answer(break_even, (
        Mutant("an hour's rent", "rent * 720 / one", "rent / one", "for the whole month"),
        Mutant("price of one token", "tokens / 1e6 * api_price", "tokens * api_price", "a *million* tokens"),
        Mutant("upside down", "rent * 720 / one_request", "one_request / (rent * 720)", "upside down"),
        Mutant("tokens, not requests", "tokens / 1e6 * api_price", "api_price / 1e6", "a request has several"),
        Mutant("rent a second", "rent * 720 / one", "rent * 720 * 3600 / one", "for an hour, not for a second"),
        Mutant("never too slow", "requests * seconds <= 720 * 3600", "True", "cannot reach this break-even"),
        Mutant("nothing instead", "else math.inf", "else 1e9", "return math.inf"),
        Mutant("a day of 8 hours", "<= 720 * 3600", "<= 240 * 3600", "can just serve"),
    )),
    "10.catches_heads": Answer(catches_heads, (
        Mutant("as many heads", "(3, 32, 1, 80, 10_000, 5, 4), (2, 12, 3, 48, 7, 2, 1)",
               "(3, 1, 1, 80, 10_000, 5, 4), (2, 3, 3, 48, 7, 2, 1)", "counts query heads"),
        Mutant("small groups only", "(3, 32, 1, 80, 10_000, 5, 4), (2, 12, 3, 48, 7, 2, 1)",
               "(3, 4, 2, 80, 10_000, 5, 4),", "groups of more than eight"),
        Mutant("one text", "10_000, 5, 4), (2, 12, 3, 48, 7, 2, 1)", "10_000, 1, 4), (2, 12, 3, 48, 7, 1, 1)",
               "forgets the batch"),
        Mutant("two bytes", "5, 4), (2, 12, 3, 48, 7, 2, 1)", "5, 2), (2, 12, 3, 48, 7, 2, 2)", "2 bytes"),
        Mutant("one layer", "(3, 32, 1, 80, 10_000, 5, 4), (2, 12", "(1, 32, 1, 80, 10_000, 5, 4), (1, 12",
               "only one layer"),
        Mutant("usual heads", "(3, 32, 1, 80, 10_000, 5, 4), (2, 12, 3, 48,",
               "(3, 32, 1, 64, 10_000, 5, 4), (2, 12, 3, 64,", "64 wide"),
        Mutant("short texts", "10_000", "100", "4,096"),
        Mutant("only too much", "!= 2 * L", "> 2 * L", "forgets the values"),
        Mutant("the other way round", "return True", "return None or False", "It misses"),
        Mutant("compares text", "formula(L, H, K, Dh, T, batch, width) != 2 * L * K * Dh * T * batch * width",
               "str(formula(L, H, K, Dh, T, batch, width)) != str(2 * L * K * Dh * T * batch * width)",
               "returns a float"),
    )),
}
