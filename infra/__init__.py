"""Adapters to the outside: Redis, Kafka administration, files, embedded servers, metrics, logs."""
