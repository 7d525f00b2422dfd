"""Releases: what a user downloads, with proofs of what is in it."""
