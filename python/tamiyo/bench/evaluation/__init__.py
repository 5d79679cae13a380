"""How well policies do on `tamiyo/Training-v0`, with intervals: `tamiyo evaluate`."""
