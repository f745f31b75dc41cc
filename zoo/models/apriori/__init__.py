"""Association rules: the model, and the algorithms it is made of."""

from zoo.models.apriori.apriori import Apriori

__all__ = ["Apriori"]
