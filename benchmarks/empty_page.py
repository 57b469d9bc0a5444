"""Draw a page with nothing on it once a second: the cost of Streamlit alone for a session."""

import streamlit as st


@st.fragment(run_every=1)
def live() -> None:
    """Draw nothing."""


live()
