"""What a model answers, in order, and what that costs."""

import pytest
import torch
from adapted import Numbers, stirred, tiny

from lib.adapt.lora import add_lora, lora_layers
from lib.adapt.replies import reply, request_flops

pytestmark = pytest.mark.usefixtures("one_thread")


def test_replies_are_in_order_whatever_their_length_and_end_at_the_end():
    model = stirred(add_lora(tiny()))
    prompts = [[5, 6, 7, 8, 9], [1, 2], [4, 4, 4, 10, 11, 12, 13], [20]]
    alone = [reply(model, Numbers(), [prompt], most=8)[0] for prompt in prompts]
    assert reply(model, Numbers(), prompts, batch_size=3, most=8) == alone
    assert reply(model, Numbers(), prompts, batch_size=1, most=8, workers=2) == alone
    assert len(set(alone)) > 1 and not any("3" in text.split() for text in alone)
    assert not any(layer.merged for layer in lora_layers(model).values())
    with torch.no_grad():
        x = torch.tensor([prompts[0]])
        assert alone[0].split()[0] == str(model(x)[0, -1].argmax().item())


def test_a_request_s_flops_by_hand():
    model = tiny(n_layer=1, n_kv_head=4)
    matrices = 4 * 32 * 32 + 3 * 32 * 48
    assert request_flops(model, 2, 1) == 2 * matrices * 3 + 2 * 50 * 32 + 4 * 32 * (1 + 2 + 3)
