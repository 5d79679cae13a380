"""The one place that imports PyTorch Geometric.

PyG scripts a class when it is imported, which newer torch versions call deprecated; users who turn
warnings into errors must still be able to import Tamiyo.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import Batch, Data

__all__ = ["Batch", "Data"]
