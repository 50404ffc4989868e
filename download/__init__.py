"""Recipes: one YAML file per data set, checkpoint or concept set, and the engine that fetches them."""
