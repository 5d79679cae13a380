"""The `tamiyo` command."""
