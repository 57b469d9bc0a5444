"""A word with an icon, in a colour: readable without the colour."""

from workers.monitor.html.markup import Html, fill, prose


def icon_label(tone: str, shape: str, word: str) -> Html:
    """Return a word with its icon.

    Parameters:
      tone(str): good, warn, bad, plan or calm.
      shape(str): The icon.
      word(str): Text between `backticks` is set as code.
    """
    template = '<span class="sl-mark sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{word}</span></span>'
    return fill(template, tone=tone, shape=shape, word=prose(word))
