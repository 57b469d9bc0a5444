"""Loads the sources that SLUICE_SOURCES names, and checks each before a run can begin."""

import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from peewee import Model

from workers.cron import Cron, read_catch_up
from workers.errors import ConfigurationError, UnknownSource, UsageError
from workers.settings import get_settings
from workers.sources import address_probe, model_keys
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource

_EXAMPLES = {"timezone": "Europe/Paris", "catch_up": "latest"}
_METHODS = ("get_external_id", "get_api_detail_request", "populate_from_api_response")


class Registry(Mapping[str, ImportSource]):
    """The sources of this installation.

    Parameters:
      sources(Iterable[ImportSource]): What `SOURCES` lists.

    Raises:
      ConfigurationError: An entry is no source, two sources have the same name, or a model is not an Importable.
    """

    def __init__(self, sources: Iterable[ImportSource]) -> None:
        self._sources: dict[str, ImportSource] = {}
        for source in sources:
            _check(source)
            if source.name in self._sources:
                raise ConfigurationError(f"Two sources are named {source.name!r}", repair="give each a name of its own")
            self._sources[source.name] = source
        _check_budgets(self._sources.values())

    def __getitem__(self, name: str) -> ImportSource:
        try:
            return self._sources[name]
        except KeyError:
            raise UnknownSource(name, list(self._sources)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def only(self) -> ImportSource:
        """Return the source, if there is exactly one.

        Raises:
          ConfigurationError: There are none, or several; the message lists them.
        """
        if len(self._sources) != 1:
            raise ConfigurationError(
                f"Name a source: {', '.join(sorted(self._sources)) or 'SLUICE_SOURCES lists none'}"
            )
        return next(iter(self._sources.values()))


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """Return the sources that SLUICE_SOURCES names.

    Raises:
      ConfigurationError: The module or the list is missing, or a source in it is invalid.
    """
    module_name, _, attribute = get_settings().sources.partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")  # the console script does not have the project's folder in its path
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ConfigurationError(
                f"SLUICE_SOURCES={module_name}:{attribute} names a module that is not here",
                repair="run from your project's folder, or set SLUICE_SOURCES to the module that lists your sources",
            ) from None
        raise ConfigurationError(f"SLUICE_SOURCES: {module_name} cannot be imported") from error
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # a module that misses a key in the environment can call sys.exit
        raise ConfigurationError(f"SLUICE_SOURCES: {module_name} cannot be imported") from error
    sources = getattr(module, attribute, None)
    if not isinstance(sources, (list, tuple)):
        repair = f"write {attribute} = [YourSource()]"
        raise ConfigurationError(f"{module_name}.py has no list named {attribute}", repair=repair)
    return Registry(sources)


def _check(source: object) -> None:
    if not isinstance(source, ImportSource):
        hint = "write its instance, with ()" if isinstance(source, type) else "it must be an ImportSource"
        raise ConfigurationError(f"{source!r} is not a source", repair=hint)
    title = type(source).__name__
    for attribute in ("name", "model", "connector"):
        if not hasattr(source, attribute):
            raise ConfigurationError(f"{title} has no {attribute}", repair="set it on the class")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", source.name):
        raise ConfigurationError(
            f"{title}: the name {source.name!r} must be 1 to 60 lower-case letters, digits, - and _"
        )
    if not isinstance(source.model, type) or not issubclass(source.model, Model):
        raise ConfigurationError(f"{title}: model must be a Peewee model class")
    if not isinstance(source.connector, Connector):
        raise ConfigurationError(f"{title}: connector must be a Connector, not {type(source.connector).__name__}")
    _check_model(title, source)
    if not (1 <= source.per_page <= 100_000 and 1 <= source.lanes <= 1024):
        raise ConfigurationError(f"{title}: per_page must be 1 to 100,000 and lanes 1 to 1,024")
    if type(source.max_items) is not int or not 1 <= source.max_items <= 2_000_000_000:
        raise ConfigurationError(f"{title}: max_items must be a whole number from 1 to 2,000,000,000")
    if type(source.max_empty_pages) is not int or not 1 <= source.max_empty_pages <= 1_000_000:
        raise ConfigurationError(f"{title}: max_empty_pages must be a whole number from 1 to 1,000,000")
    if not isinstance(source.partial_list, bool):
        raise ConfigurationError(f"{title}: partial_list must be True or False")
    try:
        json.dumps(source.first_cursor, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{title}: first_cursor must be a JSON value: a number, text, None") from None
    if source.total_key is not None and not isinstance(source.total_key, str):
        raise ConfigurationError(f"{title}: total_key must be the key of the total in a page, or None")
    _check_schedule(title, source)


def _check_schedule(title: str, source: ImportSource) -> None:
    if source.schedule is not None and not isinstance(source.schedule, str):
        raise ConfigurationError(f"{title}: schedule must be five cron fields in a string, or None")
    for attribute in ("timezone", "catch_up"):
        if not isinstance(getattr(source, attribute), str):
            raise ConfigurationError(
                f'{title}: {attribute} must be a string, as in {attribute} = "{_EXAMPLES[attribute]}"'
            )
    try:
        Cron("@daily" if source.schedule is None else source.schedule, source.timezone)
        read_catch_up(source.catch_up)
    except UsageError as error:
        raise ConfigurationError(f"{title}: {error}") from None


def _check_model(title: str, source: ImportSource) -> None:
    model = source.model
    missing = [name for name in _METHODS if not callable(getattr(model, name, None))]
    if missing:
        raise ConfigurationError(
            f"{title}: the model {model.__name__} has no {', '.join(missing)} (see docs/write-a-source.md)"
        )
    model_keys.check(title, model, source.unique_by)
    address_probe.check(model, source.unique_by)


def _check_budgets(sources: Iterable[ImportSource]) -> None:
    limits: dict[str, tuple[object, str]] = {}
    for source in sources:
        budget = source.connector.budget
        known, owner = limits.setdefault(budget.name, (budget.limits, source.name))
        if known != budget.limits:
            raise ConfigurationError(
                f"The sources {owner} and {source.name} give the budget {budget.name!r} different limits"
            )
