"""Builds the columns of the items of a list page: items with a row are pending, others are skipped or failed."""

from collections.abc import Mapping
from typing import Any

from workers.connections import database
from workers.engine.list_parser import Page
from workers.engine.list_rows import Listed
from workers.failures import REASON_LENGTH, FailureClass, fingerprint, storable_reason, uncut_reason
from workers.records.import_status import item_type
from workers.records.tables import ItemStatus
from workers.sources.contracts import ImportSource


def pending(source: ImportSource, saved: Listed) -> list[dict[str, Any]]:
    """Return the columns of the items that have a row."""
    common = _columns(source, ItemStatus.PENDING)
    return [common | {"external_id": external_id, "item_id": key} for external_id, key in saved.rows.items()]


def skipped_and_refused(source: ImportSource, read: Page, saved: Listed) -> list[dict[str, Any]]:
    """Return the columns of the items that the source skips, and of the refused ones."""
    skipped = _columns(source, ItemStatus.SKIPPED)
    return [
        *(
            skipped | {"external_id": where, "failure_reason": storable_reason(why)}
            for where, why in read.skipped.items()
        ),
        *failed(source, read.refused | saved.refused, FailureClass.BAD_DATA),
    ]


def failed(source: ImportSource, refused: Mapping[str, str], failure_class: FailureClass) -> list[dict[str, Any]]:
    """Return the columns of items without a row, by their place in the list -> why they have none."""
    common = _columns(source, ItemStatus.FAILED)
    common |= {"failure_class": failure_class, "failure_count": 1, "last_failed_at": common["due_at"]}
    return [
        common
        | {
            "external_id": where,
            "failure_reason": why[:REASON_LENGTH],
            "failure_fingerprint": fingerprint(failure_class, why, where),
        }
        for where, why in ((where, uncut_reason(why)) for where, why in refused.items())
    ]


def _columns(source: ImportSource, status: ItemStatus) -> dict[str, Any]:
    blank = dict.fromkeys(("item_id", "failure_class", "failure_reason", "failure_fingerprint", "last_failed_at"))
    return blank | {
        "item_type": item_type(source.model),
        "status": status,
        "due_at": database.now(),
        "failure_count": 0,
    }
