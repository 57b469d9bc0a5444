"""A page with nothing on it, drawn each second: what Streamlit itself costs for a session."""

import streamlit as st


@st.fragment(run_every=1)
def live() -> None:
    """Draw nothing."""


live()
