"""Private data: what is found, what only looks like it, and what is shown of it."""

import time

import pytest

from rlhf.data.doctor.private import find_private, masked, without_private


def kinds(text: str) -> list[str]:
    return [one.kind for one in find_private(text)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to anna.smith+x@mail.example.co.uk today", "email"),
        ("<a@b.io>", "email"),
        ("my card is 4111 1111 1111 1111.", "card"),  # a published test number
        ("5500-0000-0000-0004", "card"),
        ("378282246310005", "card"),
        ("pay to GB82 WEST 1234 5698 7654 32", "iban"),  # the standard's own example
        ("DE89370400440532013000", "iban"),
        ("call +44 20 7946 0958 now", "phone"),
        ("(212) 555-0147", "phone"),
        ("212-555-0147", "phone"),
        ("+1 212.555.0147", "phone"),
        ("ring 0301 234 5678", "phone"),
    ],
)
def test_private_data_is_found(text: str, kind: str):
    assert kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "an @ sign, a@b, and @name",
        "4111 1111 1111 1112",  # fails Luhn
        "GB82 WEST 1234 5698 7654 33",  # fails modulo 97
        "from 1914-1918 and 1939-1945, on 2020-01-02",
        "pi is 3.14159265358979",
        "192.168.100.200",
        "1,000,000,000 or 12345678901",
        "ISBN 978-3-16-148410-0",
        "add 100 200 300 and 400",
        "version 10.20.30.40-5678",
    ],
)
def test_what_only_looks_private_is_left_alone(text: str):
    assert kinds(text) == []
    assert without_private(text) == text


def test_several_in_one_text_come_in_its_order():
    assert kinds("212-555-0147 or a@b.org or 4111111111111111") == ["phone", "email", "card"]


def test_of_what_is_shown_a_trace_stays_and_nothing_of_what_is_stored():
    text = "Ask anna@example.org or 212-555-0147."
    assert masked(text) == "Ask a***@***.org or ***47."
    assert without_private(text) == "Ask [EMAIL] or [PHONE]."
    assert without_private(without_private(text)) == without_private(text)


def test_a_text_full_of_private_data_is_read_in_linear_time():
    """Quadratic, 60,000 addresses took more than a minute."""
    text = "ab@cd.org " * 60_000
    began = time.perf_counter()
    assert without_private(text) == "[EMAIL] " * 60_000
    assert time.perf_counter() - began < 10
