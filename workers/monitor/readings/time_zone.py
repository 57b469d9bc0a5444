"""The time zone of who looks at a page, as the browser names it: it may be made up."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

import streamlit as st


def zone() -> tzinfo:
    """Return the viewer's time zone; UTC where the browser names none that there is."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ValueError, KeyError, OSError):
        return UTC
