"""A believable bank, made up from a seed: customers with habits, fraud among them, labels that come late."""
