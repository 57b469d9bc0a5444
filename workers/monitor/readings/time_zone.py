"""The viewer's time zone, as the browser names it; UTC where that name is unknown."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

import streamlit as st


def zone() -> tzinfo:
    """Return the viewer's time zone; UTC where the browser names none, or an unknown one."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ValueError, KeyError, OSError):
        return UTC
