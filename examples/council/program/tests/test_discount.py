import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from discount import discounted


def test_no_discount():
    assert discounted(1999, 0) == 1999


def test_half_a_cent_is_rounded_up():
    assert discounted(999, 50) == 500


def test_refuses_more_than_everything():
    with pytest.raises(ValueError, match="0 to 100"):
        discounted(1999, 101)
