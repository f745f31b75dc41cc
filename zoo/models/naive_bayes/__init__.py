"""Naive Bayes: its model, and the likelihoods of a feature given the class."""

from zoo.models.naive_bayes.naive_bayes import NaiveBayes

__all__ = ["NaiveBayes"]
