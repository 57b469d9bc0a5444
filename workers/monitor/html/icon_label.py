"""The mark: a word with its icon, in its tone, so that nobody needs to tell colours apart."""

from workers.monitor.html.markup import Html, fill, prose


def mark(tone: str, shape: str, word: str) -> Html:
    """Return a word that is marked.

    Parameters:
      tone(str): good, warn, bad, plan or calm.
      shape(str): The icon.
      word(str): What stands between `backticks` in it is set as code.
    """
    template = '<span class="sl-mark sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{word}</span></span>'
    return fill(template, tone=tone, shape=shape, word=prose(word))
