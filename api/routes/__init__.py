"""Routes: they translate, the rooms below do the work."""
