"""DiffAgent: finds the fastest way to run a diffusion model without losing quality.

Nothing heavy is imported here: composition, listings and ``--help`` must stay under a second.
"""

__version__ = "0.1.0"
