"""The demo's API and its one source. `SOURCES` is the whole registration."""

import os

import requests

from models import Item
from workers import Connector, ImportSource, Limit
from workers.settings import get_settings

api = Connector(
    "rate-test",
    base_url=os.environ.get("DEMO_API_URL", f"http://127.0.0.1:{get_settings().mock_port}"),
    limits=[Limit(500, seconds=20), Limit(2000, seconds=100)],
)


class ItemSource(ImportSource):
    name = "items"
    model = Item
    connector = api
    allow_fresh = True
    schedule = "0 */3 * * *"  # every three hours

    def get_list_request(self, cursor, per_page):
        return requests.Request("GET", "api/items", params={"page": cursor, "perPage": per_page})

    def create_model_from_list_item(self, item):
        return self.model(external_id=item["id"], name=item["name"])


SOURCES = [ItemSource()]
