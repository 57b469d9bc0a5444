"""The entry for a project without a monitor_app.py. Alone in its folder: Streamlit puts that on the import path."""

from workers.monitor import app

app.show()
