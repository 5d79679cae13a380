"""Registers of what the benchmark is made of, to which a file of the user's can add."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

__all__ = ["Named", "PluginError", "Registry", "load_plugin"]


class Named(Protocol):
    """What can be registered."""

    @property
    def name(self) -> str:
        """By which it is found, and put down in rows."""


Item = TypeVar("Item", bound=Named)


class PluginError(ValueError):
    """A plugin that cannot be used; the text says why."""


class Registry(Mapping[str, Item]):
    """Items by name, in the order in which they were added.

    Args:
        what: What they are, in the singular, for errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._items: dict[str, Item] = {}

    def add(self, item: Item) -> Item:
        """Register an item.

        Returns:
            The item itself, so that a definition can be registered where it stands.

        Raises:
            ValueError: the name is taken.
        """
        if item.name in self._items:
            raise ValueError(f"there is a {self._what} {item.name!r} already")
        self._items[item.name] = item
        return item

    def find(self, name: str) -> Item:
        """The item of that name.

        Raises:
            ValueError: there is none.
        """
        if name not in self._items:
            known = ", ".join(self._items)
            raise ValueError(f"unknown {self._what} {name!r}; there are {known}")
        return self._items[name]

    def __getitem__(self, name: str) -> Item:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def load_plugin(path: Path) -> None:
    """Run a file that registers items; a second time nothing happens.

    Raises:
        PluginError: there is no such file, or it fails.
    """
    name = f"tamiyo_plugin_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path.resolve()):
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None or not path.is_file():
        raise PluginError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Before it runs: its dataclasses look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"{path}: {type(error).__name__}: {error}") from error
