"""The monitor's entry: `python -m workers monitor` serves it. It draws only; what it draws comes from the package."""

from workers.monitor import app

app.show()
