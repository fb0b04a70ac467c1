"""Describing a run: schema and YAML front end. Nothing here imports torch."""

from .analysis import (
    Analysis,
    DataProbe,
    EverySteps,
    Measuring,
    MixProbe,
    OwnMetric,
    Pair,
    Probe,
    Realignment,
    TextProbe,
    TracesProbe,
    Tracking,
    WorldProbe,
)
from .backbone import Architecture, Backbone, Lora, PretrainedBackbone, RandomBackbone
from .data import Columns, Data, FilesSource, FunctionSource, HubSource, MixSource, Source, WorldSource
from .engine import EngineSettings, check_engine
from .evaluation import (
    BeirTask,
    BrightTask,
    ChoiceTask,
    ClassificationTask,
    Evaluation,
    HoldoutTask,
    NumberSequencesTask,
    StsTask,
    SuiteTask,
    Task,
    TrainingEvaluation,
    WorldTask,
)
from .experiment import ExperimentConfig, ExperimentRun, RunGrid
from .lineage import (
    DpoStage,
    Gates,
    GivenStage,
    Lineage,
    LineageConfig,
    PretrainStage,
    RlvrStage,
    SftStage,
    Stage,
    StageCheckpoints,
)
from .loss import (
    Anchor,
    Distillation,
    FalseNegatives,
    InfoNCE,
    LearntTemperature,
    OwnTerm,
    SIGReg,
    Uniformity,
    VectorDistillation,
)
from .merge import (
    Dare,
    Karcher,
    Linear,
    MergeConfig,
    MergeMethod,
    MergePath,
    ModelStock,
    RunCheckpoints,
    Slerp,
    TaskArithmetic,
    TensorValue,
    Ties,
)
from .optimizer import AdamW, AdamW8bit, Muon, Optimizer
from .reading.loading import LoadedConfig, config_from_mapping, load_config, section_from_mapping, sweep_runs
from .reading.sweep_runs import SweepRun
from .readout import NewHead, Prompts, ReadoutSettings, SidePrompts
from .replicates import Measure, Question, Replicates
from .resolved import (
    as_begun,
    changed_since,
    diff,
    digests,
    is_place,
    is_schedule,
    is_scoring,
    resolved_json,
    scoring_digest,
    to_yaml,
    unpaired,
)
from .sweep import LocalLaunch, SlurmLaunch, SweepConfig
from .training import Checkpoints, Logging, Recipe, RunConfig, Training
