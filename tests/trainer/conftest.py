"""What the tests of this room share."""

import pytest
import torch


@pytest.fixture
def text():
    return torch.randint(17, (300,), generator=torch.Generator().manual_seed(1))
