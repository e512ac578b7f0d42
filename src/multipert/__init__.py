"""multipert: one model for many perturbations, and an honest answer to how good it is."""

import lazy_loader

__version__ = "0.1.0"

# What __init__.pyi names is imported when it is first asked for: `multipert --help` need not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
