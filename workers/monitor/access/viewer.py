"""Access: who looks at the page, and whether they may act. Every acting widget asks, and every callback asks again."""

import streamlit as st
from streamlit import config, runtime

from workers.connections.loopback import is_loopback
from workers.monitor.access import hosts, wall
from workers.monitor.access.login import get_login
from workers.monitor.access.session import Role, Session
from workers.monitor.html.markup import Html, fill

__all__ = ["Role", "guard", "may_act", "role", "sign", "who"]

_NOTICE = """
<section class="sl-notice sl-bad" role="alert"><i class="sl-icon sl-i-alert"></i>
<div><h2>{what}</h2><p>{text}</p></div></section>
"""
_SIGN = """
<form class="sl-sign" method="post" action="/logout">{who} <small>{role}</small> <button>Log out</button></form>
"""


def guard() -> None:
    """Stop the page where nobody is let in. The first thing that a page does, each time it is drawn."""
    if role():
        return
    if wall.stands():
        notice = fill(_NOTICE, what="Your session has ended", text=fill('<a href="/login" target="_self">Log in</a>'))
    else:
        text = fill("Start it with <code>python -m workers monitor</code>, which asks for the password.")
        notice = fill(_NOTICE, what="This page is not shown without its wall", text=text)
    st.html(notice)
    st.stop()


def role() -> Role | None:
    """Return what the one who looks may do, now; None for nothing."""
    if get_login() and (wall.stands() or _is_served()):
        session = _session()
        return session.role if session else None
    return Role.OPERATOR if not _is_served() or (_is_private() and (wall.stands() or _is_careful())) else None


def may_act() -> bool:
    """Return whether the one who looks may act, now."""
    return role() is Role.OPERATOR


def who() -> str:
    """Return the name that the timeline is to have of what is done."""
    session = _session()
    return session.name if session else "monitor"


def sign() -> Html:
    """Return who is logged in and the way out, for the page's head; empty where nobody needs to log in."""
    session = _session()
    return fill(_SIGN, who=session.name, role=session.role.value) if session else fill("")


def _session() -> Session | None:
    """Return the session of the browser, by the cookie it came with. Only behind the wall there is one."""
    login = get_login()
    return login.session(st.context.cookies) if login and wall.stands() else None


def _is_served() -> bool:
    """Return whether Streamlit serves this to a browser; its test double has a runtime of its own."""
    return runtime.exists() and type(runtime.get_instance()) is runtime.Runtime


def _is_private() -> bool:
    """Return whether only this machine reaches the page: Streamlit by itself listens everywhere."""
    return is_loopback(config.get_option("server.address") or "")


def _is_careful() -> bool:
    """Return whether Streamlit by itself keeps what the wall and its command line would keep.

    It is asked for by a name of ours and from a page of ours, shows no traceback, and tells nobody that it is used.
    """
    asked = st.context.headers
    known = hosts.is_known(asked.get("host")) and hosts.is_own(asked)
    quiet = not config.get_option("browser.gatherUsageStats")
    return known and quiet and config.get_option("client.showErrorDetails") in (False, "none", "false")
