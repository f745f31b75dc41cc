"""The models, one file a family; `zoo.create_model` builds them by name."""
