"""The whole product on one machine, as real processes: for the demo, benchmarks and fault tests."""
