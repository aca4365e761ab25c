"""A table of n-grams: chances by hand, and what any chances must do."""

import torch

from lib.decide.ngrams import witten_bell


def test_by_hand():
    """a b a b a c, three letters: a came 3 times of 6, three kinds; after a came b, b, c."""
    rows = torch.tensor([[0, 1, 0, 1, 0, 2]])
    single = (2 + 3 / 3) / (6 + 3)  # b: twice of six, three kinds
    assert witten_bell(rows, torch.tensor([[1]]), 3).tolist() == [single]
    pair = (2 + 2 * single) / (3 + 2)
    assert torch.allclose(witten_bell(rows, torch.tensor([[0, 1]]), 3), torch.tensor([pair], dtype=torch.float64))
    never = witten_bell(rows, torch.tensor([[2, 1]]), 3)  # nothing ever followed c
    assert torch.allclose(never, torch.tensor([single], dtype=torch.float64))


def test_chances_add_up_whatever_came_before():
    rows = torch.randint(7, (3, 40), generator=torch.Generator().manual_seed(0))
    for before in torch.randint(7, (20, 3), generator=torch.Generator().manual_seed(1)):
        asked = torch.cat([before.repeat(7, 1), torch.arange(7)[:, None]], dim=1)  # (V, n)
        chances = witten_bell(rows, asked, 7)
        assert (chances > 0).all() and torch.allclose(chances.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_grams_do_not_run_from_one_text_into_the_next():
    apart, joined = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0, 1, 2, 0]])
    asked = torch.tensor([[1, 2]])
    assert witten_bell(apart, asked, 3) < witten_bell(joined, asked, 3)
