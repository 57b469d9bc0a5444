"""Routes: what the page's server answers beside the pages. They stand behind the wall: who gets here was let in."""

from starlette.routing import BaseRoute, Route

from workers.monitor import failed_csv, links, shell

#: Each is a Starlette route. No path may begin with /_stcore, /media, /component or /static: those are Streamlit's.
ROUTES: list[BaseRoute] = [
    Route(failed_csv.PATH, failed_csv.answer),
    *(Route(f"/{address}", shell.answer) for address in links.ADDRESSES),
]
