"""The one feature engine: history as state, features as a pure function of it."""
