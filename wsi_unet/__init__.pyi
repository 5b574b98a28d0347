from ._version import __version__ as __version__
from .cohorts.cohort import read_cohort as read_cohort
from .cohorts.planning import plan_cohort as plan_cohort
from .cohorts.report import CohortReport as CohortReport
from .corrections.reading import open_edited_objects as open_edited_objects
from .corrections.run import CorrectionsReport as CorrectionsReport
from .corrections.run import import_annotations as import_annotations
from .dask_cluster.options import ClusterOptions as ClusterOptions
from .errors import AnnotationError as AnnotationError
from .errors import BlockError as BlockError
from .errors import ClusterError as ClusterError
from .errors import EvaluationError as EvaluationError
from .errors import InputError as InputError
from .errors import LockedError as LockedError
from .errors import MaskError as MaskError
from .errors import ModelError as ModelError
from .errors import OptionError as OptionError
from .errors import OutputError as OutputError
from .errors import PlanError as PlanError
from .errors import RecipeError as RecipeError
from .errors import SignatureError as SignatureError
from .errors import SlideError as SlideError
from .errors import TrainingError as TrainingError
from .errors import WsiUnetError as WsiUnetError
from .evaluation.report import Evaluation as Evaluation
from .evaluation.run import evaluate as evaluate
from .exports.options import ExportOptions as ExportOptions
from .exports.progress import ExportProgress as ExportProgress
from .exports.run import ExportReport as ExportReport
from .exports.run import export as export
from .labels.reading import open_labels as open_labels
from .labels.reading import open_probabilities as open_probabilities
from .measuring.run import measure as measure
from .models.model import Model as Model
from .models.model import bundled_models as bundled_models
from .models.model import load_model as load_model
from .models.saving import save_model as save_model
from .objects.reading import open_objects as open_objects
from .objects.report import ObjectsReport as ObjectsReport
from .segmentation.find_objects import find_objects as find_objects
from .segmentation.map_unet import map_unet as map_unet
from .segmentation.planning.options import Options as Options
from .segmentation.planning.plan import Plan as Plan
from .segmentation.report import CohortProgress as CohortProgress
from .segmentation.report import Report as Report
from .segmentation.report import RunProgress as RunProgress
from .segmentation.runs.cohort import segment_cohort as segment_cohort
from .segmentation.runs.jobs import SlideJob as SlideJob
from .segmentation.runs.jobs import SlideOutcome as SlideOutcome
from .segmentation.segment import plan as plan
from .segmentation.segment import segment as segment
from .segmentation.status import RunStatus as RunStatus
from .segmentation.status import run_status as run_status
from .slides.opening import open_slide as open_slide
from .slides.slide import Slide as Slide
from .training.report import Training as Training
from .training.run import train as train
from .view.overlay import write_overlay as write_overlay

__all__ = [
    "AnnotationError",
    "BlockError",
    "ClusterError",
    "ClusterOptions",
    "CohortProgress",
    "CohortReport",
    "CorrectionsReport",
    "Evaluation",
    "EvaluationError",
    "ExportOptions",
    "ExportProgress",
    "ExportReport",
    "InputError",
    "LockedError",
    "MaskError",
    "Model",
    "ModelError",
    "ObjectsReport",
    "OptionError",
    "Options",
    "OutputError",
    "Plan",
    "PlanError",
    "RecipeError",
    "Report",
    "RunProgress",
    "RunStatus",
    "SignatureError",
    "Slide",
    "SlideError",
    "SlideJob",
    "SlideOutcome",
    "Training",
    "TrainingError",
    "WsiUnetError",
    "__version__",
    "bundled_models",
    "evaluate",
    "export",
    "find_objects",
    "import_annotations",
    "load_model",
    "map_unet",
    "measure",
    "open_edited_objects",
    "open_labels",
    "open_objects",
    "open_probabilities",
    "open_slide",
    "plan",
    "plan_cohort",
    "read_cohort",
    "run_status",
    "save_model",
    "segment",
    "segment_cohort",
    "train",
    "write_overlay",
]
