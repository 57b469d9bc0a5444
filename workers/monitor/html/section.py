"""A section of a page with a title, and a table in it."""

from collections.abc import Iterable, Sequence

from workers.monitor.html.markup import Html, fill, join

_SECTION = '<section class="sl-section"><h3 class="sl-title">{title} <span>{about}</span></h3>{body}</section>'
_TABLE = """
<div class="sl-scroll"><table class="sl-table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>
"""


def section(title: str, about: str, body: Html) -> Html:
    """Return a section.

    Parameters:
      about(str): A remark in small type beside the title.
    """
    return fill(_SECTION, title=title, about=about, body=body)


def table(heads: Sequence[str], rows: Iterable[Html]) -> Html:
    """Return a table that scrolls sideways on a narrow screen."""
    titles = join(fill('<th scope="col">{head}</th>', head=head) for head in heads)
    return fill(_TABLE, heads=titles, rows=join(rows))
