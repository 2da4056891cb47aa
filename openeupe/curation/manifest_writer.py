"""Write the manifest: one row per image, with the reason if it is dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openeupe.curation.by_vectors import Shares
from openeupe.curation.decide import NONE, REASONS, Decisions
from openeupe.curation.image_pool import ImagePool
from openeupe.curation.scan import file_of
from openeupe.data.manifest import METADATA
from openeupe.files import durable

SCHEMA = pa.schema(
    [
        ("source", pa.int16()),  # which root of the metadata the path is relative to
        ("path", pa.string()),  # a file, or a shard
        ("offset", pa.int64()),  # first byte in the shard; null for files
        ("size_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("digest", pa.binary(16)),  # BLAKE2b of the bytes
        ("hash", pa.uint64()),  # perceptual; 0 for none
        ("reason", pa.dictionary(pa.int8(), pa.string())),
        ("weight", pa.float32()),  # 0 for what was dropped; mean 1
        ("cluster", pa.int32()),  # of the finest level; null for none
        ("of", pa.int64()),  # row of this file that a copy is a copy of
        ("against", pa.string()),  # evaluation image that a leak shows
        ("bits", pa.uint8()),  # by which the hashes of the two differ; null: not compared
        ("cosine", pa.float32()),  # of their embeddings; both null: the bytes are the same
        ("agreement", pa.float32()),  # of their edges once aligned; null: not compared
    ]
)


def write_manifest(
    out: Path,
    scans: Path,
    image_pool: ImagePool,
    decided: Decisions,
    shares: Shares,
    against: ImagePool | None,
    about: Mapping[str, object],
) -> None:
    """Write all rows atomically, part after part.

    Args:
        scans: folder of the parts that `scan` wrote.
    """
    schema = SCHEMA.with_metadata({METADATA: json.dumps(about)})
    with durable(out) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for part in range(image_pool.parts):
            rows = image_pool.rows(part)
            here = slice(rows.start, rows.stop)
            known = pq.read_table(file_of(scans, part)).drop_columns(
                ["mirrored", "flipped", "turned"]
            )
            reason, cosine = decided.reason[here], decided.cosine[here]
            agreement, clusters = decided.agreement[here], shares.clusters[here]
            leaks = [decided.leaks.get(row) for row in rows]
            names = [against.name(k) if against and k is not None else None for k in leaks]
            more = {
                "reason": _named(reason, REASONS),
                "weight": pa.array(shares.weights[here], pa.float32()),
                "cluster": _known(clusters, clusters >= 0, pa.int32()),
                "of": _known(decided.of[here], decided.of[here] >= 0, pa.int64()),
                "against": pa.array(names, pa.string()),
                "bits": _known(decided.bits[here], decided.bits[here] != NONE, pa.uint8()),
                "cosine": _known(cosine, ~np.isnan(cosine), pa.float32()),
                "agreement": _known(agreement, ~np.isnan(agreement), pa.float32()),
            }
            columns = [more[n] if n in more else known.column(n) for n in SCHEMA.names]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _named(numbers: NDArray[np.uint8], names: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int8()), pa.array(names))


def _known(values: NDArray[Any], mask: NDArray[np.bool_], kind: Any) -> pa.Array:
    return pa.array(values, kind, mask=~mask)
