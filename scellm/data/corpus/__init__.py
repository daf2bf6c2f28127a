"""Cells to train on: many datasets over one vocabulary, packed files, and which cells come into a batch."""
