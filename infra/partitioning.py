"""Which partition a customer's messages belong in."""

from aiokafka.partitioner import murmur2


def partition_for(customer_id: str, partitions: int) -> int:
    """Partition of a customer, as the Java client's default partitioner chooses it from the key.

    Librdkafka's own default (CRC32) chooses another one: producers that use it set
    `partitioner=murmur2_random`, else their messages are forwarded.

    >>> partition_for("c0000001", 8)
    1
    """
    return int(murmur2(customer_id.encode()) & 0x7FFFFFFF) % partitions
