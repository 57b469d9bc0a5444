"""Checks at registration that a model's detail request quotes its id: it tries ids that contain / ? # and `..`."""

import re
from typing import Any
from urllib.parse import unquote

from peewee import CharField, ForeignKeyField, IntegerField, Model, TextField

from workers.errors import ConfigurationError
from workers.sources import model_keys
from workers.sources.address import NotQuoted, flaw_of

#: The second is for models whose ids have two parts, as in "north:7".
_IDS = ("a/../b?c#d", "a:a/../b?c#d")
#: Names of fields that contain complete URLs from the API, not ids.
_LINK = re.compile("url|uri|href|link", re.IGNORECASE)


def check(model: type[Model], unique_by: str | tuple[str, ...]) -> None:
    """Get the detail request of an unsaved instance that has only such an id. The request is not sent.

    Parameters:
      model(type[peewee.Model]): An Importable.
      unique_by(str | tuple[str, ...]): The key fields of a row. Those that are not text, or contain a link, are not
        probed.

    Raises:
      ConfigurationError: The id would name another resource.

    *Warning:* a model that raises for such an instance is accepted, and so is a model whose ids are in a field that
    `unique_by` does not name.
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


def _address(model: type[Model], names: list[str], probe: str) -> str:
    """Return the URL of the detail request for an id; empty if there is none."""
    for others in ({}, _filled(model, names)):
        try:
            instance: Any = model(__no_default__=True)  # a default can be a function with side effects
            for name, value in [*others.items(), *((name, probe) for name in names)]:
                setattr(instance, name, value)
            url = getattr(instance.get_api_detail_request(), "url", None)
        except NotQuoted:
            return probe
        except Exception:  # the method needs more fields than the id
            continue
        if isinstance(url, str):
            return url
    return ""


def _filled(model: type[Model], names: list[str]) -> dict[str, Any]:
    """Return values for the other fields, in case the method needs them for the address."""
    values: dict[str, Any] = {}
    for name, field in model._meta.fields.items():
        if name in names or isinstance(field, ForeignKeyField):
            continue
        if isinstance(field, (CharField, TextField)):
            values[name] = "1"
        elif isinstance(field, IntegerField):
            values[name] = 1
    return values


def _is_lost(address: str) -> bool:
    """Whether a probe's id is not one segment any more: it has a `..` segment, or its end is a query or fragment."""
    before_fragment, _, fragment = address.partition("#")
    query = before_fragment.partition("?")[2]
    return bool(flaw_of(address)) or fragment.lower().startswith("d") or unquote(query).lower().startswith("c#d")
