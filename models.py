"""This deployment's tables: Item, the demo's model. Run and RunItem come from the package."""

import requests
from peewee import CharField, DecimalField, Model, TextField

from workers import HasImportStatus, Run, RunItem, db, path

__all__ = ["Item", "Run", "RunItem"]


class Item(HasImportStatus, Model):
    """A thing the mock API sells. The list gives its name, the detail the rest."""

    external_id = CharField(unique=True)
    name = CharField()
    description = TextField(null=True)
    price = DecimalField(max_digits=10, decimal_places=2, null=True)

    class Meta:
        database = db
        table_name = "items"

    def get_external_id(self):
        return self.external_id

    def get_api_detail_request(self):
        return requests.Request("GET", path("api/items", self.external_id))

    def populate_from_api_response(self, data):
        self.description = data["description"]
        self.price = data["price"]
