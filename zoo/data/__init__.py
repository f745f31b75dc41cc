"""DataModules and the description of what they yield."""

from zoo.data.registry import create_data, list_data, register_data
from zoo.data.spec import Batch, DataSpec

__all__ = ["Batch", "DataSpec", "create_data", "list_data", "register_data"]
