"""Describing a run: schema and YAML front end. Nothing here imports torch."""

from .analysis import (
    Analysis,
    DataProbe,
    EverySteps,
    Measuring,
    MixProbe,
    Pair,
    Probe,
    Realignment,
    TextProbe,
    TracesProbe,
    Tracking,
    WorldProbe,
)
from .backbone import Architecture, Backbone, Lora, Pooling, PretrainedBackbone, RandomBackbone
from .data import Data, FilesSource, HubSource, MixSource, Source, WorldSource
from .diff import diff, resolved_json, to_yaml
from .evaluation import (
    BeirTask,
    BrightTask,
    ChoiceTask,
    ClassificationTask,
    Evaluation,
    NumberSequencesTask,
    StsTask,
    SuiteTask,
    Task,
    TrainingEvaluation,
    WorldTask,
)
from .experiment import ExperimentConfig, ExperimentRun
from .lineage import Gates, Lineage, LineageConfig, PretrainStage, RlvrStage, SftStage, Stage
from .loading import LoadedConfig, load_config
from .loss import Anchor, Distillation, FalseNegatives, InfoNCE, LearntTemperature, SIGReg, Uniformity
from .optimizer import AdamW, AdamW8bit, Muon, Optimizer
from .training import Checkpoints, Logging, Recipe, RunConfig, Training
