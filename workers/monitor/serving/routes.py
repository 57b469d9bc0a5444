"""Routes: what the page's server answers beside the pages. They stand behind the wall: who gets here was let in."""

from starlette.routing import BaseRoute, Route

from workers.monitor.html import document, links
from workers.monitor.readings import failed_csv

#: Each is a Starlette route. No path may begin with /_stcore, /media, /component or /static: those are Streamlit's.
ROUTES: list[BaseRoute] = [
    Route(failed_csv.PATH, failed_csv.answer),
    *(Route(f"/{address}", document.answer) for address in links.ADDRESSES),
]
