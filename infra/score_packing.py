"""Scores kept for lookups, in two fifths of their bytes: the words they all share are known beforehand."""

from typing import Final

import zstandard

from schemas.errors import HistoryError

# What scores are compressed against: messages as `models.messages` makes them, what is most usual last.
# A change of this text is a new `codec.VERSION`.
WORDS: Final = (
    b'"band":"high","band":"medium","recommended_action":"contact"}"recommended_action":"watch"'
    b'{"schema_version":1,"customer_id":"c0000001","as_of":"2026-03-01T02:14:00.001Z","scored_at":'
    b'"2026-03-01T02:14:00.021Z","churn_probability":0.01,"band":"low","horizon_days":30,"drivers":[],'
    b'"model":{"name":"churn","version":"v1","role":"champion"},"value_at_risk":0.0,'
    b'"recommended_action":"none","trigger":"sweep"}"trigger":"event"}'
    b'"decision":"block","reasons":[{"feature":"amount_to_mean_90d","value":1.0,"contribution":0.1,'
    b'"text":" times the usual payment"},{"feature":"device_is_new_90d","value":1.0,"contribution":0.2,'
    b'"text":"first use of this device"},{"feature":"txn_count_1h","value":null,"contribution":1.2}]'
    b'"decision":"review","flags":["late"],"flags":["cold_start"],"flags":["history_cut"],'
    b'"flags":["corrected"],'
    b'{"schema_version":1,"transaction_id":"t0000000001","customer_id":"c0000001","event_time":'
    b'"2026-03-01T02:14:00.000Z","scored_at":"2026-03-01T02:14:00.021Z","score":0.001,'
    b'"decision":"allow","reasons":[],"model":{"name":"fraud","version":"v1","role":"champion"},"flags":[],'
    b'"source":{"topic":"transactions","partition":3,"offset":1}}'
)
# One of zstandard's fast levels: half of the time of level 1, for a sixth more bytes.
_LEVEL: Final = -1
_LARGEST: Final = 1 << 20


class ScorePacker:
    """Packs and unpacks; not for several threads at once."""

    def __init__(self) -> None:
        words = zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        words.precompute_compress(level=_LEVEL)
        self._compress = zstandard.ZstdCompressor(_LEVEL, dict_data=words)
        self._decompress = zstandard.ZstdDecompressor(dict_data=words)

    def pack(self, score: bytes) -> bytes:
        """A score as it is stored."""
        return self._compress.compress(score)

    def unpack(self, stored: bytes) -> bytes:
        """A stored score as it was.

        Raises:
            HistoryError: The bytes are not one.
        """
        try:
            return self._decompress.decompress(stored, max_output_size=_LARGEST, allow_extra_data=False)
        except (ValueError, zstandard.ZstdError) as broken:
            raise HistoryError(
                f"a stored score ({len(stored)} bytes) cannot be read: run 'tidegate rebuild'"
            ) from broken
