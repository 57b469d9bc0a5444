"""The script of a project without its own monitor_app.py. Streamlit puts this folder on the import path."""

from workers.monitor import app

app.show()
