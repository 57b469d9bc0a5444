"""Streamlit's index.html, adapted: title, the server's address, and a reload when the session has ended."""

import re
from pathlib import Path

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

#: Streamlit's code looks for its server below the page's own path first and fails: two errors in the browser's console
#: for each link that is opened. This sets the address of the server.
_BASE = "window.__streamlit = {BACKEND_BASE_URL: new URL('./', document.baseURI).href}"
#: When the session has ended, Streamlit's code repeats its requests for ever; a reload leads to the login.
_LOGIN = (
    "new PerformanceObserver((seen) => seen.getEntries().some((entry) => entry.responseStatus === 401) "
    "&& location.reload()).observe({type: 'resource'})"
)
_NOT_NEEDED = (r'<link\s+rel="preload"[^>]*as="font"[^>]*>', r'<link rel="service-desc"[^>]*>', r"<!--.*?-->")


def index_html() -> str:
    """Return the document."""
    html = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    for part in _NOT_NEEDED:
        html = re.sub(part, "", html, flags=re.DOTALL)
    html = html.replace("<title>Streamlit</title>", "<title>Sluice</title>")
    return html.replace("<script>", f"<script>{_BASE}; {_LOGIN}</script><script>", 1)


async def respond(request: Request) -> Response:
    """Respond to a browser that opens a page."""
    return HTMLResponse(index_html(), headers={"Cache-Control": "no-cache"})
