"""Times in sentences are shown in the viewer's time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from workers.monitor.html.formatting import local, sentence

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "now", "shown"),
    [
        ("paused until 14:03:22 UTC", NOON, "paused until 15:03:22"),
        ("scheduled for 2026-11-03 14:03:22 UTC", NOON, "scheduled for 15:03:22"),
        ("overtaken by the run of 2026-11-02 04:00 UTC", NOON, "overtaken by the run of 02 Nov, 05:00"),
        ("from 2025-07-01 04:00 UTC to 13:00:00 UTC", NOON, "from 01 Jul 2025, 06:00 to 14:00:00"),
        ("last heartbeat at 23:59:58 UTC", datetime(2026, 11, 4, 0, 0, 5, tzinfo=UTC), "last heartbeat at 00:59:58"),
        ("again at 00:00:10 UTC", datetime(2026, 11, 3, 22, 30, tzinfo=UTC), "again at 04 Nov, 01:00"),
        ("answered 500 at 99:03:22 UTC", NOON, "answered 500 at 99:03:22 UTC"),
        ("expired 2026-02-31 04:00 UTC", NOON, "expired 2026-02-31 04:00 UTC"),
        ("expired 9999-12-31 23:30 UTC", NOON, "expired 9999-12-31 23:30 UTC"),
        ("no time at all, 14:03:22", NOON, "no time at all, 14:03:22"),
    ],
)
def test_an_instant_in_a_sentence_is_in_the_viewer_s_zone(said: str, now: datetime, shown: str) -> None:
    assert local(said, BERLIN, now) == shown


def test_an_instant_has_its_utc_on_hover_and_what_stands_beside_it_stays_text() -> None:
    drawn = sentence("<b>closed</b> until 14:03:22 UTC; run `python -m workers redis`", BERLIN, NOON)
    assert drawn == (
        "&lt;b&gt;closed&lt;/b&gt; until "
        '<time datetime="2026-11-03T14:03:22+00:00" title="2026-11-03 14:03:22 UTC">15:03:22</time>'
        "; run <code>python -m workers redis</code>"
    )
