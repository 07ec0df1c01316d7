import pytest
from discount import discounted, invoice


def test_no_discount():
    assert discounted(1999, 0) == 1999


def test_everything_off():
    assert discounted(1999, 100) == 0


def test_half_a_cent_is_rounded_up():
    assert discounted(999, 50) == 500


def test_refuses_more_than_everything():
    with pytest.raises(ValueError):
        discounted(1999, 101)


def test_invoice_rounds_each_line():
    assert invoice([(1000, 1), (500, 3)], 50) == 1250
