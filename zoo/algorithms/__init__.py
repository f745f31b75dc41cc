"""Algorithms on tensors that the models are made of: no trainer, no model, nothing but torch."""
