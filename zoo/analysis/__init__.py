"""Diagnosis of models and gradients."""
