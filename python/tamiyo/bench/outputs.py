"""Whether results can be written where they are wanted, before any work is done for them."""

from pathlib import Path

__all__ = ["check_writable", "reason"]


def check_writable(path: Path) -> None:
    """Make sure that a file can be written, and leave what is there as it is; its folder is made.

    Raises:
        ValueError: it cannot; the text says which file and why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        missing = not path.exists()
        with path.open("ab"):
            pass
        if missing:
            path.unlink()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {reason(error)}") from None


def reason(error: OSError) -> str:
    """Why something could not be written, in words that say what to do."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "there is a file where a folder should be"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return error.strerror or str(error)
