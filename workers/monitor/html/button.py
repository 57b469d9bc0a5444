"""A button in a panel, as HTML: cheaper than Streamlit's own, which each session would draw each second."""

from workers.monitor.html.markup import Html, fill

_BUTTON = '<button type="button" id="press-{id}" class="sl-button{first}" data-press="{name}">{icon}{label}</button>'
_ICON = '<i class="sl-icon sl-i-{shape}"></i>'


def button(label: str, name: str, shape: str, *, first: bool = False) -> Html:
    """Return a button.

    Parameters:
      label(str): Its text.
      name(str): What `panel` returns once it is pressed; unique on the page.
      shape(str): The icon before its label.
      first(bool): Whether it is the most likely next step.
    """
    return fill(
        _BUTTON,
        id=name.replace(" ", "-"),
        name=name,
        first=" sl-first" if first else "",
        icon=fill(_ICON, shape=shape),
        label=label,
    )
