"""What the tests of this room share."""

import pytest
import torch


@pytest.fixture
def tokens():
    return torch.randint(50, (2, 11), generator=torch.Generator().manual_seed(0))  # (B, T)
