"""The entry for a project that has no monitor_app.py. Alone in its folder, which Streamlit puts first on the import path."""

from workers.monitor import runs_page

runs_page.show()
