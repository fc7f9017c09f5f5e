"""MLflow's own application, on a store that is a directory: it finds files where they lie now.

``elth ui`` has MLflow serve it (``--app-name elth``). The database of a store that was moved or
copied names the place where its files were.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mlflow.server.fastapi_app import app
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from orchestrator.store.files import relocated

__all__ = ["app"]

FOLDER = "ELTH_UI_FOLDER"
"""The variable that names the store's folder."""


class Here(LocalArtifactRepository):
    """Files of runs, in the store's folder as it is now."""

    def __init__(self, artifact_uri: str, *args: Any, **options: Any) -> None:
        super().__init__(relocated(artifact_uri, Path(os.environ[FOLDER])), *args, **options)


for _scheme in ("", "file"):
    artifact_repository_registry._artifact_repository_registry.register(_scheme, Here)
