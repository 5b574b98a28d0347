"""Fields that the descriptions of several architectures share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(ge=1, le=65536)]
"""Channels of a feature map."""
