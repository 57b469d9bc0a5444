"""The monitor: the page that people watch and steer from, and the process that serves it.

Importing this package loads no Streamlit; `runs_page` does.
"""
