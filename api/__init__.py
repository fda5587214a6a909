"""The FastAPI shell: synchronous lookups and scoring from the stream's own state."""
