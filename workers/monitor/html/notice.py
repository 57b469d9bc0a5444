"""A notice: what is the matter, and what to do, with its icon."""

from workers.monitor.html.markup import Html, fill, prose

_NOTICE = """
<section class="sl-notice sl-{tone}" role="status"><i class="sl-icon sl-i-{shape}"></i>
<div><h2>{what}</h2><p>{text}</p></div></section>
"""


def notice(tone: str, shape: str, what: str, text: str) -> Html:
    """Return a notice: what is the matter, and what to do.

    Parameters:
      tone(str): good, warn, bad, plan or calm.
      shape(str): The icon beside it: a tone is never told by its colour alone.
    """
    return fill(_NOTICE, tone=tone, shape=shape, what=what, text=prose(text))
