"""From an AnnData to checked data: conditions, contexts, splits, preprocessing, public datasets and a simulator."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
