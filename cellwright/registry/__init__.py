"""The registry: MLflow remembers every run and model version; the only room that imports it, and only when it is needed."""
