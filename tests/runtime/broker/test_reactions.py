"""The table of retries, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_runtime.broker.providers.interface import ProviderError, printable
from folkmoot_runtime.broker.reactions import (
    LONGEST_RETRY_AFTER,
    LONGEST_WAIT,
    MAX_ATTEMPTS,
    RETRIED,
    Again,
    Doubtful,
    Failed,
    backoff,
    react,
)


@pytest.mark.parametrize("status", sorted(RETRIED))
def test_what_may_pass_is_tried_four_times(status: int) -> None:
    error = ProviderError("status", "busy", status=status)
    assert all(isinstance(react(error, attempt, 100, 0.5), Again) for attempt in range(1, MAX_ATTEMPTS))
    last = react(error, MAX_ATTEMPTS, 100, 0.5)
    assert isinstance(last, Failed)
    assert "after 4 attempts" in last.message


def test_a_connection_that_was_never_made_is_tried_again() -> None:
    assert isinstance(react(ProviderError("connect", "no"), 1, 100, 0.5), Again)
    assert react(ProviderError("connect", "no"), 4, 100, 0.5) == Failed("ProviderUnreachable", "no (after 4 attempts)")


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "ProviderRejected"), (401, "ProviderUnauthorized"), (402, "ProviderPaymentRequired"), (403, "ProviderForbidden"),
     (404, "ProviderNotFound"), (413, "ProviderRequestTooLarge"), (422, "ProviderRejected"), (302, "ProviderRejected"),
     (501, "ProviderFailed")],
)  # fmt: skip
def test_what_will_not_pass_is_final_at_once(status: int, reason: str) -> None:
    assert react(ProviderError("status", "no", status=status), 1, 100, 0.5) == Failed(reason, "no")


def test_what_may_have_been_billed_is_doubtful() -> None:
    assert react(ProviderError("timeout", "t"), 1, 100, 0.5) == Doubtful("ProviderTimeout", "t", repeat=False)
    assert react(ProviderError("lost", "l"), 1, 100, 0.5) == Doubtful("ProviderReplyLost", "l", repeat=True)
    assert react(ProviderError("garbage", "g"), 1, 100, 0.5) == Doubtful("ProviderReplyInvalid", "g", repeat=True)


def test_no_wait_goes_beyond_the_deadline() -> None:
    error = ProviderError("status", "busy", status=429, retry_after=20)
    assert isinstance(react(error, 1, 21, 0.0), Again)
    late = react(error, 1, 20, 0.0)
    assert isinstance(late, Failed)
    assert late.reason == "ProviderRateLimited"


@given(st.integers(1, MAX_ATTEMPTS), st.none() | st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_and_never_shorter_than_asked(attempt: int, asked: float | None, jitter: float) -> None:
    wait = backoff(attempt, asked, jitter)
    assert min(asked or 0.0, LONGEST_RETRY_AFTER) <= wait <= max(LONGEST_WAIT, LONGEST_RETRY_AFTER)
    assert wait > 0


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-ant-api03-abcdefgh1234567890.",
        "Bearer sk-proj-AAAA1111BBBB2222 is expired",
        "AIzaSyA1234567890abcdef",
    ],
)
def test_what_looks_like_a_key_is_not_shown(text: str) -> None:
    shown = printable(text)
    assert "[key]" in shown
    assert "1234567890" not in shown
    assert "AAAA1111" not in shown


@given(st.text())
def test_a_vendors_text_is_one_bounded_line(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 200
    assert shown.isprintable()
