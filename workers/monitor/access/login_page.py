"""What stands before the wall: the page to log in, the one that refuses, the one to log out. No script, no picture."""

import hashlib
from base64 import b64encode
from http import HTTPStatus

from starlette.responses import HTMLResponse, RedirectResponse, Response

from workers.monitor.html.markup import Html, fill

_STYLE = """
:root { color-scheme: light dark;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; line-height: 1.45;
  color: light-dark(#18212f, #e4eaf1); background: light-dark(#f6f8fa, #0e141b); }
main { box-sizing: border-box; width: min(24rem, 100vw - 2rem); padding: 1.75rem; overflow-wrap: anywhere;
  border-radius: 14px; background: light-dark(#fff, #161e27); border: 1px solid light-dark(#dde3ea, #2a3542); }
h1 { margin: 0 0 1.2rem; font-size: 1.35rem; letter-spacing: -0.01em; }
p { margin: 0 0 1.1rem; }
label { display: block; margin-bottom: 0.3rem; font-weight: 600; }
small { display: block; font-weight: 400; color: light-dark(#5b6778, #94a3b5); }
input { box-sizing: border-box; width: 100%; margin-bottom: 1.1rem; padding: 0.6rem 0.75rem; font: inherit;
  color: inherit; background: light-dark(#fff, #0e141b); border: 1px solid light-dark(#8390a0, #64748b);
  border-radius: 8px; }
button, .button { display: block; box-sizing: border-box; width: 100%; padding: 0.65rem; font: inherit;
  font-weight: 600; text-align: center; text-decoration: none; cursor: pointer; border: 0; border-radius: 8px;
  color: #fff; background: #0b6e99; }
.quiet { margin-top: 0.7rem; color: inherit; background: none; border: 1px solid light-dark(#8390a0, #64748b); }
:focus-visible { outline: 3px solid light-dark(#0b6e99, #4db5e0); outline-offset: 2px; }
.error { padding: 0.6rem 0.8rem; border-radius: 8px; border-left: 4px solid; font-weight: 500;
  color: light-dark(#b3261e, #ff8a80); background: light-dark(#fdecea, #2c1719); }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Sluice</title><link rel="icon" href="data:,"><style>{style}</style></head>
<body><main><h1>{title}</h1>
{body}
</main></body></html>
"""
_PASSWORD = """{said}<form method="post" action="/login"><input type="hidden" name="next" value="{next}">
<label for="name">Your name <small>Shown beside what you do. May be left out.</small></label>
<input id="name" name="name" value="{name}" maxlength="60" autocomplete="username" spellcheck="false">
<label for="password">Password</label>
<input id="password" name="password" type="password" required autofocus autocomplete="current-password">
<button>Log in</button></form>"""
_OIDC = """<p>This page is for people who are known to it.</p><a class="button" href="/login/start">Log in</a>"""
_REFUSED = """<p role="alert" class="error">✕ {who} may not see this page.</p><p>{why}</p>
<form method="post" action="/logout"><button>Log out</button></form>"""
_LOGOUT = """<p>You are logged in as {who}.</p>
<form method="post" action="/logout"><button>Log out</button></form><a class="button quiet" href="/">Back</a>"""
_LEAVE = """<meta http-equiv="refresh" content="0; url={path}"><p>Your session here has ended.</p>
<a class="button" href="{path}">Log out at the provider, too</a>"""
_SAID = '<p role="alert" class="error">✕ {said}</p>'

#: What these pages may load: their own style, and nothing else from anywhere.
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(html: Html, status: int = HTTPStatus.OK) -> Response:
    """Return a page of ours, which nobody keeps."""
    return HTMLResponse(html, status, {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"})


def go(path: str) -> Response:
    """Send the browser to a path of ours."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})


def password_page(onward: str, name: str = "", said: str = "") -> Html:
    """Return the form that asks for the password.

    Parameters:
      onward(str): Where to go then: a path of ours.
      name(str): The name as it was typed before.
      said(str): Why nobody was let in just now.
    """
    line = fill(_SAID, said=said) if said else ""
    return _page("Sluice", fill(_PASSWORD, said=line, next=onward, name=name))


def oidc_page() -> Html:
    """Return the page with the way to the provider that knows people."""
    return _page("Sluice", fill(_OIDC))


def refused_page(who: str, why: str) -> Html:
    """Return the page for somebody who is known, and not let in."""
    return _page("Not let in", fill(_REFUSED, who=who, why=why))


def logout_page(who: str) -> Html:
    """Return the page that asks before it logs out."""
    return _page("Log out", fill(_LOGOUT, who=who))


def leave_page(path: str) -> Html:
    """Return the page that leads out. A redirect after a form may not lead to another host, and the provider is one.

    Parameters:
      path(str): Of ours: it leads there.
    """
    return _page("Logged out", fill(_LEAVE, path=path))


def _page(title: str, body: Html) -> Html:
    return fill(_PAGE, title=title, style=fill("{style}", style=Html(_STYLE)), body=body)
