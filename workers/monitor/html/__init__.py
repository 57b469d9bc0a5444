"""Small parts of a page as HTML: markup, formatted numbers, badges, bars, buttons, panels."""
