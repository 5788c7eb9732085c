"""Miniature diffusion models: captioned scenes of coloured shapes, their checker and training."""
