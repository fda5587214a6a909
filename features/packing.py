"""The packed block of a stored history: its earlier records in about a third of their bytes."""

import struct
import threading
from typing import Any, Final

import numba
import numpy as np
import zstandard

from features.record import RECORD, Records
from schemas.errors import HistoryError

# Of a record: 24 bytes that differ nearly always, and the rest, which customers repeat.
_REST_BYTES: Final = RECORD.itemsize - 24
_REST_WORDS: Final = _REST_BYTES // 8
_PACKED_COUNT: Final = struct.Struct("<I")
_COMPRESSION: Final = 3


class _Contexts(threading.local):
    """Zstandard's memory, which costs more to make than a history to read; one of each for a thread."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(_COMPRESSION)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Contexts()


def pack(records: Records) -> bytes:
    """Records in about a third of their bytes: to be stored behind a header, read by `codec.decode`.

    Transaction hashes are random and stay as they are. Times are kept as differences, and what customers
    repeat (merchant, place, device, kind of payment) once, with a number for each record. Numbers
    are written byte by byte across records, so that equal high bytes stand together. Every bit is kept.

    Args:
        records: `(n,)` in any order; times that grow take the least.
    """
    n = len(records)
    words = np.ascontiguousarray(records).view("<u8").reshape(n, RECORD.itemsize // 8)
    across, numbers = np.empty(16 * n, dtype=np.uint8), np.empty(4 * n, dtype=np.uint8)
    distinct = np.empty(n * _REST_WORDS, dtype="<u8")
    table = np.full(2 << n.bit_length(), -1, dtype=np.int64)
    n_distinct = _take_apart(words, table, across, numbers, distinct)
    rests = distinct[: n_distinct * _REST_WORDS].tobytes()
    parts = (_PACKED_COUNT.pack(n_distinct), across.tobytes(), rests, numbers.tobytes())
    compressed = _zstd.compressor.compress(b"".join(parts))
    return _PACKED_COUNT.pack(n) + words[:, 1].tobytes() + compressed


@numba.njit(cache=True)
def _take_apart(words: Any, table: Any, across: Any, numbers: Any, distinct: Any) -> Any:
    """The parts of a packed block: what `_fill` reads.

    Args:
        words: `(n, k)` records.
        table: `(2**m,)`, more than twice as long as there are records; all -1.
        across: `(16 n,)`; filled with differences of times and with amounts, byte by byte across records.
        numbers: `(4 n,)`; filled with the number of each record's rest among `distinct`, in the same way.
        distinct: `(n (k - 3),)`; filled with rests in the order in which they come.

    Returns:
        How many different rests there are.
    """
    n, size = words.shape[0], words.shape[1] - 3
    mask, found, before = len(table) - 1, 0, np.uint64(0)
    for i in range(n):
        step, amount, mixed = words[i, 0] - before, words[i, 2], np.uint64(0)
        before = words[i, 0]
        for word in range(size):
            mixed = (mixed ^ words[i, 3 + word]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        place = np.int64(mixed & np.uint64(mask))
        while table[place] >= 0:
            same = True
            for word in range(size):
                same &= distinct[table[place] * size + word] == words[i, 3 + word]
            if same:
                break
            place = (place + 1) & mask
        if table[place] < 0:
            for word in range(size):
                distinct[found * size + word] = words[i, 3 + word]
            table[place] = found
            found += 1
        number = table[place]
        for byte in range(8):
            shift = np.uint64(8 * byte)
            across[byte * n + i] = np.uint8((step >> shift) & np.uint64(0xFF))
            across[(8 + byte) * n + i] = np.uint8((amount >> shift) & np.uint64(0xFF))
        for byte in range(4):
            numbers[byte * n + i] = np.uint8((number >> (8 * byte)) & 0xFF)
    return found


def unpack(packed: bytes, room: int = 0) -> Records:
    """Records of a packed block.

    Args:
        packed: The block.
        room: Records behind them that are not filled, for those that came later.

    Raises:
        HistoryError: The bytes are not one.
    """
    try:
        (n,) = _PACKED_COUNT.unpack_from(packed)
        hashes = np.frombuffer(packed, "<u8", n, _PACKED_COUNT.size)
        # No record can take more: what says otherwise must not fill the memory.
        most = _PACKED_COUNT.size + n * (8 + 8 + _REST_BYTES + 4)
        plain = _zstd.decompressor.decompress(
            packed[_PACKED_COUNT.size + 8 * n :], max_output_size=most, allow_extra_data=False
        )
        (n_distinct,) = _PACKED_COUNT.unpack_from(plain)
        behind = _PACKED_COUNT.size + 16 * n
        distinct = np.frombuffer(plain, "<u8", n_distinct * _REST_WORDS, behind)
        across = np.frombuffer(plain, np.uint8, 16 * n, _PACKED_COUNT.size)
        numbers = np.frombuffer(plain, np.uint8, 4 * n, behind + distinct.nbytes)
        records = np.empty(n + room, dtype=RECORD)
        if not _fill(
            across, numbers, hashes, distinct, records.view("<u8").reshape(n + room, RECORD.itemsize // 8)
        ):
            raise ValueError("a number without its record")
    except (struct.error, ValueError, zstandard.ZstdError) as broken:
        raise HistoryError(
            f"the packed block of a stored history ({len(packed)} bytes) cannot be read: "
            "run 'tidegate rebuild'"
        ) from broken
    return records


@numba.njit(cache=True)
def _fill(across: Any, numbers: Any, hashes: Any, distinct: Any, words: Any) -> Any:
    """Put a packed block's parts into the first of records, each of which is a row of words.

    Args:
        across: Differences of times and then amounts, 8 bytes each, byte by byte across records.
        numbers: Of each record's rest among `distinct`, 4 bytes each, byte by byte too.
        hashes: `(n,)` of transactions.
        distinct: Rests, one behind the other.
        words: `(n or more, k)`; filled.

    Returns:
        False where a number names no rest.
    """
    n, size = len(hashes), words.shape[1] - 3
    time = np.uint64(0)
    for i in range(n):
        step, amount, number = np.uint64(0), np.uint64(0), 0
        for byte in range(8):
            shift = np.uint64(8 * byte)
            step |= np.uint64(across[byte * n + i]) << shift
            amount |= np.uint64(across[(8 + byte) * n + i]) << shift
        for byte in range(4):
            number |= int(numbers[byte * n + i]) << (8 * byte)
        if (number + 1) * size > len(distinct):
            return False
        time += step
        words[i, 0], words[i, 1], words[i, 2] = time, hashes[i], amount
        for word in range(size):
            words[i, 3 + word] = distinct[number * size + word]
    return True
