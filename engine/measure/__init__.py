"""Measuring: statistics of paired timings and of quality, and the scores themselves."""
