"""Probe at registration: does a model's detail request keep an id that has / ? # and .. in it to its own segment?"""

import re
from typing import Any
from urllib.parse import unquote

from peewee import CharField, ForeignKeyField, IntegerField, TextField

from workers.errors import ConfigurationError
from workers.sources import model_keys
from workers.sources.address import NotQuoted, flaw_of

#: The second is for models whose ids begin with a shop, as in "north:7".
_IDS = ("a/../b?c#d", "a:a/../b?c#d")
#: Names of fields that hold whole addresses, as the API gave them, and no ids.
_LINK = re.compile("url|uri|href|link", re.IGNORECASE)


def check(model: type[Any], unique_by: str | tuple[str, ...]) -> None:
    """Ask an unsaved instance, with nothing but such an id, for its detail request. It is not sent.

    Parameters:
      model(type[peewee.Model]): An Importable.
      unique_by(str | tuple[str, ...]): The fields by which a row is known. Those that hold no text, or a link, are left
        alone.

    Raises:
      ConfigurationError: The id would name another resource.

    *Warning:* a model that raises on such an instance is accepted, and one that has its ids in a field that `unique_by`
    does not name.
    """
    texts = [name for name in model_keys.names(unique_by) if _is_id(name, model._meta.fields[name])]
    if any(_is_lost(_address(model, texts, probe)) for probe in _IDS if texts):
        raise ConfigurationError(
            f"{model.__name__}.get_api_detail_request puts an id into the address as it is, so an id like {_IDS[0]} "
            f'would ask for another resource: write path("api/items", self.{texts[-1]}), with '
            f"`from workers import path`, or give the id as params="
        )


def _is_id(name: str, field: Any) -> bool:
    is_text = isinstance(field, (CharField, TextField)) or field.field_type.upper() in ("VARCHAR", "TEXT", "CITEXT")
    return is_text and not _LINK.search(name)


def _address(model: type[Any], names: list[str], probe: str) -> str:
    """Return the URL of the detail request for an id; empty where there is none."""
    for others in ({}, _filled(model, names)):
        try:
            instance = model(__no_default__=True)  # a default may be a function that counts, or asks the database
            for name, value in [*others.items(), *((name, probe) for name in names)]:
                setattr(instance, name, value)
            url = getattr(instance.get_api_detail_request(), "url", None)
        except NotQuoted:
            return probe
        except Exception:  # it needs more than its id
            continue
        if isinstance(url, str):
            return url
    return ""


def _filled(model: type[Any], names: list[str]) -> dict[str, Any]:
    """Return something for the other fields: a method may need them, to make the address of."""
    found: dict[str, Any] = {}
    for name, field in model._meta.fields.items():
        if name in names or isinstance(field, ForeignKeyField):
            continue
        if isinstance(field, (CharField, TextField)):
            found[name] = "1"
        elif isinstance(field, IntegerField):
            found[name] = 1
    return found


def _is_lost(address: str) -> bool:
    """Whether a probe's id has left its segment: its `..` climbs, or its tail became a query or a fragment."""
    before_fragment, _, fragment = address.partition("#")
    query = before_fragment.partition("?")[2]
    return bool(flaw_of(address)) or fragment.lower().startswith("d") or unquote(query).lower().startswith("c#d")
