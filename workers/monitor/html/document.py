"""The shell: the document that a browser loads first, Streamlit's own with a few words of ours."""

import re
from pathlib import Path

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

#: Streamlit's code looks for its server below the page's own path first, and finds none: two errors in the console of
#: whoever opens a link. Told where the server is, it asks there.
_BASE = "window.__streamlit = {BACKEND_BASE_URL: new URL('./', document.baseURI).href}"
#: Of a session that is over Streamlit's code asks again and again; loaded anew, the page leads to the login.
_LOGIN = (
    "new PerformanceObserver((seen) => seen.getEntries().some((entry) => entry.responseStatus === 401) "
    "&& location.reload()).observe({type: 'resource'})"
)
_NOT_NEEDED = (r'<link\s+rel="preload"[^>]*as="font"[^>]*>', r'<link rel="service-desc"[^>]*>', r"<!--.*?-->")


def shell() -> str:
    """Return the document."""
    html = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    for part in _NOT_NEEDED:
        html = re.sub(part, "", html, flags=re.DOTALL)
    html = html.replace("<title>Streamlit</title>", "<title>Sluice</title>")
    return html.replace("<script>", f"<script>{_BASE}; {_LOGIN}</script><script>", 1)


async def answer(request: Request) -> Response:
    """Answer a browser that opens a page."""
    return HTMLResponse(shell(), headers={"Cache-Control": "no-cache"})
