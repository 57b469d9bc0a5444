"""The shop of the pictures: three sources on two APIs, and what their last three days left behind."""

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sources import ItemSource
from workers import Connector, Limit
from workers.connections import database
from workers.cron import Cron
from workers.records.tables import Run, Schedule
from workers.scheduling import schedules

_URL = os.environ["DEMO_API_URL"]
shop_api = Connector("shop-api", base_url=_URL, limits=[Limit(500, seconds=20), Limit(2000, seconds=100)])
#: Its header makes it another client: the mock API counts each client separately.
crm_api = Connector("crm-api", base_url=_URL, limits=[Limit(60, seconds=10)], headers={"X-Api-Key": "crm"})

#: A night without a scheduler: how many hours ago it began, and ended.
_AWAY_HOURS = (33, 29)


class Products(ItemSource):
    name = "products"
    connector = shop_api
    schedule = "0 */3 * * *"


class Orders(ItemSource):
    name = "orders"
    connector = shop_api
    schedule = "15,45 * * * *"


class Customers(ItemSource):
    name = "customers"
    connector = crm_api
    schedule = "30 2 * * *"
    timezone = "Europe/Paris"


SOURCES = [Products(), Orders(), Customers()]


def remember() -> None:
    """Record a past: a run for each slot of the last three days; those of one night were missed."""
    pick = random.Random(3)
    with database.connection():
        now = datetime.now(UTC)
        slots = sorted(
            (slot, schedule.id, schedule) for schedule in schedules.every() for slot in _slots(schedule, now)
        )
        for slot, _, schedule in slots:
            Run.create(**_run(schedule, slot, now, pick))


def _slots(schedule: Schedule, now: datetime) -> Iterator[datetime]:
    for slot in Cron(schedule.cron, schedule.timezone).after(now - timedelta(hours=72)):
        if slot > now - timedelta(minutes=20):
            return
        yield slot


def _run(schedule: Schedule, slot: datetime, now: datetime, pick: random.Random) -> dict[str, object]:
    kept = {"source": schedule.source, "schedule_id": schedule.id, "slot_at": slot, "scheduled_at": slot}
    kept |= {"lanes": 16, "created_by": "scheduler", "created_at": slot}
    if _AWAY_HOURS[0] > (now - slot) / timedelta(hours=1) > _AWAY_HOURS[1]:
        missed = "missed: no scheduler ran then, and none is made up for"
        return kept | {"status": "cancelled", "ended_at": slot + timedelta(hours=4), "error_summary": missed}
    if pick.random() < 0.02:
        return kept | _broken(slot)
    return kept | _ended(schedule.source, slot, pick)


def _broken(slot: datetime) -> dict[str, object]:
    why = "list page 3: 500 Internal Server Error, in the last of 3 attempts"
    began = {"started_at": slot, "ended_at": slot + timedelta(seconds=14), "requests_count": 5}
    return {"status": "failed", "error_summary": why, "total_count": 200, **began}


def _ended(name: str, slot: datetime, pick: random.Random) -> dict[str, object]:
    total, per_second = {"products": (2880, 20), "orders": (640, 24), "customers": (410, 6)}[name]
    failed = pick.choice((0, 0, 0, 0, 0, 2, 7)) if name == "orders" else 0
    seconds = total / per_second * pick.uniform(0.95, 1.25)
    return {
        "status": "completed",
        "started_at": slot,
        "discovered_at": slot + timedelta(seconds=2),
        "ended_at": slot + timedelta(seconds=seconds),
        "total_count": total,
        "succeeded_count": total - failed,
        "failed_count": failed,
        "rate_limit_sleeps_count": int(seconds // 10),
        "total_sleep_seconds": seconds * 0.7,
        "requests_count": total + total // 100,
    }


__all__ = ["SOURCES", "remember"]
