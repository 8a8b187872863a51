"""From a Bundle and live observations to answers. Imports no torch, Lightning or MLflow."""
