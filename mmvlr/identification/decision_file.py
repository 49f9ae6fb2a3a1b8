"""Store a decision as one JSON file."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from mmvlr.utils.schema import Count, FileModel, read_sealed, write_sealed

_FORMAT, _VERSION = 'mmvlr decision', 2
_REMEDY = 'calibrate again'

_Rate = Annotated[float, Field(gt=0, lt=1)]
_Share = Annotated[float, Field(ge=0, le=1)]


class ThresholdContent(FileModel):
    """Content of a :class:`mmvlr.identification.conformal.ConformalThreshold` in a file."""

    threshold: float
    fpir: _Rate
    num_people: Count
    num_faces: Count


class LevelContent(FileModel):
    """Content of an :class:`mmvlr.identification.abstention.AbstentionLevel` in a file.

    A level of None answers every face: JSON has no infinity.
    """

    level: float | None
    reached: bool
    target: _Rate
    error: _Share
    coverage: _Share
    bound: _Share | None
    num_faces: Count


class CalibratedOn(FileModel):
    """Calibration data of a decision; all fields but the gallery are only for information."""

    model_config = ConfigDict(extra='allow')

    gallery: dict[str, Any]


class DecisionContent(FileModel):
    """Content of a :class:`mmvlr.identification.Decision` in a file."""

    identity: dict[str, Any]
    target_fpir: _Rate
    bin_quality: str | None
    edges: list[float]
    thresholds: Annotated[list[ThresholdContent], Field(min_length=1)]
    num_merged: Count
    abstain_by: str | None
    level: LevelContent | None
    quantiles: dict[str, Annotated[list[float], Field(min_length=1)]]
    calibrated_on: CalibratedOn

    @model_validator(mode='after')
    def _check(self) -> 'DecisionContent':
        rising = {f'quantiles.{name}': values for name, values in self.quantiles.items()}
        for name, values in dict(rising, edges=self.edges).items():
            if any(low > high for low, high in pairwise(values)):
                raise ValueError(f'{name} must rise')
        if len(self.thresholds) != len(self.edges) + 1:
            raise ValueError('thresholds must be one more than edges')
        if self.edges and self.bin_quality is None:
            raise ValueError('bin_quality is missing')
        if (self.level is None) != (self.abstain_by is None):
            raise ValueError('level and abstain_by go together')
        if self.abstain_by not in (None, 'distance', *self.quantiles):
            raise ValueError(f'quantiles of {self.abstain_by!r} are missing')
        return self


class DecisionContentVersion1(DecisionContent):
    """Content of version 1, in which RI is on another scale: for most models its logarithm."""

    @model_validator(mode='after')
    def _check_scale(self) -> 'DecisionContentVersion1':
        for name in ('bin_quality', 'abstain_by'):
            if getattr(self, name) == 'ri':
                raise ValueError(f"{name} is 'ri', whose scale has changed since")
        self.quantiles.pop('ri', None)
        return self


def read_decision(path: str | Path) -> DecisionContent:
    """Read a decision.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It holds no decision, one of another version, or is damaged.
    """
    return read_sealed(path, _FORMAT, _READERS, _REMEDY)


_READERS = {1: DecisionContentVersion1, _VERSION: DecisionContent}


def write_decision(path: str | Path, content: Mapping[str, Any], keep_mode: bool = False) -> Path:
    """Write a decision, atomically; only its owner can read it."""
    return write_sealed(path, _FORMAT, _VERSION, content, private=True, keep_mode=keep_mode)
