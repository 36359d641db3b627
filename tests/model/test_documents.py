"""What other programs read is written in the same bytes by every version: times, numbers and letters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from backupkit.model import documents

NOON = datetime(2026, 11, 21, 12)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (NOON.replace(tzinfo=UTC), "2026-11-21T12:00:00Z"),
        (NOON.replace(tzinfo=ZoneInfo("UTC")), "2026-11-21T12:00:00Z"),
        (NOON.replace(tzinfo=UTC, microsecond=120_000), "2026-11-21T12:00:00.120000Z"),
        (NOON.replace(tzinfo=ZoneInfo("Europe/Berlin")), "2026-11-21T12:00:00+01:00"),
        (NOON.replace(tzinfo=timezone(-timedelta(hours=3, minutes=30))), "2026-11-21T12:00:00-03:30"),
        (NOON, "2026-11-21T12:00:00"),
    ],
)
def test_a_time_has_one_form(at: datetime, text: str) -> None:
    assert documents.as_line({"at": at, "in": [{"at": at}]}).decode() == f'{{"at":"{text}","in":[{{"at":"{text}"}}]}}'
    assert documents.plain({"at": at, "in": [{"at": at}]}) == {"at": text, "in": [{"at": text}]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (3.0, "3.0"),
        (1e-7, "1e-7"),
        (123456789.123, "123456789.123"),
        (2**70, "1180591620717411303424"),
        (None, "null"),
        (True, "true"),
        ('ä\u2028\x7f\n"\\/<😀', '"ä\u2028\x7f\\n\\"\\\\/<😀"'),
        ("\0\x1b", '"\\u0000\\u001b"'),
    ],
)
def test_a_line_has_no_space_and_no_escape_that_is_not_needed(value: object, text: str) -> None:
    assert documents.as_line({"a": value, "b": [value]}).decode() == f'{{"a":{text},"b":[{text}]}}'


def test_text_of_any_bytes_stays_in_a_document_and_not_in_a_line() -> None:
    assert documents.plain({"path": "a/\udcff"}) == {"path": "a/\udcff"}
    with pytest.raises(ValueError, match="surrogates"):
        documents.as_line({"path": "a/\udcff"})
