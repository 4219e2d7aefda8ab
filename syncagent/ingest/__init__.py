"""Bytes, metadata and annotations in; items, facts and labels out."""
