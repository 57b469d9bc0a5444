"""Small parts of a page as HTML: markup, words, badges, bars, buttons, panels."""
