"""Trainwright: one TOML spec in, a checked plan and a trained model out."""

__version__ = "0.1.0"
