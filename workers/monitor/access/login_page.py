"""The pages for login, refusal and logout: plain HTML without scripts or pictures, under a strict policy."""

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
_PASSWORD = """{error}<form method="post" action="/login"><input type="hidden" name="next" value="{next}">
<label for="name">Your name <small>Shown in the timeline. Optional.</small></label>
<input id="name" name="name" value="{name}" maxlength="60" autocomplete="username" spellcheck="false">
<label for="password">Password</label>
<input id="password" name="password" type="password" required autofocus autocomplete="current-password">
<button>Log in</button></form>"""
_OIDC = """<p>Log in with the account of your organization.</p><a class="button" href="/login/start">Log in</a>"""
_REFUSED = """<p role="alert" class="error">✕ {who} has no access to this page.</p><p>{why}</p>
<form method="post" action="/logout"><button>Log out</button></form>"""
_LOGOUT = """<p>You are logged in as {who}.</p>
<form method="post" action="/logout"><button>Log out</button></form><a class="button quiet" href="/">Back</a>"""
_LEAVE = """<meta http-equiv="refresh" content="0; url={path}"><p>Your session here has ended.</p>
<a class="button" href="{path}">Also log out at the provider</a>"""
_ERROR = '<p role="alert" class="error">✕ {error}</p>'

#: What these pages can load: their own style, and nothing else.
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(html: Html, status: int = HTTPStatus.OK) -> Response:
    """Return a page that no cache stores."""
    return HTMLResponse(html, status, {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"})


def go(path: str) -> Response:
    """Redirect the browser to a path of this site."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})


def password_page(onward: str, name: str = "", error: str = "") -> Html:
    """Return the form that asks for the password.

    Parameters:
      onward(str): The path of this site to open after the login.
      name(str): The name that was typed before.
      error(str): Why the last attempt failed.
    """
    line = fill(_ERROR, error=error) if error else ""
    return _page("Sluice", fill(_PASSWORD, error=line, next=onward, name=name))


def oidc_page() -> Html:
    """Return the page with the link to the OpenID Connect provider."""
    return _page("Sluice", fill(_OIDC))


def refused_page(who: str, why: str) -> Html:
    """Return the page for a person who is logged in at the provider, but has no role here."""
    return _page("No access", fill(_REFUSED, who=who, why=why))


def logout_page(who: str) -> Html:
    """Return the page that asks before it logs out."""
    return _page("Log out", fill(_LOGOUT, who=who))


def leave_page(path: str) -> Html:
    """Return the page after the logout. The policy forbids a redirect from a form to another host, as the provider is.

    Parameters:
      path(str): The path of this site that redirects to the provider.
    """
    return _page("Logged out", fill(_LEAVE, path=path))


def _page(title: str, body: Html) -> Html:
    return fill(_PAGE, title=title, style=fill("{style}", style=Html(_STYLE)), body=body)
