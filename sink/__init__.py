"""The sink: accepted transactions with their scores into the event log and the customer index."""
