"""The one loop every network is trained by, and what it is told: stages, batches, optimisers."""

import lazy_loader

# What __init__.pyi names is imported when it is first asked for: a baseline never waits for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
