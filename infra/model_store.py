"""The model registry as settings say: a folder, or MLflow."""

from pathlib import Path

from models.registry import ModelRegistry


def open_registry(folder: Path, mlflow_uri: str = "") -> ModelRegistry:
    """The registry.

    Args:
        folder: Where models are without MLflow.
        mlflow_uri: MLflow's tracking server or database; empty for none.

    Raises:
        ConfigError: MLflow is asked for and not installed.
    """
    if not mlflow_uri:
        return ModelRegistry(folder)
    from infra.mlflow_store import MlflowModelStore  # MLflow takes seconds to import

    return ModelRegistry(folder, MlflowModelStore(mlflow_uri))
