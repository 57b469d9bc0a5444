"""Holds a connection to the database of a user's model for a block, and checks whether that database answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from peewee import Model

from workers.connections import database


def answers(model: type[Model]) -> bool:
    """Whether Sluice's database and the model's answer now, outside any transaction."""
    places = {database.db.obj, model._meta.database if issubclass(model, Model) else database.db.obj}
    try:
        for place in places:
            database.reconnect(place)  # a single lost connection is no outage
            place.execute_sql("SELECT 1").fetchall()
    except Exception:
        return False
    return True


@contextmanager
def connected(model: type[Model]) -> Iterator[None]:
    """Hold this thread's connection to a model's database for a block, if it is not Sluice's database."""
    if database.is_ours(model):
        yield
        return
    theirs = model._meta.database
    opened = theirs.connect(reuse_if_open=True)
    try:
        yield
    finally:
        if opened and not theirs.is_closed():
            theirs.close()
