"""The Faust shell: chunks of records from Kafka through the core and out again."""
