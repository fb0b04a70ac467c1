"""What is checked of a run's data before its first step."""

from __future__ import annotations

import numpy as np
import pytest

from reasoning_embedding.errors import InputError
from reasoning_embedding.training.setup import check_budget


def test_a_budget_below_the_longest_text_is_refused_with_the_one_it_takes() -> None:
    check_budget(np.array([3, 4]), 4)
    check_budget(np.array([], dtype=int), 4)
    with pytest.raises(InputError, match="2 of 3 texts") as error:
        check_budget(np.array([3, 5, 9]), 4)
    assert "at least 9" in str(error.value)
