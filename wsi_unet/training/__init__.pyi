from .recipe import Recipe as Recipe
from .recipe_file import read_recipe as read_recipe
from .report import Training as Training
from .report import TrainingProgress as TrainingProgress
from .run import train as train

__all__ = [
    "Recipe",
    "Training",
    "TrainingProgress",
    "read_recipe",
    "train",
]
