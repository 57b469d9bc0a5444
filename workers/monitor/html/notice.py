"""Shows what is wrong or what follows, as a box with a heading or as one line; tone and icon say how serious it is."""

from workers.monitor.html.markup import Html, fill, prose

_NOTICE = """
<section class="sl-notice sl-{tone}" role="status"><i class="sl-icon sl-i-{shape}"></i>
<div><h2>{what}</h2><p>{text}</p></div></section>
"""
_LINE = '<p class="sl-line sl-{tone}"{role}><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>'


def notice(tone: str, shape: str, what: str, text: str) -> Html:
    """Return a box: what is wrong, and what to do.

    Parameters:
      tone(str): good, warn, bad, plan or calm.
      shape(str): The icon beside it: a tone is never shown by its colour alone.
      what(str): The heading.
      text(str): What to do; text between `backticks` is set as code.
    """
    return fill(_NOTICE, tone=tone, shape=shape, what=what, text=prose(text))


def line(tone: str, shape: str, text: Html | str, *, alert: bool = False) -> Html:
    """Return one line. Other parameters as for `notice`; a plain text may have `backticks`.

    Parameters:
      alert(bool): Whether a screen reader reads it at once: it is the result of a press.
    """
    role = fill(' role="alert"' if alert else "")
    return fill(_LINE, tone=tone, shape=shape, role=role, text=text if isinstance(text, Html) else prose(text))
