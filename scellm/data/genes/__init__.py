"""Genes: the vocabulary, what names mean, and the packaged tables (see README.md here)."""
