"""The routes beside the pages: the CSV file of failed items, and index.html. The access middleware guards them."""

from starlette.routing import BaseRoute, Route

from workers.monitor.html import index_html, links
from workers.monitor.readings import failed_csv

#: Each is a Starlette route. No path may begin with /_stcore, /media, /component or /static: those are Streamlit's.
ROUTES: list[BaseRoute] = [
    Route(failed_csv.PATH, failed_csv.respond),
    *(Route(f"/{address}", index_html.respond) for address in links.ADDRESSES),
]
