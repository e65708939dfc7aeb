"""Finds among the results that a stage needs the one it means, whatever the stage that made it is called."""

from pathlib import Path


def holding(inputs: dict[str, Path], content: str) -> Path:
    """The folder that holds a file or folder of that name. Raises ValueError unless there is exactly one."""
    (folder,) = (folder for folder in inputs.values() if (folder / content).exists())
    return folder
