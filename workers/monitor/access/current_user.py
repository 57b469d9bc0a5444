"""The person at the browser: role, name, and whether they can act. Widgets ask when drawn, callbacks ask again."""

import streamlit as st
from streamlit import config, runtime

from workers.connections.loopback import is_loopback
from workers.monitor.access import hosts, middleware
from workers.monitor.access.login import get_login
from workers.monitor.access.session import Role, Session
from workers.monitor.html.markup import Html, fill

__all__ = ["Role", "log_out_form", "may_act", "name", "require_access", "role"]

_NOTICE = """
<section class="sl-notice sl-bad" role="alert"><i class="sl-icon sl-i-alert"></i>
<div><h2>{what}</h2><p>{text}</p></div></section>
"""
_LOG_OUT = """
<form class="sl-log-out" method="post" action="/logout">{who} <small>{role}</small> <button>Log out</button></form>
"""


def require_access() -> None:
    """Stop drawing where the person has no access. Each page calls it first, each time it is drawn."""
    if role():
        return
    if middleware.is_active():
        notice = fill(_NOTICE, what="Your session has ended", text=fill('<a href="/login" target="_self">Log in</a>'))
    else:
        text = fill("Start it with <code>python -m workers monitor</code>, which requires the login.")
        notice = fill(_NOTICE, what="This page is not served without its access checks", text=text)
    st.html(notice)
    st.stop()


def role() -> Role | None:
    """Return the role of the person now; None where they have no access."""
    if get_login() and (middleware.is_active() or _is_served()):
        session = _session()
        return session.role if session else None
    return Role.OPERATOR if not _is_served() or (_is_private() and (middleware.is_active() or _is_safe())) else None


def may_act() -> bool:
    """Return whether the person is an operator now."""
    return role() is Role.OPERATOR


def name() -> str:
    """Return the name of the person for the timeline."""
    session = _session()
    return session.name if session else "monitor"


def log_out_form() -> Html:
    """Return the name of the person and the logout button, for the head of the page; empty where no login is needed."""
    session = _session()
    return fill(_LOG_OUT, who=session.name, role=session.role.value) if session else fill("")


def _session() -> Session | None:
    """Return the session of the browser, by its cookie; None where the access middleware does not run."""
    login = get_login()
    return login.session(st.context.cookies) if login and middleware.is_active() else None


def _is_served() -> bool:
    """Return whether Streamlit serves a browser; its AppTest has another runtime."""
    return runtime.exists() and type(runtime.get_instance()) is runtime.Runtime


def _is_private() -> bool:
    """Return whether only this machine reaches the page: Streamlit's default address is open to others."""
    return is_loopback(config.get_option("server.address") or "")


def _is_safe() -> bool:
    """Return whether `streamlit run` is as safe as the middleware and the command line of the monitor make it.

    Host and Origin are allowed, no traceback is shown, and no usage statistics are sent.
    """
    headers = st.context.headers
    known = hosts.is_allowed(headers.get("host")) and hosts.is_same_origin(headers)
    quiet = not config.get_option("browser.gatherUsageStats")
    return known and quiet and config.get_option("client.showErrorDetails") in (False, "none", "false")
