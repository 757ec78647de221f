"""Keeping the collections small: documents that are older than the retention are removed.

The cuts stand in the record of what is loaded, and are moved there first: from then on the collection is owed the rows
after them only. A load records a version only by the cuts that are there, and removes what is before them once more if
they have moved while it was writing (`orchestration.serving.load`). So whichever of the two comes last removes what is
to go, and nobody waits. What a kill leaves is removed by the next load or run: all before the cuts, not only what is
new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse.snapshot import TableSnapshot
from orchestration.lakehouse.tables import Lakehouse
from orchestration.serving.cutoffs import Kept, cut_anew, cutoff_text
from orchestration.serving.mongo import COLLECTIONS, TABLE, MongoStore


@dataclass(frozen=True)
class CollectionReport:
    """What was removed from a collection, or would be (`dry_run`)."""

    collection: str
    removed: int
    kept: Kept
    note: str = ""

    def text(self) -> str:
        """One line for people."""
        done = f"{self.collection}: {self.removed:,} documents removed; kept {cutoff_text(self.kept) or 'as it is'}"
        return f"{done}; {self.note}" if self.note else done


def retain(lakehouse: Lakehouse, store: MongoStore, days: int, *, dry_run: bool = False) -> Iterator[CollectionReport]:
    """Remove, of each symbol, the documents of more than `days` UTC days before that of its newest row.

    Collections that were never loaded from the table as it is are left alone. Raises pymongo's PyMongoError, and
    DeltaError when the table cannot be read.
    """
    records = store.loaded()
    try:
        table = TableSnapshot(lakehouse.uri, TABLE)
    except TableNotFoundError:
        return
    table_id = str(table.opened.metadata().id)
    loaded = {
        window: record
        for window, collection in COLLECTIONS.items()
        if (record := records.get(collection)) is not None and record.table_id == table_id
    }
    newest = table.largest({symbol for window in loaded for symbol in store.symbols(window)})
    for window, record in loaded.items():
        kept = cut_anew(record.kept, newest, days)
        if dry_run:
            yield CollectionReport(COLLECTIONS[window], store.count_cut_off(window, kept), kept, "dry run: none was")
        elif kept == record.kept or store.move_cuts(window, record, kept):
            removed = store.remove_cut_off(window, kept)
            if removed:
                store.recount(window, record)
            yield CollectionReport(COLLECTIONS[window], removed, kept)
        else:
            note = "it is being loaded anew, and the next run removes what is due"
            yield CollectionReport(COLLECTIONS[window], 0, record.kept, note)
