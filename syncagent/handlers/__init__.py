"""Bucket events: where to look, never what happened."""
