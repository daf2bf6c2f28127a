"""Cell types from vectors: heads, calibration, prediction sets, novelty. Arrays in, arrays out."""
